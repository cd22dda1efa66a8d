"""What this machine is and does best: native bf16, the C allocator, facts for the record."""

import ctypes
import os
import platform
import sys
import weakref
from collections.abc import Callable
from importlib import metadata
from typing import Any, Literal

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Precision = Literal["auto", "fp32", "bf16"]


def native_bf16(device: torch.device) -> bool:
    """Whether the device has instructions that multiply bf16 (AMX or AVX-512 BF16, tensor cores from Ampere on)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    return device.type == "mps"


def keep_memory() -> bool:
    """Lets glibc keep large blocks instead of returning them after every step; True where that was possible.

    Training steps on a CPU get 1.1 to 1.6 times faster, because pages are not faulted in anew each step; the price is
    memory, up to a third more at the peak. Call it before the first large allocation.
    """
    if not _glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, 2**31 - 1) and mallopt(top_pad, 64 << 20))


def trim_memory() -> None:
    """Returns to the system what glibc keeps and nothing uses: where extents vary from batch to batch, it grows by the hour."""
    if _glibc():
        ctypes.CDLL(None).malloc_trim(0)


class _Held(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.known, self.held, self.most = weakref.WeakSet[Any](), 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, torch.Tensor):
                self.known.add(tensor.untyped_storage())
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage()) not in self.known:
                self.known.add(storage)
                self.held += storage.nbytes()
                weakref.finalize(storage, self.free, storage.nbytes())
        self.most = max(self.most, self.held)
        return made

    def free(self, size: int) -> None:
        self.held -= size


def peak_memory(run: Callable[[], object]) -> int:
    """The most bytes of tensors that a call holds at once, beside what was held before; not what an operation needs within."""
    with _Held() as counter:
        run()
    return counter.most


def settle() -> None:
    """Returns when the accelerator, if there is one, has done all that it was asked: before that no clock tells the truth."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def _glibc() -> bool:
    return sys.platform == "linux" and platform.libc_ver()[0] == "glibc"


def default_device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def place_module(module: nn.Module, device: torch.device) -> None:
    """Moves a module to the device, its filters in channels-last order."""
    module.to(device)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == 4:  # module.to(memory_format=...) refuses modules that have tensors of five axes too
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)


def describe() -> dict[str, Any]:
    """Processor, accelerator, threads and versions: what must be known to compare two timings."""
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            name = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), name)
    packages = ("torch", "numpy", "torchmetrics", "scikit-learn")
    return {
        "machine": {
            "processor": name,
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "bf16": native_bf16(torch.device("cpu")),
        },
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}},
    }

"""Many processes: each takes its share of every batch, gradients are summed, the result is that of one process.

Started by `torchrun`. Two forms: "replicate" keeps all weights everywhere and sums gradients; "shard" (FSDP2) keeps a
part of the weights on each process.   D2L 12.5-12.6
"""

import os
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from thalweg.vocabulary import Batch

Parallel = Literal["replicate", "shard"]


def start(device: torch.device) -> None:
    """Joins the processes that `torchrun` started; does nothing in a single process."""
    if "RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        if device.type == "cpu":
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // dist.get_world_size()))


def stop() -> None:
    """Leaves the group of processes, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def lost(error: RuntimeError) -> bool:
    """Whether it says that another process has gone."""
    return world_size() > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error))


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def share(batch: Batch) -> Batch:
    """This process's part of a batch: every world_size-th example, from its rank on.

    ValueError if the tensors are not all of one example a row, as those of a graph.
    """
    if world_size() == 1:
        return batch
    shapes = {name: tuple(value.shape) for name, value in batch.items()}
    if len({shape[:1] for shape in shapes.values()}) > 1 or () in shapes.values():
        raise ValueError(f"batch: {shapes} cannot be divided among processes, expected as many rows in each")
    return {name: value[rank() :: world_size()] for name, value in batch.items()}


def shard(task: nn.Module) -> None:
    """Shards every network of the task over the processes, in place; names stay.

    A network's `blocks` are put together one at a time, the rest of it when it is called.
    ValueError if the task has parameters beside its networks.
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    if own := [name for name, _ in task.named_parameters(recurse=False)]:
        raise ValueError(f"parallel='shard': expected the parameters {own} of {type(task).__name__} inside a network of it")
    for network in task.children():
        if not any(True for _ in network.parameters()):
            continue
        for parameter in network.parameters():  # FSDP2 takes none that are channels-last
            parameter.data = parameter.data.contiguous()
        for name, blocks in network.named_modules():
            if name.rpartition(".")[2] == "blocks" and isinstance(blocks, nn.ModuleList):
                for block in blocks:
                    fully_shard(block)
        fully_shard(network, reshard_after_forward=True)  # sharded again before its optimiser is made, its average taken
        if hasattr(network, "features"):
            register_fsdp_forward_method(network, "features")


def total(value: Tensor | int) -> Tensor:
    """The sum of a number over the processes."""
    summed = torch.as_tensor(value, dtype=torch.float32).detach().clone()
    if world_size() > 1:
        dist.all_reduce(summed)
    return summed


def anywhere(so: bool) -> bool:
    """Whether it is so on any of the processes (all must ask)."""
    return bool(total(int(so)))


def agreed(value: Any) -> Any:
    """The first process's value, on all of them."""
    held = [value]
    if world_size() > 1:
        dist.broadcast_object_list(held)
    return held[0]


def spread_buffers(module: nn.Module) -> None:
    """The first process's buffers, on all: running statistics are of a process's own share until then."""
    if world_size() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def gathered(value: Tensor) -> Tensor:
    """The value of every process, along a new first axis."""
    if world_size() == 1:
        return value[None]
    values = [torch.empty_like(value) for _ in range(world_size())]
    dist.all_gather(values, value)
    return torch.stack(values)


def sum_gradients(parameters: list[nn.Parameter]) -> None:
    """Gradients become their sums over the processes; a parameter that only another process used gets one too."""
    if world_size() == 1:
        return
    sharded: list[Tensor] = [p.grad for p in parameters if isinstance(p.grad, DTensor)]
    if sharded:  # FSDP2 has averaged them
        torch._foreach_mul_(sharded, float(world_size()))
    plain = [p for p in parameters if not isinstance(p, DTensor)]
    if not plain:
        return
    used = [p.grad is not None for p in plain]
    pieces = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in plain]
    flat = torch.cat([*pieces, pieces[0].new_tensor(used)])
    dist.all_reduce(flat)
    *sums, anywhere_used = flat.split([*(len(piece) for piece in pieces), len(plain)])
    if not all(used):
        used = anywhere_used.tolist()
    for parameter, summed, so in zip(plain, sums, used, strict=True):
        if so:
            parameter.grad = torch.empty_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad.copy_(summed.view_as(parameter))


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor put together (all processes must call it); any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, reference: Tensor) -> Tensor:
    """A whole tensor, sharded as the reference is."""
    if isinstance(reference, DTensor) and not isinstance(tensor, DTensor):
        return distribute_tensor(tensor, reference.device_mesh, reference.placements)
    return tensor

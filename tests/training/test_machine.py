"""What a machine says about itself."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from thalweg.training.machine import default_device, describe, native_bf16, place_module


def test_what_a_machine_says_can_be_recorded():
    facts = describe()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["machine"]["threads"] == torch.get_num_threads()
    assert facts["versions"]["torch"] == torch.__version__


def test_bf16_is_native_where_the_processor_says_so(monkeypatch):
    for flags, native in [({"amx_bf16": True}, True), ({"avx512_bf16": True}, True), ({"avx2": True}, False)]:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flags=flags: flags)
        assert native_bf16(torch.device("cpu")) is native


def test_the_default_device_is_the_processor_where_there_is_no_accelerator(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)
    assert default_device() == torch.device("cpu")


def test_filters_are_laid_out_channels_last_beside_tensors_of_any_rank():
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv3d(2, 3, 3))
    place_module(module, torch.device("cpu"))
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert isinstance(module[0].weight, nn.Parameter)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps memory")
def test_what_is_kept_and_not_used_is_returned_when_asked():
    """In a process of its own: whoever keeps memory keeps it to the end."""
    found = subprocess.run([sys.executable, "-c", """
import torch
from thalweg.training.machine import keep_memory, trim_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
kept = keep_memory()
held = [torch.ones(250_000) for _ in range(200)]
del held[::2]  # a hundred holes of a megabyte
before = resident()
trim_memory()
print(not kept or before - resident() > 50e6)
"""], capture_output=True, text=True, check=True)  # fmt: skip
    assert found.stdout == "True\n"

"""What a machine says about itself."""

import json

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

"""What a machine says about itself."""

import json

import torch

from thalweg.training.machine import default_device, describe, native_bf16


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

"""GGUF files are read as if they were public folders: numbers by their definition, rows in Hugging Face's order."""

import builtins
import struct

import pytest
import torch
from gguf_files import float32, llama, q4_1, q8_0, write

from thalweg.gguf import GGUF
from thalweg.layers.position import slowed
from thalweg.models.language.llama import Llama, arguments
from thalweg.public import pretrained
from thalweg.weights import CorruptFile


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Llama(40, 16, embed_dim=32, num_layers=2, num_heads=4, num_key_value_heads=2, hidden_dim=64, base=300.0, tied=False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def test_a_file_gives_back_the_model_whose_rows_it_holds_in_another_order(model, tmp_path):
    read = pretrained(Llama, llama(tmp_path / "model.gguf", model, {}))
    tokens = torch.randint(40, (2, 16))
    assert torch.equal(read(tokens), model(tokens))


def test_numbers_of_few_bits_are_those_of_the_formula(tmp_path):
    weight = torch.randn(6, 64)
    single = {"a": q4_1(weight), "b": q8_0(weight), "c": float32(weight), "d": (1, [6, 64], weight.half().numpy().tobytes()),
              "e": (30, [6, 64], weight.bfloat16().view(torch.int16).numpy().tobytes()),
              "f": (2, [1, 32], weight[0, :1].half().numpy().tobytes() + bytes(range(16)))}  # fmt: skip
    file = GGUF(write(tmp_path / "numbers.gguf", {}, single))
    assert (file.tensor("a") - weight).abs().max() <= 0.55 * float(weight.max() - weight.min()) / 15
    assert (file.tensor("b") - weight).abs().max() <= 0.55 * float(weight.abs().max()) / 127
    assert torch.equal(file.tensor("c"), weight)
    assert torch.equal(file.tensor("d"), weight.half().float())
    assert torch.equal(file.tensor("e"), weight.bfloat16().float())
    wanted = [weight[0, 0].half().float() * ((byte & 15) - 8) for byte in range(16)]
    wanted += [weight[0, 0].half().float() * ((byte >> 4) - 8) for byte in range(16)]
    assert torch.equal(file.tensor("f")[0], torch.stack(wanted))
    held = single["a"][2][:20]  # a block of Q4_1 by hand: w = d q + m
    scale, low = struct.unpack("<2e", held[:4])
    by_hand = [scale * (byte & 15) + low for byte in held[4:]] + [scale * (byte >> 4) + low for byte in held[4:]]
    assert torch.allclose(file.tensor("a")[0, :32], torch.tensor(by_hand), atol=1e-6)


def test_the_slower_turns_of_llama_3_are_recognised(model, tmp_path):
    slower = torch.tensor(slowed(8, 5e5, 32.0, 1.0, 4.0, 8192))
    path = tmp_path / "model.gguf"
    llama(path, model, {"llama.rope.freq_base": 5e5})
    tensors = {name: float32(GGUF(path).tensor(name)) for name in GGUF(path).tensors}
    write(path, GGUF(path).metadata, tensors | {"rope_freqs.weight": float32(slower)})
    assert arguments(GGUF(path).config())["stretch"] == [32.0, 1.0, 4.0, 8192]
    assert pretrained(Llama, path).stretch == [32.0, 1.0, 4.0, 8192]


@pytest.mark.parametrize(
    ("metadata", "words"),
    [({"general.architecture": "qwen2"}, "general.architecture='qwen2'"), ({"llama.rope.scaling.type": "yarn"}, "'yarn'")],
)
def test_what_is_not_understood_is_refused_by_name(model, tmp_path, metadata, words):
    with pytest.raises(ValueError, match=words):
        pretrained(Llama, llama(tmp_path / "model.gguf", model, metadata))


@pytest.mark.parametrize("keep", [2, 30, 700, -40])
def test_a_file_that_ends_too_early_is_one_clear_error(model, tmp_path, keep):
    path = llama(tmp_path / "model.gguf", model, {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorruptFile, match=r"model\.gguf"):
        pretrained(Llama, path)


def test_a_type_of_numbers_that_is_not_built_in_asks_for_the_package(tmp_path, monkeypatch):
    file = GGUF(write(tmp_path / "odd.gguf", {}, {"a": (12, [1, 256], bytes(144))}))

    def missing(name, *rest):
        if name.startswith("gguf"):
            raise ImportError(name)
        return normal(name, *rest)

    normal = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"pip install 'thalweg\[gguf\]'"):
        file.tensor("a")

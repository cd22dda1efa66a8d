"""GPT answers what GPT-2 of transformers answers: public folder in, logits of the golden file out, and back."""

import json
from pathlib import Path

import pytest
import torch
from parity import filled, tokens
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from thalweg.layers.attention import attention
from thalweg.models.language.gpt import BARE, GPT, PUBLIC, gpt2
from thalweg.public import export, pretrained
from thalweg.weights import to_public

GOLDEN = Path(__file__).parents[2] / "golden" / "gpt2-transformers.safetensors"


@pytest.fixture
def public(tmp_path):
    """A public folder, our model of it in float64, tokens, and the logits of transformers."""
    with safe_open(GOLDEN, "pt") as file:
        header, logits = file.metadata(), file.get_tensor("output")
    (tmp_path / "config.json").write_text(header["config"])
    stated = PUBLIC["transformers"].arguments(json.loads(header["config"]))
    table = PUBLIC["transformers"].table
    save_file(filled(to_public(GPT(**stated).state_dict(), table)), tmp_path / "model.safetensors")
    torch.set_default_dtype(torch.float64)
    yield tmp_path, pretrained(GPT, tmp_path), tokens(*json.loads(header["tokens"]), vocab_size=50), logits
    torch.set_default_dtype(torch.float32)


def error(public):
    _, model, given, logits = public
    with torch.inference_mode():
        return float((model(given) - logits).abs().max() / logits.abs().max())


def test_the_model_of_a_public_folder_answers_what_transformers_answers(public):
    assert error(public) <= 1e-10


@pytest.mark.parametrize("name", ["epsilon", "gelu", "mask", "scale"])
def test_the_golden_file_sees_a_model_that_is_a_little_wrong(public, name, monkeypatch):
    _, model, _, _ = public
    if name == "epsilon":
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = 1e-6
    gpt = "thalweg.models.language.gpt"
    if name == "gelu":
        monkeypatch.setattr(f"{gpt}.gelu", lambda x, approximate: torch.nn.functional.gelu(x))
    if name == "mask":
        monkeypatch.setattr(f"{gpt}.attention", lambda q, k, v, mask, causal: attention(q, k, v))
    if name == "scale":
        monkeypatch.setattr(f"{gpt}.attention", lambda q, k, v, mask, causal: attention(1.01 * q, k, v, mask, causal=causal))
    assert error(public) > 1e-8  # a hundred times the bar


def test_a_public_checkpoint_goes_in_and_out_bit_equal(public, tmp_path):
    folder, model, _, _ = public
    export(model, tmp_path / "out", "transformers")
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    described = [
        PUBLIC["transformers"].arguments(json.loads((f / "config.json").read_text())) for f in (folder, tmp_path / "out")
    ]
    assert described[0] == described[1]


def test_a_checkpoint_of_2019_without_the_prefix_and_with_masks_is_the_same_model(public, tmp_path):
    folder, model, given, _ = public
    old = {name.removeprefix("transformer."): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    old |= {f"h.{layer}.attn.bias": torch.ones(1, 1, 20, 20) for layer in range(3)}
    (tmp_path / "old").mkdir()
    save_file(old, tmp_path / "old" / "model.safetensors")
    (tmp_path / "old" / "config.json").write_text((folder / "config.json").read_text())
    assert torch.equal(pretrained(GPT, tmp_path / "old")(given), model(given))


def test_every_matrix_of_gpt2_is_transposed_and_nothing_else():
    with torch.device("meta"):
        model = gpt2()
    transposed = {line[0].split(".", 2)[2] for line in BARE.values() if isinstance(line, tuple)}
    matrices = {
        name.split(".", 2)[2] for name, weight in model.named_parameters() if name.startswith("blocks") and weight.ndim == 2
    }
    assert transposed == matrices


@pytest.mark.parametrize(("key", "value"), [("activation_function", "relu"), ("n_inner", 100), ("rotary_dim", 8)])
def test_a_config_that_means_another_model_is_refused_by_name(public, key, value):
    config = json.loads((public[0] / "config.json").read_text())
    with pytest.raises(ValueError, match=f"{key}={value!r}"):
        PUBLIC["transformers"].arguments(config | {key: value})

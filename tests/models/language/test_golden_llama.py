"""Llama answers what Llama of transformers answers: public folder in, logits of the golden files out, and back.

transformers takes root mean squares and angles in float32 whatever the type is, so the bar is what float32 can hold.
"""

import json
from pathlib import Path

import pytest
import torch
from parity import filled, tokens
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from thalweg.layers.attention import attention
from thalweg.models.language.llama import PUBLIC, Llama, arguments
from thalweg.public import export, pretrained
from thalweg.weights import to_public

GOLDEN = Path(__file__).parents[2] / "golden"
LLAMA = "thalweg.models.language.llama"
BAR = 2e-6


@pytest.fixture(params=["llama", "llama3", "mistral"])
def public(request, tmp_path):
    """A public folder, our model of it in float64, tokens, and the logits of transformers."""
    with safe_open(GOLDEN / f"{request.param}-transformers.safetensors", "pt") as file:
        header, logits = file.metadata(), file.get_tensor("output")
    (tmp_path / "config.json").write_text(header["config"])
    table = PUBLIC["transformers"].table
    weights = filled(to_public(Llama(**arguments(json.loads(header["config"]))).state_dict(), table))
    save_file(weights, tmp_path / "model.safetensors")
    torch.set_default_dtype(torch.float64)
    yield tmp_path, pretrained(Llama, tmp_path), tokens(*json.loads(header["tokens"]), vocab_size=50), logits
    torch.set_default_dtype(torch.float32)


def error(public):
    _, model, given, logits = public
    with torch.inference_mode():
        return float((model(given) - logits).abs().max() / logits.abs().max())


def test_the_model_of_a_public_folder_answers_what_transformers_answers(public):
    assert error(public) <= BAR


@pytest.mark.parametrize("name", ["epsilon", "base", "gate", "scale"])
def test_the_golden_file_sees_a_model_that_is_a_little_wrong(public, name, monkeypatch):
    _, model, _, _ = public
    if name == "epsilon":
        for module in model.modules():
            if isinstance(module, torch.nn.RMSNorm):
                module.eps = 1e-3
    if name == "base":
        model.base *= 1.01
    if name == "gate":
        monkeypatch.setattr(f"{LLAMA}.silu", torch.nn.functional.gelu)
    if name == "scale":
        monkeypatch.setattr(f"{LLAMA}.attention", lambda q, k, v, mask, causal: attention(1.01 * q, k, v, causal=causal))
    assert error(public) > 20 * BAR


@pytest.mark.parametrize("public", ["llama"], indirect=True)
def test_it_is_felt_which_heads_share_keys(public, monkeypatch):
    def other(query, key, value, mask, causal):
        key, value = (x.repeat(1, query.shape[1] // x.shape[1], 1, 1) for x in (key, value))
        return attention(query, key, value, causal=causal)

    monkeypatch.setattr(f"{LLAMA}.attention", other)
    assert error(public) > 20 * BAR


def test_slower_turns_are_felt(public):
    _, model, _, _ = public
    model.stretch = None if model.stretch else [8.0, 1.0, 4.0, 16]
    assert error(public) > 20 * BAR


def test_a_public_checkpoint_goes_in_and_out_bit_equal(public, tmp_path):
    folder, model, _, _ = public
    export(model, tmp_path / "out", "transformers")
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert arguments(json.loads((tmp_path / "out" / "config.json").read_text())) == arguments(
        json.loads((folder / "config.json").read_text())
    )


@pytest.mark.parametrize(
    ("key", "value"), [("hidden_act", "gelu"), ("attention_bias", True), ("sliding_window", 8), ("model_type", "qwen2")]
)
def test_a_config_that_means_another_model_is_refused_by_name(public, key, value):
    config = json.loads((public[0] / "config.json").read_text())
    if key == "sliding_window":  # which only Mistral has
        config["model_type"] = "llama"
    with pytest.raises(ValueError, match=f"{key}={value!r}"):
        arguments(config | {key: value})


def test_another_way_of_reading_longer_texts_is_refused_by_name(public):
    config = json.loads((public[0] / "config.json").read_text())
    with pytest.raises(ValueError, match="rope_type='yarn'"):
        arguments(config | {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}})


def test_a_config_of_2023_without_groups_or_kinds_of_turns_is_a_llama_of_2023():
    old = {"model_type": "llama", "hidden_act": "silu", "vocab_size": 32000, "max_position_embeddings": 2048, "hidden_size": 64,
           "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "rms_norm_eps": 1e-6,
           "rope_scaling": None}  # fmt: skip
    model = Llama(**arguments(old))
    assert (model.base, model.stretch, model.num_key_value_heads, model.head is None) == (10000.0, None, 4, False)


@pytest.mark.parametrize("public", ["mistral"], indirect=True)
def test_the_golden_file_sees_a_window_that_is_a_place_wider(public):
    assert public[1].window == 4
    public[1].window = 5
    assert error(public) > 100 * BAR

"""BERT is its formula, answers what transformers' BertModel answers, and takes its checkpoints of all years."""

import json
from math import sqrt
from pathlib import Path

import pytest
import torch
from definitions import equal_with_gradients
from parity import filled, half_as_long, tokens
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn.functional import gelu

from thalweg.layers.attention import attention
from thalweg.models.language.bert import BERT, PUBLIC, bert, bert_large, minilm
from thalweg.public import export, pretrained
from thalweg.weights import to_public

GOLDEN = Path(__file__).parents[2] / "golden" / "bert-transformers.safetensors"


def small():
    model = BERT(vocab_size=20, context=9, embed_dim=6, num_layers=2, num_heads=2, hidden_dim=8).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def naive(model, row, real, segment):
    """Vectors of a text, place by place and head by head."""

    def norm(x, layer):
        return (x - x.mean()) / torch.sqrt(x.var(correction=0) + layer.eps) * layer.weight + layer.bias

    x = [norm(model.embedding.weight[t] + model.position.weight[p] + model.segment.weight[s], model.embedding_norm)
         for p, (t, s) in enumerate(zip(row.tolist(), segment.tolist(), strict=True))]  # fmt: skip
    for block in model.blocks:
        qkv = block.attention.qkv
        query, key, value = torch.stack([qkv.weight @ one + qkv.bias for one in x]).chunk(3, 1)
        heads = []
        for head in range(2):
            own = slice(3 * head, 3 * head + 3)
            score = query[:, own] @ key[:, own].T / sqrt(3)
            score[:, ~real] = -torch.inf
            heads.append(score.softmax(1) @ value[:, own])
        looked = torch.cat(heads, 1)
        output = block.attention.output
        x = [norm(one + output.weight @ seen + output.bias, block.attention_norm) for one, seen in zip(x, looked, strict=True)]
        up, down = block.mlp.up, block.mlp.down
        x = [norm(one + down.weight @ gelu(up.weight @ one + up.bias) + down.bias, block.mlp_norm) for one in x]
    return torch.stack(x), torch.tanh(model.pooler.weight @ x[0] + model.pooler.bias)


def test_an_encoder_is_its_formula_in_values_and_gradients():
    model = small()
    given, real, segment = torch.randint(20, (2, 7)), half_as_long(2, 7), (torch.arange(7) > 2).long().expand(2, 7)
    states = model(given, real, segment)
    ours = torch.cat([states, model.pooled(states)[:, None]], 1)[:, [0, 1, 2, 7]]  # real in both texts, and the whole
    rows = [naive(model, *row) for row in zip(given, real, segment, strict=True)]
    theirs = torch.stack([torch.cat([x[:3], whole[None]]) for x, whole in rows])
    equal_with_gradients(ours, theirs, list(model.parameters()))


def test_places_may_be_told_which_others_they_read():
    """A mask of every pair of places: one that reads itself alone is as alone; all that are real, as by their mask."""
    model, given = small(), torch.randint(20, (2, 7))
    alone = torch.eye(7, dtype=torch.bool).expand(2, 7, 7)
    other = given.clone()
    other[:, 1:] = (other[:, 1:] + 1) % 20
    assert torch.equal(model(given, alone)[:, 0], model(other, alone)[:, 0])
    real = half_as_long(2, 7)
    torch.testing.assert_close(model(given, real[:, None].expand(2, 7, 7)), model(given, real))


def test_the_sizes_are_those_published():
    with torch.device("meta"):
        counted = [sum(p.numel() for p in make().parameters()) for make in (bert, bert_large, minilm)]
    assert counted == [109_482_240, 335_141_888, 22_713_216]
    assert counted[0] == pytest.approx(110e6, rel=0.02)
    assert counted[1] == pytest.approx(340e6, rel=0.02)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="embed_dim=10: expected a multiple of num_heads=4"):
        BERT(embed_dim=10, num_heads=4)
    with pytest.raises(ValueError, match="tokens: 10 of them, the model reads at most context=9"):
        small()(torch.zeros(1, 10, dtype=torch.long))


@pytest.fixture
def public(tmp_path):
    """A public folder, our model of it in float64, what it is asked, and the answer of transformers."""
    with safe_open(GOLDEN, "pt") as file:
        header, output = file.metadata(), file.get_tensor("output")
    (tmp_path / "config.json").write_text(header["config"])
    layout = PUBLIC["transformers-bare"]
    stated = layout.arguments(json.loads(header["config"]))
    save_file(filled(to_public(BERT(**stated).state_dict(), layout.table)), tmp_path / "model.safetensors")
    torch.set_default_dtype(torch.float64)
    shape = json.loads(header["tokens"])
    given = tokens(*shape, vocab_size=50), half_as_long(*shape), (torch.arange(shape[1]) > 3).long().expand(*shape)
    yield tmp_path, pretrained(BERT, tmp_path), given, output
    torch.set_default_dtype(torch.float32)


def test_a_checkpoint_without_a_pooler_gets_a_fresh_one(public):
    folder, model, given, _ = public
    tensors = {name: value for name, value in load_file(folder / "model.safetensors").items() if "pooler" not in name}
    save_file(tensors, folder / "model.safetensors")
    with pytest.warns(UserWarning, match="it has no pooler, so a fresh one is made"):
        again = pretrained(BERT, folder)
    assert torch.equal(again(*given), model(*given))
    assert torch.isfinite(again.pooled(again(*given))).all()


def error(public):
    _, model, given, output = public
    with torch.inference_mode():
        states = model(*given)
        found = torch.cat([states, model.pooled(states)[:, None]], 1)
    real = torch.cat([given[1], torch.ones_like(given[1][:, :1])], 1)
    return float((found - output)[real].abs().max() / output.abs().max())


def test_the_model_of_a_public_folder_answers_what_transformers_answers(public):
    assert error(public) <= 1e-10


@pytest.mark.parametrize("name", ["epsilon", "gelu", "mask", "scale", "segment"])
def test_the_golden_file_sees_a_model_that_is_a_little_wrong(public, name, monkeypatch):
    _, model, _, _ = public
    family = "thalweg.models.language.bert"
    if name == "epsilon":
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = 1e-5
    if name == "gelu":
        monkeypatch.setattr(f"{family}.gelu", lambda x: gelu(x, approximate="tanh"))
    if name == "mask":
        monkeypatch.setattr(f"{family}.attention", lambda query, key, value, mask, dropout: attention(query, key, value))
    if name == "scale":
        monkeypatch.setattr(f"{family}.attention", lambda query, *rest, dropout: attention(1.01 * query, *rest))
    if name == "segment":
        model.segment.weight.data = model.segment.weight[[0, 0]]
    assert error(public) > 1e-8  # a hundred times the bar


def test_a_public_checkpoint_goes_in_and_out_bit_equal(public, tmp_path):
    folder, model, _, _ = public
    export(model, tmp_path / "out", "transformers-bare")
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    arguments = PUBLIC["transformers"].arguments
    first, second = (arguments(json.loads((place / "config.json").read_text())) for place in (folder, tmp_path / "out"))
    assert first == second


@pytest.mark.parametrize("year", [2018, 2020])
def test_a_checkpoint_of_a_whole_model_of_pre_training_gives_its_encoder(public, tmp_path, year):
    folder, model, given, _ = public
    whole = {f"bert.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    if year == 2018:
        norms = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        for now, was in norms.items():
            whole = {name.replace(now, was): tensor for name, tensor in whole.items()}
    whole |= {"cls.predictions.bias": torch.zeros(50), "cls.seq_relationship.weight": torch.zeros(2, 24)}
    (tmp_path / "old").mkdir()
    save_file(whole, tmp_path / "old" / "model.safetensors")
    (tmp_path / "old" / "config.json").write_text((folder / "config.json").read_text())
    assert torch.equal(pretrained(BERT, tmp_path / "old")(*given), model(*given))


@pytest.mark.parametrize(("key", "value"), [("hidden_act", "relu"), ("position_embedding_type", "relative_key"), ("x", 1)])
def test_a_config_that_means_another_model_is_refused_by_name(public, key, value):
    config = json.loads((public[0] / "config.json").read_text())
    with pytest.raises(ValueError, match=f"{key}={value!r}"):
        PUBLIC["transformers"].arguments(config | {key: value})

"""T5 is its formula, answers what transformers' T5 answers, and writes a token at a time what it says of a text at once."""

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
from torch.testing import assert_close

from thalweg.decoding.search import beam_search
from thalweg.layers.attention import attention
from thalweg.layers.norms import RMSNorm
from thalweg.models.sequence.t5 import PUBLIC, T5, t5_base, t5_small
from thalweg.public import export, pretrained
from thalweg.weights import to_public

GOLDEN = Path(__file__).parents[2] / "golden"
BAR = 1e-10


def small(**arguments):
    model = T5(**({"vocab_size": 11, "embed_dim": 6, "num_layers": 2, "num_heads": 2, "head_dim": 4, "hidden_dim": 8,
                   "num_buckets": 8, "max_distance": 6} | arguments)).double().eval()  # fmt: skip
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def naive(model, source, target):
    """Logits of one pair, place by place and head by head."""

    def norm(x, layer):
        return layer.weight * x / torch.sqrt((x * x).mean() + layer.eps)

    def bucket(distance, causal):  # 8 of them, for distances up to 6
        n, side = (max(0, -distance), 8) if causal else (abs(distance), 4)
        far = side // 2 + int(torch.log(torch.tensor(n / (side // 2))) / torch.log(torch.tensor(6 / (side // 2))) * (side // 2)
                              ) if n else 0  # fmt: skip
        found = n if n < side // 2 else min(side - 1, far)
        return found if causal else found + side * (distance > 0)

    def attend(layer, asks, read, bias=None, causal=False):
        heads = []
        for head in range(2):
            own = slice(4 * head, 4 * head + 4)
            query, key, value = (part.weight[own] for part in (layer.query, layer.key, layer.value))
            rows = []
            for t, asked in enumerate(asks):
                added = [0 if bias is None else bias.table.weight[bucket(s - t, causal)][head] for s in range(len(read))]
                score = torch.stack([(query @ asked) @ (key @ one) + added[s]
                                     for s, one in enumerate(read) if not causal or s <= t])  # fmt: skip
                rows.append(sum(a * (value @ one) for a, one in zip(score.softmax(0), read, strict=False)))
            heads.append(torch.stack(rows))
        return torch.cat(heads, 1) @ layer.output.weight.T

    def mlp(layer, x):
        y = layer.up.weight @ x
        y = y.clamp(min=0) if layer.gate is None else gelu(layer.gate.weight @ x, approximate="tanh") * y
        return layer.down.weight @ y

    def normed(x, layer):
        return torch.stack([norm(one, layer) for one in x])

    x = model.embedding.weight[source]
    for block in model.encoder:
        seen = normed(x, block.attention_norm)
        x = x + attend(block.attention, seen, seen, model.encoder_bias)
        x = x + torch.stack([mlp(block.mlp, one) for one in normed(x, block.mlp_norm)])
    memory, x = normed(x, model.encoder_norm), model.embedding.weight[target]
    for block in model.decoder:
        seen = normed(x, block.attention_norm)
        x = x + attend(block.attention, seen, seen, model.decoder_bias, causal=True)
        x = x + attend(block.cross, normed(x, block.cross_norm), memory)
        x = x + torch.stack([mlp(block.mlp, one) for one in normed(x, block.mlp_norm)])
    x = normed(x, model.decoder_norm)
    return x / sqrt(6) @ model.embedding.weight.T if model.head is None else x @ model.head.weight.T


@pytest.mark.parametrize("newer", [False, True])
def test_it_is_its_formula_in_values_and_gradients(newer):
    model = small(gated=newer, tied=not newer)
    source, mask, target = torch.randint(11, (2, 10)), half_as_long(2, 10), torch.randint(11, (2, 9))
    theirs = torch.stack([naive(model, source[row][mask[row]], target[row]) for row in range(2)])
    equal_with_gradients(model(source, mask, target), theirs, list(model.parameters()))


def test_the_sizes_are_those_published():
    with torch.device("meta"):
        assert [sum(p.numel() for p in make().parameters()) for make in (t5_small, t5_base)] == [60_506_624, 222_903_552]


@pytest.mark.parametrize("copies", [1, 3])
def test_what_is_written_a_token_at_a_time_is_what_is_said_of_the_whole(copies):
    model = small()
    source, mask = torch.randint(11, (3, 7)), half_as_long(3, 7)
    memory, history = model.encode(source, mask), torch.empty(3 * copies, 0, dtype=torch.long)
    cache = model.new_cache(memory, copies, 12)
    for step in range(9):
        fresh = torch.randint(11, (3 * copies, 3 if step == 1 else 1))
        history = torch.cat([history, fresh], 1)
        found, whole = model.decode(fresh, memory, cache), model.decode(history, memory)
        assert_close(found, whole[:, -fresh.shape[1] :], rtol=0, atol=1e-10)
        rows = torch.cat([copies * number + torch.randint(copies, (copies,)) for number in range(3)])
        history = history[rows]
        cache.reorder(rows)
    one, _ = beam_search(model, source, mask, bos=1, eos=2, pad=0, beam=1, length=6)
    for place in range(one.shape[2]):  # greedily is the likeliest after those before
        before = torch.cat([torch.ones(3, 1, dtype=torch.long), one[:, 0, :place]], 1)
        likeliest = model(source, mask, before)[:, -1].argmax(-1)
        going = ~(one[:, 0, :place] == 2).any(1)
        assert torch.equal(one[:, 0, place][going], likeliest[going])


def test_padding_is_not_read_and_no_place_knows_what_comes_after_it():
    model = small()
    source, mask, target = torch.randint(11, (2, 8)), half_as_long(2, 8), torch.randint(11, (2, 5))
    said = model(source, mask, target)
    other, later = source.masked_fill(~mask, 7), target.clone()
    later[:, 3:] = (later[:, 3:] + 1) % 11
    assert_close(model(other, mask, later)[:, :3], said[:, :3])
    assert (model(other, mask, later)[:, 3:] - said[:, 3:]).abs().amax() > 1e-3


@pytest.fixture(params=["t5", "t5-gated"])
def public(request, tmp_path):
    """The name of a layout, a public folder, our model of it in float64, what it is asked, and the logits of transformers."""
    with safe_open(GOLDEN / f"{request.param}-transformers.safetensors", "pt") as file:
        header, logits = file.metadata(), file.get_tensor("output")
    (tmp_path / "config.json").write_text(header["config"])
    layout = "transformers-gated" if "gated" in request.param else "transformers"
    stated = PUBLIC[layout].arguments(json.loads(header["config"]))
    save_file(filled(to_public(T5(**stated).state_dict(), PUBLIC[layout].table)), tmp_path / "model.safetensors")
    torch.set_default_dtype(torch.float64)
    shape = json.loads(header["tokens"])
    source = tokens(*shape, vocab_size=50)
    yield layout, tmp_path, pretrained(T5, tmp_path), (source, half_as_long(*shape), source.flip(1)[:, 3:]), logits
    torch.set_default_dtype(torch.float32)


def in_float32(norm, x):
    """What transformers makes of a vector, whatever its type is."""
    square = x.float().square().mean(-1, keepdim=True)
    return norm.weight * (x * torch.rsqrt(square + norm.eps))


def error(model, given, logits):
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(RMSNorm, "forward", in_float32)
        return float((model(*given) - logits).abs().max() / logits.abs().max())


def test_the_model_of_a_public_folder_answers_what_transformers_answers(public):
    assert error(*public[2:]) <= BAR


@pytest.mark.parametrize("name", ["epsilon", "distance", "scale", "activation"])
def test_the_golden_files_see_a_model_that_is_a_little_wrong(public, name, monkeypatch):
    layout, _, model, given, logits = public
    family = "thalweg.models.sequence.t5"
    if name == "epsilon":
        for module in model.modules():
            if isinstance(module, torch.nn.RMSNorm):
                module.eps = 1e-3
    if name == "distance":
        model.encoder_bias.table.weight.data = model.encoder_bias.table.weight.roll(1, 0)
    if name == "scale":
        monkeypatch.setattr(f"{family}.attention", lambda query, *rest: attention(1.01 * query, *rest))
    if name == "activation" and layout == "transformers":
        monkeypatch.setattr(torch.Tensor, "relu", lambda x: gelu(x))
    elif name == "activation":
        monkeypatch.setattr(f"{family}.gelu", lambda x, approximate: gelu(x))
    assert error(model, given, logits) > 1000 * BAR


def test_a_public_checkpoint_goes_in_and_out_bit_equal(public, tmp_path):
    layout, folder, model, *_ = public
    export(model, tmp_path / "out", layout)
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    arguments = PUBLIC[layout].arguments
    first, second = (arguments(json.loads((place / "config.json").read_text())) for place in (folder, tmp_path / "out"))
    assert first == second


@pytest.mark.parametrize(("key", "value"), [("feed_forward_proj", "gated-silu"), ("num_decoder_layers", 3), ("x", 1)])
def test_a_config_that_means_another_model_is_refused_by_name(public, key, value):
    config = json.loads((public[1] / "config.json").read_text())
    with pytest.raises(ValueError, match=f"{key}={value!r}"):
        PUBLIC["transformers"].arguments(config | {key: value})

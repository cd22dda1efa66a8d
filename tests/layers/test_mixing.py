"""Places that are mixed without comparing a query with a key, and blocks that are sorted: each is its formula."""

import math

import pytest
import torch
from definitions import EXACT, equal_with_gradients, numbers
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from thalweg.layers.attention import attention
from thalweg.layers.mixing import AttentionFree, DenseSynthesizer, RandomSynthesizer, fourier_mixing
from thalweg.layers.sinkhorn_attention import SinkhornAttention, sinkhorn

REAL = torch.tensor([[True] * 5, [True, True, False, True, False]])


def seen(b, t, causal):
    return [s for s in range(5) if REAL[b, s] and (s <= t or not causal)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("make", [DenseSynthesizer, RandomSynthesizer])
def test_synthesizers_are_their_formula_head_by_head(make, causal):
    layer, x = make(6, 2, context=7, causal=causal).double(), numbers(2, 5, 6)
    naive = []
    for b in range(2):
        heads = []
        for h, part in enumerate((slice(0, 3), slice(3, 6))):
            value = x[b] @ layer.value.weight[part].T + layer.value.bias[part]
            rows = []
            for t in range(5):
                if make is DenseSynthesizer:
                    score = (layer.up.weight[part] @ x[b, t] + layer.up.bias[part]).relu() @ layer.down[h]
                else:
                    score = layer.score[h, t]
                rows.append(score[seen(b, t, causal)].softmax(0) @ value[seen(b, t, causal)])
            heads.append(torch.stack(rows))
        naive.append(torch.cat(heads, 1) @ layer.output.weight.T + layer.output.bias)
    equal_with_gradients(layer(x, REAL), torch.stack(naive), [x, *layer.parameters()])
    assert_close(layer(x[:1]), layer(x[:1], REAL[:1]), **EXACT)


def test_random_weights_see_places_only_and_may_stay_as_drawn():
    layer, x = RandomSynthesizer(6, 2, context=7, learned=False), torch.randn(3, 5, 6)
    one, two = layer(x), layer(2 * x)
    assert_close(two - layer.output.bias, 2 * (one - layer(0 * x)) + layer(0 * x) - layer.output.bias)  # affine in x
    assert not layer.score.requires_grad
    dense = DenseSynthesizer(6, 2, context=7)
    bent = dense(2 * x) - dense(0 * x) - 2 * (dense(x) - dense(0 * x))
    assert bent.abs().max() > 1e-3


@pytest.mark.parametrize("causal", [False, True])
def test_attention_free_mixing_is_its_formula(causal):
    layer, x = AttentionFree(4, context=7, causal=causal).double(), numbers(2, 5, 4)
    torch.nn.init.normal_(layer.position)
    query, key, value = layer.query(x), layer.key(x), layer.value(x)
    rows = []
    for b in range(2):
        for t in range(5):
            weights = [(key[b, s] + layer.position[t, s]).exp() for s in seen(b, t, causal)]
            read = sum(w * value[b, s] for w, s in zip(weights, seen(b, t, causal), strict=True)) / sum(weights)
            rows.append(layer.output(query[b, t].sigmoid() * read))
    equal_with_gradients(layer(x, REAL), torch.stack(rows).unflatten(0, (2, 5)), [x, *layer.parameters()])
    nothing = layer(x, torch.zeros(2, 5, dtype=torch.bool))
    assert_close(nothing, layer.output.bias.expand(2, 5, 4), **EXACT)
    assert layer(1e3 * x).isfinite().all()


def test_fourier_mixing_is_its_sum_of_cosines():
    x = numbers(2, 5, 4)
    t, c = torch.arange(5).double(), torch.arange(4).double()
    angle = 2 * math.pi * ((t[:, None] * t / 5)[:, None, :, None] + (c[:, None] * c / 4)[None, :, None, :])
    equal_with_gradients(fourier_mixing(x), torch.einsum("bsd,tcsd->btc", x, angle.cos()), [x])


@pytest.mark.parametrize("layer", [DenseSynthesizer(4, 2, 5), RandomSynthesizer(4, 2, 5), AttentionFree(4, 5)])
def test_more_places_than_the_context_are_refused(layer):
    with pytest.raises(ValueError, match="x: 6 places, made for at most context=5"):
        layer(torch.zeros(1, 6, 4))
    with pytest.raises(ValueError, match="embed_dim=5: expected a multiple of num_heads=2"):
        DenseSynthesizer(5, 2, 5)


def test_sinkhorn_makes_a_matrix_doubly_stochastic_and_at_low_temperature_a_permutation():
    score = numbers(3, 6, 6)
    soft = sinkhorn(score, 100)
    assert (soft > 0).all()
    for axis in (-1, -2):
        assert_close(soft.sum(axis), torch.ones(3, 6).double(), rtol=0, atol=1e-8)
    order = torch.randperm(6)
    hard = sinkhorn((torch.eye(6).double()[order] + 0.1 * score) / 0.01)
    assert_close(hard, torch.eye(6).double()[order].expand(3, 6, 6), rtol=0, atol=1e-6)
    assert sinkhorn(1e4 * score).isfinite().all()
    already = soft.detach().log()
    assert_close(sinkhorn(already), soft, rtol=0, atol=1e-8)


@pytest.mark.parametrize("time", [12, 10])
def test_each_block_reads_itself_and_what_was_sorted_to_it(time, monkeypatch):
    layer, inputs = SinkhornAttention(4, context=16, block=4).double().eval(), [numbers(2, 2, time, 4) for _ in range(3)]
    real = torch.arange(time) < torch.tensor([[time], [7]])
    order = torch.tensor([2, 0, 1])
    monkeypatch.setattr(layer, "sorting", lambda key: torch.eye(3).double()[order].expand(*key.shape[:2], 3, 3))
    block = torch.arange(time) // 4
    pattern = (block[:, None] == block) | (order[block][:, None] == block)
    expected = attention(*inputs, pattern & real[:, None, None])
    equal_with_gradients(layer(*inputs, real), expected, inputs)


def test_a_soft_sorting_mixes_keys_and_values_block_by_block():
    layer, inputs = SinkhornAttention(4, context=12, block=4).double().eval(), [numbers(1, 1, 12, 4) for _ in range(3)]
    query, key, value = (x[0, 0].unflatten(0, (3, 4)) for x in inputs)
    mixture = layer.sorting(key[None, None])[0, 0]
    naive = []
    for i in range(3):
        keys, values = (torch.cat([sum(mixture[i, j] * x[j] for j in range(3)), x[i]]) for x in (key, value))
        share = torch.cat([mixture[i].sum().expand(4), torch.ones(4)])
        naive.append(((query[i] @ keys.T / 2).exp() * share / ((query[i] @ keys.T / 2).exp() * share).sum(1, True)) @ values)
    equal_with_gradients(layer(*inputs), torch.cat(naive)[None, None], [*inputs, *layer.parameters()])


def test_the_sorting_learns_which_block_is_wanted():
    """Every place must name the token that stands as far into the block after the next; all else is noise."""
    layer, wanted = SinkhornAttention(16, context=16, block=4, hidden_dim=32), torch.tensor([2, 3, 0, 1])
    code, place, answer = (torch.nn.Embedding(number, 16) for number in (8, 16, 8))
    parts = torch.nn.ModuleList([layer, code, place, answer])
    optimizer = torch.optim.Adam(parts.parameters(), lr=0.01)
    here = torch.arange(16)
    for _ in range(250):
        tokens = torch.randint(8, (32, 16))
        x = code(tokens)
        y = layer(place(here % 4)[None, None].expand(32, 1, -1, -1), (x + place(here))[:, None], x[:, None])
        target = tokens.unflatten(1, (4, 4))[:, wanted].flatten(1)
        loss = cross_entropy((y[:, 0] @ answer.weight.T).flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    mixture = layer.eval().sorting((x + place(here))[:, None].unflatten(2, (4, 4)))[:, 0].mean(0)
    assert torch.equal(mixture.argmax(-1), wanted)
    assert (mixture.diagonal() < 0.3).all()


def test_what_cannot_be_sorted_is_refused():
    with pytest.raises(ValueError, match="context=10: expected a multiple of block=4"):
        SinkhornAttention(4, context=10, block=4)
    with pytest.raises(ValueError, match="9 places, made for at most context=8"):
        SinkhornAttention(4, context=8, block=4)(*torch.zeros(3, 1, 1, 9, 4))

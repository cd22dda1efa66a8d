"""Attention with all that may be asked of it at once: masks, biases, dropout, shared keys; and what holds of it always."""

import math
from functools import partial

import pytest
import torch
from torch.autograd import grad, gradcheck
from torch.testing import assert_close

from thalweg.layers import attention as module
from thalweg.layers.attention import attention, attention_weights, masked_softmax

EXACT = {"rtol": 0, "atol": 1e-10}
DICE = torch.Generator().manual_seed(0)


def numbers(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def naive(query, key, value, mask=None, bias=None, causal=False):
    """Query by query: weights over what it may read, then the sum of the values; nothing to read gives zeros."""
    (batch, heads, time, dim), read = query.shape, key.shape[2]
    mask = torch.ones(batch, heads, time, read, dtype=torch.bool) if mask is None else mask.expand(batch, heads, time, read)
    bias = query.new_zeros(batch, heads, time, read) if bias is None else bias.expand(batch, heads, time, read)
    rows = []
    for b in range(batch):
        for h in range(heads):
            shared = h // (heads // key.shape[1])
            for t in range(time):
                seen = [s for s in range(read) if mask[b, h, t, s] and (not causal or s <= t + read - time)]
                score = [(query[b, h, t] @ key[b, shared, s] / math.sqrt(dim) + bias[b, h, t, s]).exp() for s in seen]
                row = query.new_zeros(value.shape[-1])
                for s, e in zip(seen, score, strict=True):
                    row = row + e / sum(score) * value[b, shared, s]
                rows.append(row)
    return torch.stack(rows).view(batch, heads, time, -1)


def some_mask(*shape):
    """A mask whose second example shows nothing."""
    mask = torch.rand(*shape, generator=DICE) < 0.6
    mask[1] = False
    return mask


def noise(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=DICE).requires_grad_()


@pytest.fixture(params=["torch's kernel", "matrices"])
def added(request, monkeypatch):
    """A bias of nothing for each of the ways to compute: torch's kernel has no gradient of one, so matrices are multiplied."""
    if request.param == "matrices":
        return torch.zeros((), dtype=torch.float64, requires_grad=True)
    monkeypatch.setattr(module, "LONG", 0)
    return None


CASES = {
    "padding": ({"mask": some_mask(2, 1, 1, 5)}, 4),
    "mask of every pair": ({"mask": some_mask(2, 4, 3, 5)}, 4),
    "mask of time": ({"mask": torch.rand(3, 5, generator=DICE) < 0.5}, 4),
    "causal and padding": ({"mask": some_mask(2, 1, 1, 5), "causal": True}, 4),
    "bias a head": ({"bias": noise(4, 3, 5)}, 4),
    "bias and mask": ({"bias": noise(4, 3, 5), "mask": some_mask(2, 1, 1, 5)}, 4),
    "bias, mask, causal, shared keys": ({"bias": noise(1, 4, 3, 5), "mask": some_mask(2, 1, 1, 5), "causal": True}, 2),
    "shared keys": ({}, 2),
    "one key for all heads": ({"causal": True}, 1),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_its_formula_in_values_and_gradients(case, added):
    more, groups = {"bias": added} | CASES[case][0], CASES[case][1]
    inputs = [numbers(2, 4, 3, 6), numbers(2, groups, 5, 6), numbers(2, groups, 5, 2)]  # values of another width
    inputs += [] if more["bias"] is None else [more["bias"]]
    ours, formula = attention(*inputs[:3], **more), naive(*inputs[:3], **more)
    assert_close(ours, formula, **EXACT)
    direction = torch.randn_like(ours)
    for one, other in zip(grad(ours, inputs, direction), grad(formula, inputs, direction), strict=True):
        assert_close(one, other, **EXACT)
    heads = attention_weights(*inputs[:2], **more).unflatten(1, (groups, -1))
    assert_close((heads @ inputs[2][:, :, None]).flatten(1, 2), formula, **EXACT)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_who_may_read_nothing_gets_zeros_and_sends_back_none(dtype, added):
    inputs = [torch.randn(2, 3, 4, 8, dtype=dtype, requires_grad=True) for _ in range(3)]
    mask = torch.ones(2, 1, 1, 4, dtype=torch.bool)
    mask[1] = False
    for causal in (False, True):
        y = attention(*inputs, mask, added, causal=causal)
        assert y[0].any()
        assert not y[1].any()
        for gradient in grad(y.square().sum(), inputs):
            assert gradient.isfinite().all()
            assert gradient[0].any()
            assert not gradient[1].any()
    assert not attention_weights(*inputs[:2], mask)[1].any()


def test_it_equals_torchs_and_passes_the_gradient_check():
    inputs = [numbers(2, 3, 4, 5) for _ in range(3)]
    assert_close(attention(*inputs), torch.nn.functional.scaled_dot_product_attention(*inputs), **EXACT)
    assert gradcheck(attention, inputs)
    assert gradcheck(partial(attention, causal=True), inputs)


def test_extreme_scores_choose_one_key():
    key = torch.eye(3)[None, None]
    for dtype in (torch.float32, torch.bfloat16):
        y = attention(*(tensor.to(dtype) for tensor in (1e4 * key, key, key)))
        assert torch.equal(y.float(), key)


def test_weights_are_a_distribution_that_is_zero_where_masked_and_above_the_diagonal():
    query, key, mask = numbers(2, 3, 5, 4), numbers(2, 3, 5, 4), torch.rand(2, 1, 1, 5) < 0.7
    mask[..., 0] = True
    weights = attention_weights(query, key, mask, causal=True)
    assert_close(weights.sum(-1), torch.ones(2, 3, 5).double(), **EXACT)
    assert not weights.triu(1).any()
    assert not weights.masked_select(~mask).any()
    assert (weights.masked_select(mask & torch.ones(5, 5, dtype=torch.bool).tril()) > 0).all()


def test_without_a_question_the_answer_is_the_average():
    """A query of zeros prefers no key: average pooling.   D2L 10.1"""
    key, value = numbers(2, 1, 7, 4), numbers(2, 1, 7, 3)
    assert_close(attention(torch.zeros(2, 1, 1, 4).double(), key, value), value.mean(2, keepdim=True), **EXACT)
    assert not torch.allclose(attention(numbers(2, 1, 1, 4), key, value), value.mean(2, keepdim=True), atol=1e-2)


def test_attention_in_three_steps_and_why_scores_are_divided():
    """Relevance, softmax, weighted sum; the variance of q.k grows with the width, that of q.k / sqrt(dim) does not."""
    for dim in (16, 256):
        query, key = torch.randn(1, 1, 500, dim), torch.randn(1, 1, 500, dim)
        score = query @ key.mT
        assert score.var() == pytest.approx(dim, rel=0.1)
        assert (score / math.sqrt(dim)).var() == pytest.approx(1, rel=0.1)
        weights = attention_weights(query, key)
        assert_close(weights, (score / math.sqrt(dim)).softmax(-1), rtol=1e-4, atol=1e-6)
        assert weights.max(-1).values.mean() < 0.2  # undivided, one key would take nearly all:
    assert score.softmax(-1).max(-1).values.mean() > 0.8


def test_the_order_of_keys_does_not_count_and_the_order_of_queries_is_that_of_the_answers():
    query, key, value = numbers(2, 3, 5, 4), numbers(2, 3, 7, 4), numbers(2, 3, 7, 4)
    y = attention(query, key, value)
    for _ in range(5):
        order, asked = torch.randperm(7), torch.randperm(5)
        assert_close(attention(query, key[:, :, order], value[:, :, order]), y, **EXACT)
        assert_close(attention(query[:, :, asked], key, value), y[:, :, asked], **EXACT)


def test_the_past_does_not_depend_on_the_future():
    query, key, value = numbers(1, 2, 6, 4), numbers(1, 2, 6, 4), numbers(1, 2, 6, 4)
    past = attention(query, key, value, causal=True)[:, :, :4]
    for gradient in grad(past.sum(), [query, key, value]):
        assert gradient[:, :, :4].any()
        assert not gradient[:, :, 4:].any()


@pytest.mark.parametrize("causal", [False, True])
def test_dropout_zeroes_weights_and_scales_the_rest(causal):
    query, key = torch.randn(2, 1, 1, 200, 8)
    weights = attention_weights(query, key, causal=causal)
    dropped = attention(query, key, torch.eye(200)[None, None], dropout=0.25, causal=causal)
    kept = dropped != 0
    assert_close(dropped[kept], weights[kept] / 0.75)
    assert kept[weights > 0].float().mean() == pytest.approx(0.75, abs=0.02)


def test_what_cannot_be_read_is_refused():
    with pytest.raises(ValueError, match=r"key: 2 heads, expected a divisor of the 3"):
        attention(torch.zeros(1, 3, 4, 2), torch.zeros(1, 2, 4, 2), torch.zeros(1, 2, 4, 2))
    with pytest.raises(ValueError, match=r"key: 2 places, expected at least the 3"):
        attention(torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4), causal=True)


def test_a_softmax_over_the_places_shown_is_its_formula_and_zero_where_none_is():
    score, mask = numbers(3, 2, 5), torch.rand(3, 1, 5) < 0.6
    mask[1], mask[0, 0, 0], mask[2, 0, 1] = False, True, True
    shown = mask.expand_as(score)
    naive = torch.zeros_like(score)
    for i in range(3):
        for j in range(2):
            for k in range(5):
                if shown[i, j, k]:
                    naive[i, j, k] = score[i, j, k].exp() / score[i, j][shown[i, j]].exp().sum()
    ours = masked_softmax(score, mask)
    assert_close(ours, naive, **EXACT)
    direction = torch.randn_like(ours)
    assert_close(grad(ours, score, direction)[0], grad(naive, score, direction)[0], **EXACT)
    assert torch.equal(masked_softmax(score), score.softmax(-1))
    half = masked_softmax(torch.tensor([[1e4, -1e4, 0.0]], dtype=torch.bfloat16), torch.tensor([[False, True, True]]))
    assert half.tolist() == [[0, 0, 1]]

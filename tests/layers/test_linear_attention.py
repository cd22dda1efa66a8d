"""Attention at linear cost: each form is its formula, the three of one formula agree, and what is approximate comes close."""

import pytest
import torch
from definitions import EXACT, equal_with_gradients, numbers
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from thalweg.layers import linear_attention as module
from thalweg.layers.attention import attention
from thalweg.layers.linear_attention import (
    Linformer,
    elu_features,
    linear_attention,
    linear_attention_step,
    orthogonal_directions,
    softmax_features,
)


@pytest.mark.parametrize("share", [False, True])
def test_linformer_is_its_formula_and_padding_enters_no_mixture(share):
    layer, inputs = Linformer(9, 3, share).double(), [numbers(2, 2, 6, 4) for _ in range(3)]
    real = torch.arange(6) < torch.tensor([[6], [4]])
    answers = []
    for b, length in enumerate((6, 4)):
        query, key, value = (x[b] for x in inputs)
        mixed = [sum(m[:, s, None] * x[:, None, s] for s in range(length)) for m, x in ((layer.key, key), (layer.value, value))]
        answers.append((query @ mixed[0].mT / 2).softmax(-1) @ mixed[1])
    equal_with_gradients(layer(*inputs, real), torch.stack(answers), [*inputs, *layer.parameters()])
    assert len(list(layer.parameters())) == (1 if share else 2)
    with pytest.raises(ValueError, match="10 places, made for at most context=9"):
        layer(*torch.zeros(3, 1, 1, 10, 4).double())


def test_with_more_mixtures_the_error_falls_and_with_one_a_place_it_is_attention():
    """Each mixture the mean of neighbouring places of a text that changes slowly."""
    slow = torch.randn(3, 1, 2, 64, 4).double().cumsum(3) / 4
    expected, errors = attention(*slow), []
    for keys in (1, 4, 16, 64):
        layer = Linformer(64, keys, share=True).double()
        with torch.no_grad():
            layer.key.copy_(torch.eye(keys).repeat_interleave(64 // keys, 1) * keys / 64)
        errors.append((layer(*slow) - expected).norm().item() / expected.norm().item())
    assert errors[0] > 1.5 * errors[1] > 1.5**2 * errors[2]
    assert errors[3] < 1e-10


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("time", [1, 5, 8, 19])
def test_linear_attention_is_its_formula(time, causal, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 8)
    inputs = [numbers(2, 3, time, 4), numbers(2, 3, time, 4), numbers(2, 3, time, 5)]
    value = inputs[2]
    real = torch.rand(2, time) < 0.7
    real[1, 0] = False
    for mask in (None, real):
        query, key = (torch.where(x > 0, x + 1, x.exp()) for x in inputs[:2])
        weights = (query[:, :, :, None] * key[:, :, None]).sum(-1)
        weights = weights if mask is None else weights * mask[:, None, None]
        weights = weights.tril() if causal else weights
        naive = weights / weights.sum(-1, keepdim=True).clamp(min=1e-30) @ value
        ours = linear_attention(elu_features(inputs[0]), elu_features(inputs[1]), value, mask, causal)
        equal_with_gradients(ours, naive, inputs)


@pytest.mark.parametrize("name", ["elu", "softmax"])
def test_in_parallel_and_place_by_place_it_is_the_same(name):
    query, key, value = (torch.randn(2, 3, 150, 8).double() for _ in range(3))
    if name == "elu":
        query, key = elu_features(query), elu_features(key)
    else:
        directions = orthogonal_directions(16, 8)
        query, key = softmax_features(query, directions, query=True), softmax_features(key, directions, query=False)
    state, answers = None, []
    for t in range(150):
        y, state = linear_attention_step(query[:, :, t], key[:, :, t], value[:, :, t], state)
        answers.append(y)
    assert_close(linear_attention(query, key, value, causal=True), torch.stack(answers, 2), rtol=0, atol=1e-10)
    last = linear_attention(query, key, value)[:, :, -1]  # the last place reads all, causal or not
    assert_close(last, answers[-1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("causal", [False, True])
def test_twice_the_places_take_twice_the_operations(causal):
    operations = []
    for time in (256, 512, 1024):
        x = torch.rand(1, 2, time, 8, requires_grad=True)
        with FlopCounterMode(display=False) as counter:
            linear_attention(x, x, x, causal=causal).sum().backward()
        operations.append(counter.get_total_flops())
    assert operations[2] == 2 * operations[1] == 4 * operations[0] > 0


def test_random_features_come_closer_to_the_softmax_the_more_there_are():
    inputs = torch.randn(3, 1, 2, 32, 16).double() / 2
    expected, errors = attention(*inputs), []
    for features in (16, 256, 4096):
        directions = orthogonal_directions(features, 16)
        query, key = softmax_features(inputs[0], directions, query=True), softmax_features(inputs[1], directions, query=False)
        errors.append((linear_attention(query, key, inputs[2]) - expected).norm().item() / expected.norm().item())
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.1


def test_directions_stand_at_right_angles_and_features_are_unbiased():
    directions = orthogonal_directions(20, 8).double()
    angles = torch.nn.functional.normalize(directions, dim=1)
    for group in angles.split(8):
        assert_close(group @ group.mT, torch.eye(len(group)).double(), rtol=0, atol=1e-6)
    query, key = torch.randn(2, 1, 8).double()
    many = orthogonal_directions(200_000, 8).double()
    phi = [(x / 8**0.25 @ many.mT - (x / 8**0.25).square().sum() / 2).exp() for x in (query, key)]
    exact = (query @ key.mT / 8**0.5).exp().item()
    assert (phi[0] * phi[1]).mean().item() == pytest.approx(exact, rel=0.02)
    keys = softmax_features(torch.cat([key, -key]), many, query=False)  # of which one c is taken out
    one, other = (softmax_features(query, many, query=True) @ keys.mT)[0].tolist()
    assert one / other == pytest.approx(exact**2, rel=0.04)


def test_extreme_numbers_stay_finite():
    x = 100 * torch.randn(1, 1, 70, 8)
    directions = orthogonal_directions(16, 8)
    query, key = softmax_features(x, directions, query=True), softmax_features(x, directions, query=False)
    for causal in (False, True):
        assert linear_attention(query, key, x, causal=causal).isfinite().all()
    half = elu_features(x).bfloat16()
    assert linear_attention(half, half, x.bfloat16(), causal=True).dtype == torch.bfloat16


def test_nothing_to_read_is_zero_with_a_gradient_that_is_finite():
    query, key, value = numbers(1, 1, 4, 3), numbers(1, 1, 4, 3), numbers(1, 1, 4, 3)
    y = linear_attention(elu_features(query), elu_features(key), value, torch.zeros(1, 4, dtype=torch.bool), causal=True)
    assert_close(y, torch.zeros_like(y), **EXACT)
    assert all(found.isfinite().all() for found in torch.autograd.grad(y.sum(), [query, key, value]))

"""Dropout of whole branches, and of the same units at every time."""

import pytest
import torch
from definitions import EXACT, numbers
from torch import nn
from torch.autograd import grad
from torch.testing import assert_close

from thalweg.layers.dropout import ByteDropout, LockedDropout, StochasticDepth

FORMS = [StochasticDepth, LockedDropout, ByteDropout]


def test_stochastic_depth_drops_whole_examples_and_scales_the_others():
    x = numbers(4000, 2, 3)
    y = StochasticDepth(0.3)(x)
    kept = y.detach().flatten(1).any(1)
    assert kept.float().mean() == pytest.approx(0.7, abs=0.02)
    assert_close(y, torch.where(kept[:, None, None], x / 0.7, 0.0), **EXACT)
    assert_close(grad(y.sum(), x)[0], (kept.double() / 0.7)[:, None, None].expand_as(x), **EXACT)


def test_a_residual_branch_is_left_out_for_some_examples_only():
    branch, drop, x = nn.Linear(3, 3).double(), StochasticDepth(0.5), numbers(200, 3)
    y = x + drop(branch(x))
    whole, none = x + 2 * branch(x), x
    left_out = (y == none).all(1)
    assert 70 < left_out.sum() < 130
    assert_close(y[~left_out], whole[~left_out], **EXACT)


def test_locked_dropout_drops_the_same_units_at_every_time():
    x = numbers(50, 7, 40)
    y = LockedDropout(0.4)(x)
    kept = y.detach()[:, 0] != 0
    assert kept.float().mean() == pytest.approx(0.6, abs=0.03)
    assert not torch.equal(kept[0], kept[1])  # every example has units of its own
    naive = torch.zeros_like(x)
    for t in range(7):
        naive[:, t] = x[:, t] * kept / 0.6
    assert_close(y, naive, **EXACT)
    assert_close(grad(y.sum(), x)[0], (kept.double() / 0.6)[:, None].expand_as(x), **EXACT)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dropout_by_bytes_drops_every_number_with_the_chance_asked_for(dtype):
    x = numbers(25, 4001).to(dtype)  # no multiple of eight
    y = ByteDropout(0.3)(x)
    kept = y != 0
    assert kept.double().mean() == pytest.approx(1 - 77 / 256, abs=0.005)
    assert_close(y, x * kept * (256 / 179), rtol=1e-10 if dtype == torch.float64 else 1e-2, atol=0)
    assert_close(grad(y.double().sum(), x)[0], kept.to(dtype) * (256 / 179), rtol=1e-10 if dtype == torch.float64 else 1e-2,
                 atol=0)  # fmt: skip
    eighths = kept.flatten()[: 8 * 12_500].view(-1, 8).double()
    assert (eighths.mean(0) - 179 / 256).abs().max() < 0.02  # all bytes of a drawn number are alike ...
    assert (torch.corrcoef(eighths.T) - torch.eye(8)).abs().max() < 0.04  # ... and know nothing of each other


@pytest.mark.parametrize("form", FORMS)
def test_at_test_time_it_rests_and_in_half_precision_it_keeps_the_type(form):
    x = torch.ones(3, 4, 5, dtype=torch.bfloat16)
    assert torch.equal(form(0.5).eval()(x), x)
    assert form(0.5)(x).dtype == torch.bfloat16
    assert torch.equal(form(0.0)(x), x)
    assert not form(1.0)(x).any()


@pytest.mark.parametrize("form", FORMS)
def test_a_probability_that_is_none_is_refused(form):
    with pytest.raises(ValueError, match=r"1\.5"):
        form(1.5)


def test_what_has_no_time_is_refused():
    with pytest.raises(ValueError, match=r"input: \(3, 4\), expected \[batch time dim\]"):
        LockedDropout()(torch.ones(3, 4))

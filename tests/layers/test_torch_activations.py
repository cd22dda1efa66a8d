"""The activation functions that torch has, held to their formulas.   LBDL 4.3, D2L 4.1"""

import math

import pytest
import torch
from definitions import EXACT, equal_with_gradients, numbers
from torch import nn
from torch.autograd import grad
from torch.nn import functional
from torch.testing import assert_close

from thalweg import figures


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


SIXTH = torch.tensor(1 / 6).item()  # torch's slope of the hard sigmoid has single precision in float64 too
SCALE, ALPHA = 1.0507009873554805, 1.6732632423543772  # the fixed point of mean 0 and variance 1, Klambauer et al. 2017


ACTIVATIONS = {
    "relu": (nn.ReLU(), lambda x: x if x > 0 else 0.0, lambda x: float(x > 0)),
    "leaky relu": (nn.LeakyReLU(0.2), lambda x: x if x > 0 else 0.2 * x, lambda x: 1.0 if x > 0 else 0.2),
    "tanh": (nn.Tanh(), math.tanh, lambda x: 1 - math.tanh(x) ** 2),
    "sigmoid": (nn.Sigmoid(), lambda x: 1 / (1 + math.exp(-x)), lambda x: math.exp(-x) / (1 + math.exp(-x)) ** 2),
    "elu": (nn.ELU(1.5), lambda x: x if x > 0 else 1.5 * math.expm1(x), lambda x: 1.0 if x > 0 else 1.5 * math.exp(x)),
    "selu": (
        nn.SELU(),
        lambda x: SCALE * (x if x > 0 else ALPHA * math.expm1(x)),
        lambda x: SCALE * (1.0 if x > 0 else ALPHA * math.exp(x)),
    ),
    "softplus": (nn.Softplus(), lambda x: math.log1p(math.exp(x)), sigmoid),
    "silu": (nn.SiLU(), lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x)))),
    "mish": (
        nn.Mish(),
        lambda x: x * math.tanh(math.log1p(math.exp(x))),
        lambda x: (t := math.tanh(math.log1p(math.exp(x)))) + x * sigmoid(x) * (1 - t * t),
    ),
    "hard sigmoid": (nn.Hardsigmoid(), lambda x: min(max(x / 6 + 0.5, 0), 1), lambda x: SIXTH if -3 < x < 3 else 0.0),
    "gelu": (
        nn.GELU(),  # x P(Z <= x)
        lambda x: x * (1 + math.erf(x / 2**0.5)) / 2,
        lambda x: (1 + math.erf(x / 2**0.5)) / 2 + x * math.exp(-x * x / 2) / (2 * math.pi) ** 0.5,
    ),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_and_its_slope_follow_their_formula(name):
    layer, formula, slope = ACTIVATIONS[name]
    x = torch.linspace(-6, 6, 100, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    assert_close(y, torch.tensor([formula(v) for v in x.tolist()], dtype=torch.float64), **EXACT)
    assert_close(grad(y.sum(), x)[0], torch.tensor([slope(v) for v in x.tolist()], dtype=torch.float64), **EXACT)


def test_half_the_rectifiers_are_active_at_the_start():
    network = nn.Sequential(nn.Linear(100, 500), nn.ReLU())
    assert (network(torch.randn(500, 100)) > 0).float().mean() == pytest.approx(0.5, abs=0.02)


def test_squashing_functions_stay_finite_and_their_slopes_vanish_far_out():
    x = torch.tensor([-1000.0, -40.0, 40.0, 1000.0], requires_grad=True)
    for function in (torch.tanh, torch.sigmoid):
        y = function(x)
        assert y.isfinite().all()
        assert (grad(y.sum(), x)[0].abs() < 1e-15).all()


def test_a_hard_sigmoid_is_the_difference_of_two_rectifiers():
    x = numbers(200)
    smooth, steps = functional.hardsigmoid(3 * x), (x / 2 + 0.5).relu() - (x / 2 - 0.5).relu()
    assert_close(smooth, steps, **EXACT)
    assert_close(grad(smooth.sum(), x)[0], grad(steps.sum(), x)[0], rtol=0, atol=1e-7)


def test_the_slope_of_a_prelu_below_zero_is_learned_one_a_channel():
    layer, x = nn.PReLU(3, init=0.1).double(), numbers(2, 3, 4)
    nn.init.uniform_(layer.weight)
    slope = layer.weight[:, None]
    equal_with_gradients(layer(x), x.clamp(min=0) + slope * x.clamp(max=0), [x, layer.weight])


def test_selu_brings_any_mean_and_variance_nearer_to_zero_and_one():
    torch.manual_seed(0)
    x = 1.4 * torch.randn(4000, 256) + 0.3
    for _ in range(12):
        weight = torch.randn(256, 256) / 16  # variance 1 / inputs
        x = functional.selu(x @ (weight - weight.mean(0)))
    assert x.mean().abs() < 0.05
    assert 0.85 < x.var() < 1.15


def test_a_gated_linear_unit_lets_one_half_through_as_far_as_the_other_opens():
    x = numbers(2, 3, 8)
    value, gate = x[..., :4], x[..., 4:]
    equal_with_gradients(nn.GLU()(x), value / (1 + (-gate).exp()), [x])


def test_activations_of_large_numbers_and_of_half_precision_stay_finite():
    for layer, _, _ in ACTIVATIONS.values():
        x = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4], requires_grad=True)
        assert layer(x).isfinite().all()
        assert grad(layer(x).sum(), x)[0].isfinite().all()
        assert layer(x.bfloat16()).isfinite().all()


def test_the_picture_has_every_function_and_its_slope():
    drawn = figures.activations()
    assert len([axis for axis in drawn.axes if axis.lines]) == len(figures.ACTIVATIONS)
    for axis, (name, function) in zip(drawn.axes, figures.ACTIVATIONS.items(), strict=False):
        curve, slope = axis.lines[-2:]
        x, y = torch.tensor(curve.get_xdata()), torch.tensor(curve.get_ydata())
        assert axis.get_title() == name
        assert_close(y, function(x), rtol=0, atol=1e-5)
        rise = (y[1:] - y[:-1]) / (x[1:] - x[:-1])
        drawn_slope = torch.tensor(slope.get_ydata())
        near = (rise - (drawn_slope[1:] + drawn_slope[:-1]) / 2).abs() < 0.02
        assert near.float().mean() > 0.97, name  # all but where a corner is

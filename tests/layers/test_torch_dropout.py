"""The forms of dropout that torch has, held to what the books say of them.   LBDL 4.5, D2L 4.6"""

import pytest
import torch
from definitions import EXACT, numbers
from torch import nn
from torch.autograd import grad
from torch.testing import assert_close


def test_dropout_zeroes_with_its_probability_scales_the_rest_and_rests_at_test_time():
    layer, x = nn.Dropout(0.3), torch.ones(1000, 1000)
    y = layer(x)
    assert y.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    assert (y == 0).float().mean() == pytest.approx(0.3, abs=0.003)
    assert y.mean() == pytest.approx(1, abs=0.01)  # the mean is preserved
    assert ((y != 0).view(-1, 4).all(1)).float().mean() == pytest.approx(0.7**4, abs=0.005)  # a group survives
    assert torch.equal(layer.eval()(x), x)


def test_channel_dropout_zeroes_whole_maps():
    y = nn.Dropout2d(0.5)(torch.ones(100, 50, 4, 4))
    per_map = y.flatten(2)
    assert (per_map == per_map[:, :, :1]).all()
    assert set(per_map[..., 0].unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_dropout_of_channels_zeroes_them_whole_in_any_number_of_dimensions(dimensions):
    layer = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)[dimensions - 1](0.25)
    x = torch.ones(500, 40, *[2] * dimensions)
    y = layer(x).flatten(2)
    assert (y == y[:, :, :1]).all()
    assert (y[..., 0] == 0).float().mean() == pytest.approx(0.25, abs=0.015)
    assert y.max() == pytest.approx(1 / 0.75)
    assert torch.equal(layer.eval()(x), x)


def test_alpha_dropout_keeps_mean_zero_and_variance_one():
    x = torch.randn(1000, 1000)
    y = nn.AlphaDropout(0.2)(x)
    assert y.mean().abs() < 0.01
    assert y.var() == pytest.approx(1, abs=0.02)
    assert nn.Dropout(0.2)(x).var() > 1.2  # which the usual one does not
    lowest = -1.0507009873554805 * 1.6732632423543772  # a dropped unit takes the value that SELU falls to
    scale = (0.8 + lowest**2 * 0.8 * 0.2) ** -0.5
    dropped = y == y.mode().values.mode().values
    assert dropped.float().mean() == pytest.approx(0.2, abs=0.01)
    assert y[dropped][0] == pytest.approx(scale * lowest - scale * lowest * 0.2, abs=1e-5)


def test_the_gradient_of_dropout_goes_the_way_of_what_was_kept():
    x, layer = numbers(50), nn.Dropout(0.5)
    y = layer(x)
    assert_close(grad(y.sum(), x)[0], 2.0 * (y != 0).double(), **EXACT)

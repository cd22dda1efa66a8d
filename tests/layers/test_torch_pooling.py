"""The poolings and the interpolation that torch has, written out with loops.   LBDL 4.4, D2L 6.5"""

import math
from itertools import pairwise, product

import pytest
import torch
from definitions import EXACT, equal_with_gradients, numbers
from torch import Tensor, nn
from torch.nn import functional
from torch.testing import assert_close


def windows(x: Tensor, size: int, function) -> Tensor:
    batch, channels, height, width = x.shape
    rows = [[[[function(x[b, c, i : i + size, j : j + size]) for j in range(0, width, size)]
              for i in range(0, height, size)] for c in range(channels)] for b in range(batch)]  # fmt: skip
    return torch.stack([torch.stack([torch.stack([torch.stack(r) for r in c]) for c in b]) for b in rows])


def test_pooling_takes_the_largest_or_the_mean_of_every_window():
    x = numbers(2, 3, 6, 6)
    equal_with_gradients(nn.MaxPool2d(2)(x), windows(x, 2, torch.max), [x])
    equal_with_gradients(nn.AvgPool2d(3)(x), windows(x, 3, torch.mean), [x])


def test_maximum_pooling_does_not_see_a_movement_within_its_window():
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 0, 0] = 1
    assert torch.equal(nn.MaxPool2d(2)(x), nn.MaxPool2d(2)(x.roll(1, -1)))
    assert not torch.equal(nn.MaxPool2d(2)(x), nn.MaxPool2d(2)(x.roll(2, -1)))


def test_average_pooling_is_linear_and_maximum_pooling_is_not():
    x, y = numbers(1, 1, 4, 4), numbers(1, 1, 4, 4)
    average, maximum = nn.AvgPool2d(2), nn.MaxPool2d(2)
    assert_close(average(2 * x - 3 * y), 2 * average(x) - 3 * average(y), **EXACT)
    assert not torch.allclose(maximum(2 * x - 3 * y), 2 * maximum(x) - 3 * maximum(y))


def test_global_average_pooling_turns_2048_maps_into_a_vector():
    x = torch.randn(2, 2048, 7, 7, dtype=torch.float64)
    pooled = nn.AdaptiveAvgPool2d(1)(x).flatten(1)
    assert pooled.shape == (2, 2048)
    assert_close(pooled[1, 5], sum(x[1, 5].flatten()) / 49, **EXACT)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_pooling_in_any_number_of_dimensions_with_padding_and_stride_follows_the_loop(dimensions):
    maximum = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[dimensions - 1](3, stride=2, padding=1)
    average = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[dimensions - 1](3, stride=2, padding=1)
    x = numbers(1, 2, *[5] * dimensions)
    largest, mean = [], []
    for channel, *place in product(range(2), *[range(3)] * dimensions):
        window = x[0, channel, *(slice(max(0, 2 * i - 1), 2 * i + 2) for i in place)]
        largest.append(window.max())
        mean.append(window.sum() / 3**dimensions)  # what is padded counts as zeros
    shape = (1, 2, *[3] * dimensions)
    equal_with_gradients(maximum(x), torch.stack(largest).reshape(shape), [x])
    equal_with_gradients(average(x), torch.stack(mean).reshape(shape), [x])


def test_a_dilated_maximum_pooling_skips_between_the_values_of_its_window():
    x = numbers(1, 1, 9)
    naive = torch.stack([x[0, 0, i : i + 5 : 2].max() for i in range(5)])
    equal_with_gradients(nn.MaxPool1d(3, stride=1, dilation=2)(x), naive[None, None], [x])


def test_maximum_pooling_of_truth_values_is_their_logical_or():
    present = torch.rand(1, 1, 8, 8) < 0.2
    expected = present.unflatten(-1, (4, 2)).unflatten(-3, (4, 2)).any(-1).any(-2)
    assert torch.equal(nn.MaxPool2d(2)(present.float()) > 0, expected)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_power_average_pooling_is_the_p_norm_of_every_window(p):
    x = numbers(1, 2, 6)
    windows = x.abs().unfold(-1, 2, 2)
    equal_with_gradients(nn.LPPool1d(p, 2)(x.abs()), windows.pow(p).sum(-1).pow(1 / p), [x])
    y = numbers(1, 1, 4, 4)
    blocks = y.abs().unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2)
    equal_with_gradients(nn.LPPool2d(p, 2)(y.abs()), blocks.pow(p).sum(-1).pow(1 / p), [y])


@pytest.mark.parametrize(("extent", "size"), [(7, 3), (4, 4), (5, 7), (9, 1)])
def test_adaptive_pooling_divides_any_extent_into_so_many_bins(extent, size):
    x = numbers(1, 2, extent)
    bins = [x[..., math.floor(i * extent / size) : math.ceil((i + 1) * extent / size)] for i in range(size)]
    equal_with_gradients(nn.AdaptiveMaxPool1d(size)(x), torch.stack([part.amax(-1) for part in bins], -1), [x])
    equal_with_gradients(nn.AdaptiveAvgPool1d(size)(x), torch.stack([part.mean(-1) for part in bins], -1), [x])


def test_fractional_pooling_takes_windows_at_steps_of_one_and_two_that_are_drawn_at_random():
    x, draw = numbers(1, 1, 7, 7), torch.tensor([[[0.3, 0.8]]], dtype=torch.float64)
    step = (7 - 2) / (5 - 1)  # 7 pixels, windows of 2, 5 of them

    def starts(u: float) -> list[int]:
        return [int((i + u) * step) - int(u * step) for i in range(4)] + [5]

    columns, rows = starts(0.3), starts(0.8)
    naive = torch.stack([torch.stack([x[0, 0, i : i + 2, j : j + 2].max() for j in columns]) for i in rows])
    layer = nn.FractionalMaxPool2d(2, output_size=5, _random_samples=draw)
    equal_with_gradients(layer(x), naive[None, None], [x])
    assert {b - a for a, b in pairwise(rows)} <= {1, 2}


def test_unpooling_puts_each_maximum_back_where_it_was_and_zeros_elsewhere():
    x = numbers(1, 2, 4, 6)
    pooled, place = functional.max_pool2d(x, 2, return_indices=True)
    naive = torch.zeros_like(x)
    for c, i, j in product(range(2), range(2), range(3)):
        window = x[0, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        k, l = divmod(int(window.argmax()), 2)
        naive[0, c, 2 * i + k, 2 * j + l] = window[k, l]
    equal_with_gradients(nn.MaxUnpool2d(2)(pooled, place), naive, [x])


def interpolated(x: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Between the four nearest pixel centres, in shares that fall linearly with the distance in each direction."""
    height, width = x.shape[-2:]

    def place(i: int, old: int, new: int) -> float:
        if align_corners:
            return i * (old - 1) / (new - 1)
        return min(max((i + 0.5) * old / new - 0.5, 0), old - 1)

    rows = []
    for i, j in product(*map(range, size)):
        y, z = place(i, height, size[0]), place(j, width, size[1])
        top, left = min(int(y), height - 2), min(int(z), width - 2)
        v, h = y - top, z - left
        rows.append(
            (1 - v) * ((1 - h) * x[..., top, left] + h * x[..., top, left + 1])
            + v * ((1 - h) * x[..., top + 1, left] + h * x[..., top + 1, left + 1])
        )
    return torch.stack(rows, -1).unflatten(-1, size)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(7, 9), (3, 2)])
def test_bilinear_interpolation_mixes_the_four_nearest_pixels(size, align_corners):
    x = numbers(2, 3, 4, 5)
    made = functional.interpolate(x, size, mode="bilinear", align_corners=align_corners)
    equal_with_gradients(made, interpolated(x, size, align_corners), [x])

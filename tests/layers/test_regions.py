"""Pooling of regions, against loops over boxes, bins and places."""

from itertools import product
from math import ceil, floor

import pytest
import torch
from definitions import equal_with_gradients, numbers
from torch import Tensor
from torch.autograd import grad
from torch.testing import assert_close

from thalweg.layers.regions import pyramid_align, roi_align, roi_pool, spatial_pyramid_pool

# inside, over the border, wholly outside, thinner than a pixel, a single pixel, upside down, with halves
BOXES = [
    [[2.0, 3.0, 20.0, 18.0], [-9.0, -6.0, 11.3, 40.0], [90.0, 90.0, 99.0, 99.0]],
    [[4.1, 5.2, 4.6, 22.0], [8.0, 8.0, 8.0, 8.0], [6.0, 2.2, 27.0, 10.0]],
]


def boxes() -> Tensor:
    return torch.tensor(BOXES, dtype=torch.float64, requires_grad=True)


def between(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """A map [channel height width] at a row and a column that are no whole numbers."""
    height, width = x.shape[1:]
    if not (-1 <= y <= height and -1 <= z <= width):
        return 0 * x[:, 0, 0]
    y, z = y.clamp(0, height - 1), z.clamp(0, width - 1)
    top, left = min(int(y), height - 2), min(int(z), width - 2)
    v, h = y - top, z - left
    upper = (1 - h) * x[:, top, left] + h * x[:, top, left + 1]
    lower = (1 - h) * x[:, top + 1, left] + h * x[:, top + 1, left + 1]
    return (1 - v) * upper + v * lower


def aligned(x: Tensor, box: Tensor, rows: int, columns: int, scale: float, ratio: int) -> Tensor:
    left, top, right, bottom = box * scale - 0.5
    tall, wide = (bottom - top) / rows, (right - left) / columns
    down, across = (ratio or max(1, ceil(side.item())) for side in (tall, wide))
    cells = []
    for i, j in product(range(rows), range(columns)):
        places = product(range(down), range(across))
        values = [between(x, top + (i + (k + 0.5) / down) * tall, left + (j + (l + 0.5) / across) * wide) for k, l in places]
        cells.append(sum(values) / (down * across))
    return torch.stack(cells, -1).unflatten(-1, (rows, columns))


@pytest.mark.parametrize("ratio", [0, 2])
def test_aligned_regions_are_the_means_of_places_between_pixels(ratio):
    x, box = numbers(2, 2, 6, 7), boxes()
    naive = torch.stack([torch.stack([aligned(x[b], one, 3, 2, 0.25, ratio) for one in box[b]]) for b in range(2)])
    equal_with_gradients(roi_align(x, box, (3, 2), 0.25, ratio), naive, [x, box])


# torchvision 0.28.0, torchvision.ops.roi_align._roi_align(x, rois, 0.5, 2, 2, -1, True) in float64, of the test below
GOLDEN = [0.10414735, -0.22289637, -0.05150479, 0.25866626, 0.45305982, 0.3731626, -0.44299281, -0.33074921,
          -0.43342168, -0.34599589, 0.46255469, 0.28293731, -0.13883318, -0.2996974, 0.35334057, 0.49328547]  # fmt: skip


def test_aligned_regions_are_those_of_torchvision():
    x = (torch.arange(2 * 5 * 6, dtype=torch.float64) * 0.37).sin().reshape(1, 2, 5, 6)
    box = torch.tensor([[[1.0, 2.0, 9.0, 7.5], [-1.0, 4.0, 5.0, 10.0]]], dtype=torch.float64)
    expected = torch.tensor(GOLDEN, dtype=torch.float64).reshape(1, 2, 2, 2, 2)
    assert_close(roi_align(x, box, (2, 2), 0.5), expected, rtol=0, atol=1e-8)


def pooled(x: Tensor, box: Tensor, rows: int, columns: int, scale: float) -> Tensor:
    left, top, right, bottom = (floor(abs(v * scale) + 0.5) * (1 if v > 0 else -1) for v in box.tolist())
    tall, wide = max(bottom - top + 1, 1), max(right - left + 1, 1)
    cells = []
    for i, j in product(range(rows), range(columns)):
        down = range(max(0, top + i * tall // rows), min(x.shape[1], top - (-(i + 1) * tall // rows)))
        across = range(max(0, left + j * wide // columns), min(x.shape[2], left - (-(j + 1) * wide // columns)))
        values = [x[:, k, l] for k, l in product(down, across)]
        cells.append(torch.stack(values).amax(0) if values else 0 * x[:, 0, 0])
    return torch.stack(cells, -1).unflatten(-1, (rows, columns))


@pytest.mark.parametrize("scale", [0.25, 1.0])
def test_pooled_regions_are_the_maxima_of_whole_pixels(scale):
    x, box = numbers(2, 2, 11, 9), boxes()
    naive = torch.stack([torch.stack([pooled(x[b], one, 3, 2, scale) for one in box[b]]) for b in range(2)])
    equal_with_gradients(roi_pool(x, box, (3, 2), scale), naive, [x])


def test_pooled_regions_are_those_of_the_book():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    box = torch.tensor([[[0.0, 0.0, 20.0, 20.0], [0.0, 10.0, 30.0, 30.0]]])
    expected = torch.tensor([[[5.0, 6.0], [9.0, 10.0]], [[9.0, 11.0], [13.0, 15.0]]])
    assert torch.equal(roi_pool(x, box, (2, 2), 0.1)[0, :, 0], expected)  # D2L 13.8.2


def test_equal_values_have_together_the_gradient_of_one_maximum():
    x = torch.zeros(1, 1, 4, 4, requires_grad=True)
    (found,) = grad(roi_pool(x, torch.tensor([[[0.0, 0.0, 3.0, 3.0]]]), (1, 1)).sum(), x)
    assert found.sum() == 1


@pytest.mark.parametrize("pool", [roi_align, roi_pool])
def test_no_boxes_give_no_regions_and_half_precision_stays(pool):
    x = torch.rand(2, 3, 5, 5, dtype=torch.bfloat16)
    assert pool(x, torch.zeros(2, 0, 4), (2, 2)).shape == (2, 0, 3, 2, 2)
    box = torch.tensor([[0.0, 0.0, 4.0, 4.0]]).expand(2, 1, 4)
    near = pool(x, box, (2, 2))
    assert near.dtype == torch.bfloat16
    assert_close(near.float(), pool(x.float(), box, (2, 2)), rtol=0, atol=0.01)


@pytest.mark.parametrize("pool", [roi_align, roi_pool])
def test_what_does_not_fit_is_refused(pool):
    with pytest.raises(ValueError, match=r"output_size=\(0, 2\)"):
        pool(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4), (0, 2))


def test_a_negative_number_of_places_is_refused():
    with pytest.raises(ValueError, match="sampling_ratio=-1"):
        roi_align(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4), (2, 2), sampling_ratio=-1)


def test_a_pyramid_has_a_maximum_of_every_bin_and_as_many_for_images_of_every_size():
    x = numbers(2, 3, 5, 7)
    naive = []
    for level in (3, 1):
        cells = []
        for i, j in product(range(level), repeat=2):
            rows = slice(floor(i * 5 / level), ceil((i + 1) * 5 / level))
            columns = slice(floor(j * 7 / level), ceil((j + 1) * 7 / level))
            cells.append(x[:, :, rows, columns].amax((2, 3)))
        naive.append(torch.stack(cells, -1).flatten(1))
    equal_with_gradients(spatial_pyramid_pool(x, (3, 1)), torch.cat(naive, 1), [x])
    for size in ((40, 9), (4, 4)):
        assert spatial_pyramid_pool(torch.zeros(2, 3, *size)).shape == (2, 3 * (16 + 4 + 1))


def test_each_box_of_a_pyramid_is_aligned_in_its_own_map():
    maps = [numbers(2, 3, 8, 10), numbers(2, 3, 4, 5), numbers(2, 3, 2, 3)]
    box, level = boxes(), torch.tensor([[0, 1, 2], [2, 0, 1]])
    scales = [0.5, 0.25, 0.125]
    naive = torch.stack(
        [
            torch.stack([aligned(maps[l][b], box[b, n], 3, 2, scales[l], 2) for n, l in enumerate(row)])
            for b, row in enumerate(level.tolist())
        ]
    )
    equal_with_gradients(pyramid_align(maps, box, level, (3, 2), scales), naive, [*maps, box])

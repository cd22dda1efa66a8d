"""The spatial transformer: the grid, the sampler, and what it starts as."""

import math
from itertools import product

import pytest
import torch
from definitions import EXACT, equal_with_gradients, numbers
from torch import Tensor, nn
from torch.testing import assert_close

from thalweg.build import adapt, build, load, save
from thalweg.layers.spatial_transformer import SpatialTransformer, look_first
from thalweg.models.vision.lenet import lenet


def transformer(extent: int = 6, size: list[int] | None = None) -> SpatialTransformer:
    layer = SpatialTransformer(nn.Sequential(nn.Flatten(), nn.Linear(2 * extent * extent, 5), nn.Tanh()), 5, size)
    return layer.double()


def sampled(x: Tensor, affine: Tensor, size: tuple[int, int]) -> Tensor:
    """Every pixel of the output, from the four of the input around the place that it looks at."""
    height, width = x.shape[1:]
    pixels = []
    for i, j in product(*map(range, size)):
        u, v = (2 * j + 1) / size[1] - 1, (2 * i + 1) / size[0] - 1
        column, row = affine[:, 0] * u + affine[:, 1] * v + affine[:, 2]
        column = ((column + 1) * width / 2 - 0.5).clamp(0, width - 1)
        row = ((row + 1) * height / 2 - 0.5).clamp(0, height - 1)
        top, left = min(int(row), height - 2), min(int(column), width - 2)
        down, right = row - top, column - left
        upper = (1 - right) * x[:, top, left] + right * x[:, top, left + 1]
        lower = (1 - right) * x[:, top + 1, left] + right * x[:, top + 1, left + 1]
        pixels.append((1 - down) * upper + down * lower)
    return torch.stack(pixels, 1).unflatten(1, size)


@pytest.mark.parametrize("size", [None, [4, 5]])
def test_every_pixel_is_read_where_six_numbers_say(size):
    layer, x = transformer(size=size), numbers(2, 2, 6, 6)
    nn.init.normal_(layer.head.weight, std=0.5)
    affine = layer.affine(x)
    assert affine.shape == (2, 2, 3)
    naive = torch.stack([sampled(one, matrix, tuple(size or (6, 6))) for one, matrix in zip(x, affine, strict=True)])
    equal_with_gradients(layer(x), naive, [x, *layer.parameters()])


def test_the_head_has_six_outputs_and_at_first_the_image_passes_as_it_is():
    layer, x = transformer(), numbers(2, 2, 6, 6)
    assert layer.head.out_features == 6
    assert_close(layer(x), x, **EXACT)


def test_a_quarter_turn_turns_the_image():
    layer, x = transformer(), numbers(1, 2, 6, 6)
    angle = math.pi / 2
    with torch.no_grad():
        layer.head.bias.copy_(torch.tensor([math.cos(angle), -math.sin(angle), 0, math.sin(angle), math.cos(angle), 0]))
    assert_close(layer(x), x.rot90(1, (2, 3)), **EXACT)


def test_half_precision_does_not_blur_the_places():
    layer, x = transformer(16).float(), torch.rand(2, 2, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(layer(x), x, rtol=0, atol=1e-5)
    assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def test_several_transformers_learn_end_to_end():
    between, head = nn.Conv2d(2, 2, 3, padding=1), nn.Linear(72, 3)
    network = nn.Sequential(transformer(), between, transformer(), nn.Flatten(), head).double()
    network(numbers(4, 2, 6, 6)).square().sum().backward()
    for place in (0, 2):
        assert all(parameter.grad.abs().sum() > 0 for parameter in network[place].head.parameters())


def test_a_model_that_looks_first_is_saved_with_what_it_looks_through(tmp_path):
    model = adapt(build(lenet, image_size=8), look_first, in_channels=1, image_size=14, size=[8, 8], channels=[2, 3])
    nn.init.normal_(model.transformer.head.weight, std=0.1)
    image = torch.rand(3, 1, 14, 14)
    save(model, tmp_path)
    assert torch.equal(load(tmp_path)(image), model.eval()(image))
    assert model.transformer(image).shape == (3, 1, 8, 8)

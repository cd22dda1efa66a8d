"""The painter by its definition, on extents that do not halve, and as many parameters as stated."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, pad

from thalweg.build import unallocated
from thalweg.models.vision.painter import Painter, painter


def normalised(x, weight, layer, stride=1):
    """A convolution over the mirrored image, each channel of each image then with mean 0 and variance 1, scaled and moved."""
    reach = weight.shape[-1] // 2
    x = conv2d(pad(x, (reach,) * 4, mode="reflect"), weight, stride=stride)
    mean = x.mean((2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean((2, 3), keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * layer.weight[:, None, None] + layer.bias[:, None, None]


def enlarged(x, height, width):
    rows, columns = torch.arange(height) * x.shape[2] // height, torch.arange(width) * x.shape[3] // width
    return x[:, :, rows][:, :, :, columns]


def test_values_and_gradients_are_those_of_the_definition():
    torch.manual_seed(0)
    model = Painter(width=3, num_blocks=2).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    image = torch.rand(2, 3, 11, 14, dtype=torch.float64, requires_grad=True)
    first = normalised(image, model.stem[0].weight, model.stem[1]).relu()
    second = normalised(first, model.stages[0][0].weight, model.stages[0][1], 2).relu()
    x = normalised(second, model.stages[1][0].weight, model.stages[1][1], 2).relu()
    assert x.shape == (2, 12, 3, 4)
    for block in model.blocks:
        within = normalised(x, block.layers[0][0].weight, block.layers[0][1]).relu()
        x = x + normalised(within, block.layers[2][0].weight, block.layers[2][1])
    x = normalised(enlarged(x, 6, 7), model.up[0][0].weight, model.up[0][1]).relu()
    x = normalised(enlarged(x, 11, 14), model.up[1][0].weight, model.up[1][1]).relu()
    theirs = conv2d(pad(x, (4,) * 4, mode="reflect"), model.head.weight, model.head.bias)
    theirs = 1 / (1 + (-theirs).exp())
    ours, inputs = model(image), [image, *model.parameters()]
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(ours)
    for our, their in zip(
        torch.autograd.grad(ours, inputs, weights), torch.autograd.grad(theirs, inputs, weights), strict=True
    ):
        torch.testing.assert_close(our, their, rtol=1e-9, atol=1e-10)


def test_the_contrast_and_brightness_of_an_image_do_not_matter():
    model = Painter(width=4, num_blocks=1).double()
    image = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(model(image), model(0.4 * image + 0.2), rtol=0, atol=1e-3)  # but for the eps


@pytest.mark.parametrize(("arguments", "count"), [({}, 1_677_635), ({"width": 16}, 424_099)])
def test_parameters_are_as_many_as_stated(arguments, count):
    with unallocated():
        assert sum(parameter.numel() for parameter in painter(**arguments).parameters()) == count

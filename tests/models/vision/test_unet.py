"""U-Net by its definition, and what its skips promise."""

import pytest
import torch
from definitions import equal_with_gradients
from torch import nn
from torch.nn.functional import conv2d, max_pool2d, pad

from thalweg.build import unallocated
from thalweg.models.vision.unet import UNet, unet


def naive(model, image):
    """Down, and up again with what the same extent was on the way down."""

    def double(x, layers):
        for conv, norm in (layers[:2], layers[3:5]):
            x = conv2d(x, conv.weight, padding=1)
            mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
            x = ((x - mean) / (variance + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)
        return x

    def up(x, layer, like):
        """Each pixel becomes a block of 2x2; where the extent was odd, the last row knows the bias alone."""
        blocks = torch.einsum("bchw,couv->bohuwv", x, layer.weight).flatten(2, 3).flatten(3, 4)
        missing = (0, like.shape[3] - blocks.shape[3], 0, like.shape[2] - blocks.shape[2])
        return pad(blocks, missing) + layer.bias[:, None, None]

    down = [double(image, model.stages[0])]
    for stage in model.stages[1:]:
        down.append(double(max_pool2d(down[-1], 2), stage))
    x = down.pop()
    for number, (layer, merge) in enumerate(zip(model.up, model.merge, strict=True)):
        skip = down[-1 - number]
        x = up(x, layer, skip)
        x = double(torch.cat([skip, x], 1) if model.skips else x, merge)
    return torch.einsum("bchw,oc->bohw", x, model.head.weight[:, :, 0, 0]) + model.head.bias[:, None, None]


@pytest.mark.parametrize("skips", [True, False])
def test_values_and_gradients_are_those_of_the_definition(skips):
    model = UNet(2, 3, width=3, num_stages=2, skips=skips).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    image = torch.randn(2, 2, 11, 10, dtype=torch.float64, requires_grad=True)
    equal_with_gradients(model(image), naive(model, image), [image, *model.parameters()])


@pytest.mark.parametrize(
    ("arguments", "count"),
    [({"num_classes": 1}, 31_037_633), ({}, 31_037_698), ({"num_classes": 1, "width": 32}, 7_763_041)],
)
def test_parameters_are_as_many_as_public_implementations_count(arguments, count):
    with unallocated():
        assert sum(parameter.numel() for parameter in unet(**arguments).parameters()) == count


def test_without_skips_what_pooling_hides_is_lost():
    image = torch.rand(1, 1, 16, 16)
    other = image.clone()
    other[..., 5, 5] += 1e-3  # two images of the same maxima, for a first stage that changes nothing
    for skips in (True, False):
        model = UNet(1, 2, width=4, num_stages=2, skips=skips).eval()
        model.stages[0] = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False))
        nn.init.ones_(model.stages[0][0].weight)
        image[..., 4:6, 4:6] = torch.tensor([[0.9, 0.1], [0.2, 0.3]])
        other[..., 4:6, 4:6] = torch.tensor([[0.1, 0.3], [0.9, 0.2]])
        assert torch.equal(model(image), model(other)) is not skips

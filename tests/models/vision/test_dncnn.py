"""DnCNN by its definition, and as many parameters as the paper's network has."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from thalweg.build import unallocated
from thalweg.models.vision.dncnn import DnCNN, dncnn, dncnn_blind


def test_values_and_gradients_are_those_of_the_definition():
    model = DnCNN(num_layers=4, width=5, in_channels=2).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    image = torch.rand(3, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    x = conv2d(image, model.stem[0].weight, model.stem[0].bias, padding=1).clamp(min=0)
    for layer in model.stages:
        x = conv2d(x, layer[0].weight, padding=1)
        mean = x.mean((0, 2, 3), keepdim=True)
        variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
        x = (x - mean) / (variance + 1e-5).sqrt() * layer[1].weight[:, None, None] + layer[1].bias[:, None, None]
        x = x.clamp(min=0)
    theirs = image - conv2d(x, model.head.weight, model.head.bias, padding=1)
    ours, inputs = model(image), [image, *model.parameters()]
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(ours)
    for our, their in zip(
        torch.autograd.grad(ours, inputs, weights), torch.autograd.grad(theirs, inputs, weights), strict=True
    ):
        torch.testing.assert_close(our, their, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("builder", "channels", "count"),
    [(dncnn, 1, 556_097), (dncnn, 3, 558_403), (dncnn_blind, 1, 667_073), (dncnn_blind, 3, 669_379)],
)
def test_parameters_are_as_many_as_stated(builder, channels, count):
    with unallocated():
        assert sum(parameter.numel() for parameter in builder(in_channels=channels).parameters()) == count


def test_a_network_has_a_first_and_a_last_layer():
    with pytest.raises(ValueError, match="num_layers=1: expected at least 2"):
        DnCNN(1)

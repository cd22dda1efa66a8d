"""PSPNet by its definition, and that a place sees the whole scene."""

import torch
from definitions import equal_with_gradients
from torch import nn
from torch.nn.functional import conv2d

from thalweg.models.vision.pspnet import PSPNet, pspnet
from thalweg.models.vision.resnet import ResNet


def bilinear(x, height, width):
    """Every pixel from the four nearest, whose centres are at whole numbers plus a half."""
    old_height, old_width = x.shape[2:]
    rows = []
    for i in range(height):
        row = []
        for j in range(width):
            y = min(max((i + 0.5) * old_height / height - 0.5, 0), old_height - 1)
            z = min(max((j + 0.5) * old_width / width - 0.5, 0), old_width - 1)
            top, left = int(y), int(z)
            bottom, right = min(top + 1, old_height - 1), min(left + 1, old_width - 1)
            above = (1 - z + left) * x[:, :, top, left] + (z - left) * x[:, :, top, right]
            below = (1 - z + left) * x[:, :, bottom, left] + (z - left) * x[:, :, bottom, right]
            row.append((1 - y + top) * above + (y - top) * below)
        rows.append(torch.stack(row, -1))
    return torch.stack(rows, -2)


def naive(model, image):
    def conv(x, layers):
        x = conv2d(x, layers[0].weight, padding=layers[0].padding)
        return (x / (1 + 1e-5) ** 0.5 * layers[1].weight[:, None, None] + layers[1].bias[:, None, None]).clamp(min=0)

    x = model.backbone.features(image)[-1]
    height, width = x.shape[2:]
    parts = [x]
    for bins, level in zip(model.pyramid.bins, model.pyramid.levels, strict=True):
        cells = [
            [
                x[:, :, i * height // bins : -(-(i + 1) * height // bins), j * width // bins : -(-(j + 1) * width // bins)]
                for j in range(bins)
            ]
            for i in range(bins)
        ]
        means = torch.stack([torch.stack([cell.mean((2, 3)) for cell in row], -1) for row in cells], -2)
        parts.append(bilinear(conv(means, level), height, width))
    return bilinear(conv2d(conv(torch.cat(parts, 1), model.merge[0]), model.head.weight, model.head.bias), *image.shape[2:])


def test_values_and_gradients_are_those_of_the_definition():
    model = PSPNet(ResNet((1, 1), width=4, stem="small"), 3, bins=(1, 2, 3), hidden_dim=5).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    image = torch.randn(2, 3, 9, 7, dtype=torch.float64, requires_grad=True)
    equal_with_gradients(model(image), naive(model, image), [image, *model.parameters()])


def test_every_place_sees_the_whole_image():
    torch.manual_seed(1)
    model = pspnet("resnet9", 3, hidden_dim=8, width=4).eval()
    image = torch.rand(1, 3, 160, 160, requires_grad=True)
    model(image)[0, :, 0, 0].square().sum().backward()
    assert (image.grad[0, :, -40:, -40:] != 0).any()

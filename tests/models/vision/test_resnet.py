"""ResNet by its definition, and what its parts promise."""

import jaxtyping
import pytest
import torch
from torch import nn

from thalweg.build import unallocated
from thalweg.models.vision.resnet import Block, ResNet, resnet9, resnet18, resnet34, resnet50


def convolution(x, layer):
    """y[o, i, j] = sum over c, u, v of weight[o, c, u, v] x[c, i s + u, j s + v], x padded with zeros."""
    weight, stride, size = layer.weight, layer.stride[0], layer.weight.shape[-1]
    x = nn.functional.pad(x, (size // 2,) * 4)
    rows = range(0, x.shape[2] - size + 1, stride)
    places = [[x[:, :, i : i + size, j : j + size] for j in range(0, x.shape[3] - size + 1, stride)] for i in rows]
    return torch.stack([torch.stack([torch.einsum("bcuv,ocuv->bo", p, weight) for p in row], -1) for row in places], -2)


def normalisation(x, layer):
    """Over the batch, as in training: (x - mean) / sqrt(variance + eps) * weight + bias, a channel."""
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * layer.weight[:, None, None] + layer.bias[:, None, None]


def pooling(x):
    x = nn.functional.pad(x, (1, 1, 1, 1), value=float("-inf"))
    places = [
        [x[:, :, i : i + 3, j : j + 3].amax((2, 3)) for j in range(0, x.shape[3] - 2, 2)] for i in range(0, x.shape[2] - 2, 2)
    ]
    return torch.stack([torch.stack(row, -1) for row in places], -2)


def naive(model, image):
    """y = relu(shortcut(x) + branch(x)) block by block; the stage's first block changes the shape."""

    def conv(x, layer):
        return normalisation(convolution(x, layer[0]), layer[1])

    x = conv(image, model.stem[0]).clamp(min=0)
    x = pooling(x) if len(model.stem) == 3 else x
    for stage in model.stages:
        for block in stage:
            branch = x
            for number, layer in enumerate(block.layers):
                branch = conv(branch.clamp(min=0) if number else branch, layer)
            shortcut = x if isinstance(block.shortcut, nn.Identity) else conv(x, block.shortcut)
            x = (shortcut + branch).clamp(min=0)
    return x.mean((2, 3)) @ model.head.weight.T + model.head.bias


@pytest.mark.parametrize(
    ("arguments", "extent"),
    [
        ({"depths": (2, 1), "stem": "small"}, 6),
        ({"depths": (1, 2), "stem": "large"}, 17),
        ({"depths": (1, 2), "stem": "medium"}, 9),
        ({"depths": (2, 1), "stem": "small", "bottleneck": True}, 6),
    ],
)
def test_values_and_gradients_are_those_of_the_definition(arguments, extent):
    model = ResNet(in_channels=2, num_classes=3, width=4, **arguments).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    image = torch.randn(3, 2, extent, extent, dtype=torch.float64, requires_grad=True)
    inputs = [image, *model.parameters()]
    ours, theirs = model(image), naive(model, image)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(ours)
    gradients = zip(torch.autograd.grad(ours, inputs, weights), torch.autograd.grad(theirs, inputs, weights), strict=True)
    for our, their in gradients:
        torch.testing.assert_close(our, their, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("builder", "count"), [(resnet18, 11_689_512), (resnet34, 21_797_672), (resnet50, 25_557_032)])
def test_parameters_are_as_many_as_published(builder, count):
    with unallocated():
        assert sum(parameter.numel() for parameter in builder().parameters()) == count


def test_resnet50_has_the_extents_of_the_paper():
    with unallocated():
        model, image = resnet50().eval(), torch.empty(1, 3, 224, 224)
        assert model.stem[0](image).shape == (1, 64, 112, 112)
        assert [tuple(m.shape[1:]) for m in model.features(image)] == [
            (256, 56, 56),
            (512, 28, 28),
            (1024, 14, 14),
            (2048, 7, 7),
        ]
        assert model(image).shape == (1, 1000)


@pytest.mark.parametrize(("stem", "extents"), [("small", [32, 16, 8, 4]), ("medium", [16, 8, 4, 2]), ("large", [8, 4, 2, 1])])
def test_a_stem_keeps_the_extent_or_halves_it_once_or_twice(stem, extents):
    model = resnet9(num_classes=10, width=8, stem=stem)
    assert [m.shape[-1] for m in model.features(torch.rand(2, 3, 32, 32))] == extents


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_block_starts_as_its_shortcut(bottleneck):
    block = Block(16, 4 if bottleneck else 16, 1, bottleneck)
    x = torch.randn(2, 16, 5, 5)
    assert torch.equal(block(x), x.clamp(min=0))


def test_an_unknown_stem_is_named(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would speak first
    with pytest.raises(ValueError, match="stem='tiny': expected large, medium or small"):
        resnet18(stem="tiny")

"""Airbench: whitening against its definition, the network against its formula, and that digits are learned in few steps."""

import math

import pytest
import torch
from torch import nn

from thalweg.build import adapt, build
from thalweg.data.sources import digits
from thalweg.data.streams import TensorStream
from thalweg.layers.standardize import moments, standardize
from thalweg.models.vision.airbench import Airbench, whitening
from thalweg.tasks.classification import Classification
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import sgd
from thalweg.training.schedules import linear, warmup


def blotches(count):  # neighbouring pixels are alike, as in photographs
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return (nn.functional.interpolate(coarse, (10, 10), mode="bilinear") * 255).to(torch.uint8)


def test_what_the_first_layer_gives_is_white():
    image = blotches(400)
    filters = torch.tensor(whitening(image, eps=0.0), dtype=torch.float64)
    assert torch.equal(filters[12:], -filters[:12])
    pixels = image.double() / 255
    pixels = (pixels - pixels.mean((0, 2, 3), keepdim=True)) / pixels.std((0, 2, 3), keepdim=True, correction=0)
    total, count = torch.zeros(12, 12, dtype=torch.float64), 0
    for row in range(9):
        for column in range(9):
            seen = torch.einsum("bcij,fcij->bf", pixels[:, :, row : row + 2, column : column + 2], filters[:12])
            total, count = total + seen.T @ seen, count + len(seen)
    torch.testing.assert_close(total / count, torch.eye(12, dtype=torch.float64), atol=1e-3, rtol=0)


def test_a_direction_without_variance_is_not_blown_up():
    image = blotches(50).float().mean(1, keepdim=True).to(torch.uint8).expand(-1, 3, -1, -1).contiguous()  # grey
    assert torch.tensor(whitening(image)).isfinite().all()
    assert torch.tensor(whitening(image)).flatten(1).norm(dim=1).max() < 1 / math.sqrt(5e-4) + 1e-3


def test_values_are_those_of_the_definition():
    torch.manual_seed(0)
    model = Airbench(torch.randn(4, 1, 2, 2).tolist(), num_classes=3, widths=(6, 8, 8)).double()
    image = torch.randn(5, 1, 32, 32, dtype=torch.float64)

    def gelu(x):
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))

    def normal(x, norm):
        x = x - x.mean((0, 2, 3), keepdim=True)
        return x / (x.square().mean((0, 2, 3), keepdim=True) + norm.eps).sqrt() + norm.bias[:, None, None]

    x = gelu(nn.functional.conv2d(image, model.stem.weight, model.stem.bias))
    assert x.shape[2:] == (31, 31)
    for block, extent in zip(model.stages, (15, 7, 3), strict=True):
        (first, second), (before, after) = block.layers, block.norms
        x = nn.functional.conv2d(x, first.weight, padding=1)
        x = x[:, :, : 2 * extent, : 2 * extent].unflatten(3, (extent, 2)).unflatten(2, (extent, 2)).amax((3, 5))
        x = gelu(normal(x, before))
        x = gelu(normal(nn.functional.conv2d(x, second.weight, padding=1), after))
    torch.testing.assert_close(model(image), x.flatten(2).amax(2) @ model.head.weight.T / 9, atol=1e-10, rtol=0)


def test_convolutions_begin_by_handing_on_and_the_first_filters_are_not_learned():
    filters = torch.randn(24, 3, 2, 2).tolist()
    model = Airbench(filters)
    x = torch.randn(1, 24, 5, 5)
    torch.testing.assert_close(model.stages[0].layers[0](x)[:, :24], x)
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    torch.testing.assert_close(model.stem.weight.tolist(), filters)
    assert model.stem.weight.grad is None
    assert model.stem.bias.grad is not None
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 1_972_792 - 288 - 2 * 1152 + 1152


@pytest.mark.parametrize("bias_scale", [1.0, 64.0])
def test_vectors_may_learn_faster_than_matrices(bias_scale):
    layer = nn.Linear(3, 2)
    before = [p.detach().clone() for p in (layer.weight, layer.bias)]
    optimizer = sgd(0.1, weight_decay=0.5, bias_scale=bias_scale)(layer)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    torch.testing.assert_close(layer.weight, before[0] - 0.1 * (1 + 0.5 * before[0]))
    torch.testing.assert_close(layer.bias, before[1] - 0.1 * bias_scale)


def test_a_negative_factor_is_refused():
    with pytest.raises(ValueError, match=r"bias_scale=-1.*at least 0"):
        sgd(0.1, bias_scale=-1)


def test_it_learns_digits_in_forty_steps():
    splits = digits()
    image = nn.functional.interpolate(splits.train["image"].float(), (32, 32), mode="bilinear").round().to(torch.uint8)
    model = build(Airbench, filters=whitening(image), widths=[16, 32, 32])
    task = build(Classification, model=adapt(model, standardize, **moments(image), size=[32, 32]), classes=splits.classes)
    made = Experiment(task=task, train=TensorStream(splits.train, 128, shuffle=True), steps=40,
                      optimizer=sgd(0.5, momentum=0.85, nesterov=True, weight_decay=1e-3, bias_scale=8),
                      schedule=warmup(0.23, linear(0.07), start=0.2))  # fmt: skip
    training = Training(made, device="cpu")
    for _ in training:
        pass
    assert dict(evaluate(training, TensorStream(splits.test, 360)))["accuracy"] > 0.9

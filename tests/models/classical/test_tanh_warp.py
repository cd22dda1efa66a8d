"""The network of the plane: its formula, and that it unwinds two spirals."""

import pytest
import torch
from definitions import equal_with_gradients, numbers

from thalweg.build import build
from thalweg.data.planes import ARMS, spirals
from thalweg.data.streams import TensorStream
from thalweg.models.classical.tanh_warp import tanh_warp
from thalweg.tasks.warping import Warping
from thalweg.training import Experiment, Training
from thalweg.training.optimisers import sgd
from thalweg.training.schedules import cosine


def test_it_is_eight_matrices_with_tanh_and_a_line():
    model = tanh_warp().double()
    points = numbers(3, 2)
    rows = []
    for point in points:
        x = point
        for number in range(8):
            (a, b), (c, d) = model.blocks[number][0].weight
            x = torch.stack([torch.tanh(a * x[0] + b * x[1]), torch.tanh(c * x[0] + d * x[1])])
        rows.append(
            torch.stack([(weight * x).sum() + bias for weight, bias in zip(model.head.weight, model.head.bias, strict=True)])
        )
    equal_with_gradients(model(points), torch.stack(rows), [points, *model.parameters()])
    assert sum(parameter.numel() for parameter in model.parameters()) == 8 * 4 + 6


def test_the_planes_are_the_points_before_the_first_layer_and_after_each():
    model, points = tanh_warp(3), torch.randn(5, 2)
    planes = model.planes(points)
    assert len(planes) == 4
    assert torch.equal(planes[0], points)
    assert torch.equal(planes[2], torch.tanh(torch.tanh(points @ model.blocks[0][0].weight.T) @ model.blocks[1][0].weight.T))
    assert torch.equal(model(points), model.head(planes[-1]))


def parted_by_a_line(points, label):
    """Share of the points on their side of the best line by least squares."""
    sides = 2.0 * label - 1
    x = torch.cat([points, torch.ones(len(points), 1)], 1)
    return float(((x @ torch.linalg.lstsq(x, sides[:, None]).solution)[:, 0].sign() == sides).float().mean())


def test_no_line_parts_the_spirals_until_eight_layers_have_unwound_them():
    points = spirals(400)
    task = build(Warping, model=build(tanh_warp), classes=ARMS)
    train = TensorStream(points, 100, shuffle=True)
    training = Training(Experiment(task=task, train=train, steps=1500, optimizer=sgd(0.03, momentum=0.9), schedule=cosine()),
                        device="cpu")  # fmt: skip
    for _ in training:
        pass
    assert parted_by_a_line(points["features"], points["label"]) < 0.95
    with torch.no_grad():
        task.evaluate(points)
        assert task.metrics["accuracy"].compute() == 1
    (figure,) = task.figures(points).values()
    assert len(figure.axes) == 9
    lines = [len(axis.lines) for axis in figure.axes]
    assert lines == [*lines[:1] * 8, lines[0] + 1]  # the last has the line that parts them
    found = task.predict({"features": points["features"][:1]})
    assert found["label"][0][0] == ARMS[points["label"][0]]
    torch.testing.assert_close(found["probability"].sum(), torch.tensor(1.0))


def test_spirals_are_one_another_turned_by_half_a_circle():
    points = spirals(4000, noise=0.0)
    features, label = points["features"], points["label"]
    assert label.tolist() == [0, 1] * 2000
    radius = features.norm(dim=1)
    assert 0.25 <= radius.min() < 0.3
    assert 0.97 < radius.max() <= 1.0 + 1e-6
    share = (radius - 0.25) / 0.75
    expected = 1.3 * torch.pi * share + torch.pi * label
    torch.testing.assert_close(features, radius[:, None] * torch.stack([expected.cos(), expected.sin()], 1))
    assert not torch.equal(spirals(10, 0)["features"], spirals(10, 1)["features"])
    noise = spirals(4000, noise=0.1)["features"] - features
    assert 0.09 < noise.std() < 0.11
    with pytest.raises(ValueError, match=r"count=1: expected at least 2"):
        spirals(1)

"""The zip-code network of 1989 as the paper counts and describes it."""

import pytest
import torch
from torch import nn

from thalweg.build import adapt, build
from thalweg.data.sources import digits
from thalweg.data.streams import TensorStream
from thalweg.layers.standardize import standardize
from thalweg.models.vision.lenet import lenet1989
from thalweg.tasks.classification import Classification
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import linear, warmup


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_units_connections_and_parameters_are_those_of_the_paper():
    model = lenet1989()
    layers = [*model.stages, model.dense, model.head]
    assert [count(layer) for layer in layers] == [1068, 2592, 5790, 310]
    assert count(model) == 9760
    units = [16 * 16, *(stage[0].bias.numel() for stage in model.stages), 30, 10]
    assert sum(units) == 1256
    inputs = [*(stage[0].weight[0].numel() + 1 for stage in model.stages), 192 + 1, 30 + 1]
    assert [unit * seen for unit, seen in zip(units[1:], inputs, strict=True)] == [19_968, 38_592, 5_790, 310]
    assert sum(unit * seen for unit, seen in zip(units[1:], inputs, strict=True)) == 64_660


def test_every_filter_of_the_second_stage_sees_eight_maps_and_every_map_is_seen_by_eight():
    seen = torch.tensor(lenet1989().stages[1][0].seen).view(12, 8)
    assert all(len(set(row)) == 8 for row in seen.tolist())
    assert torch.equal(seen.flatten().bincount(), torch.full((12,), 8))
    assert len({frozenset(row) for row in seen.tolist()}) == 12


def naive(model, image):
    """Unit by unit: a window around every other pixel, -1 outside, a bias of the unit's own, 1.7159 tanh(2 a / 3)."""

    def stage(maps, layer):
        padded, seen = nn.functional.pad(maps, (2, 2, 2, 2), value=-1), torch.tensor(layer.seen).view(12, -1)
        units = []
        for number, row, column in torch.cartesian_prod(*map(torch.arange, layer.bias.shape)).tolist():
            window = padded[seen[number], 2 * row : 2 * row + 5, 2 * column : 2 * column + 5]
            units.append((layer.weight[number] * window).sum() + layer.bias[number, row, column])
        return 1.7159 * torch.tanh(2 * torch.stack(units).view_as(layer.bias) / 3)

    x = stage(stage(image, model.stages[0][0]), model.stages[1][0]).flatten()
    x = 1.7159 * torch.tanh(2 * (model.dense[0].weight @ x + model.dense[0].bias) / 3)
    return model.head.weight @ x + model.head.bias


def test_values_and_gradients_are_those_of_the_definition():
    model = lenet1989().double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    image = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    ours, theirs = model(image)[0], naive(model, image[0])
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    weights, parameters = torch.randn_like(ours), list(model.parameters())
    ours, theirs = (torch.autograd.grad(value, parameters, weights) for value in (ours, theirs))
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-10, atol=1e-10)


def test_weights_start_where_the_paper_says_and_biases_at_zero():
    for layer, fan_in in zip((stage[0] for stage in lenet1989().stages), (25, 200), strict=True):
        bound = 2.4 / fan_in**0.5
        assert 0.95 * bound < layer.weight.abs().max() <= bound
        assert not layer.bias.any()


def test_other_images_are_refused():
    with pytest.raises(ValueError, match=r"image: \(1, 28, 28\), expected \(1, 16, 16\)"):
        lenet1989()(torch.zeros(1, 1, 28, 28))


def test_it_learns_digits():
    splits = digits()
    model = adapt(build(lenet1989), standardize, mean=[0.5], deviation=[0.5], size=[16, 16])
    task = build(Classification, model=model, classes=splits.classes)
    train = TensorStream(splits.train, 32, shuffle=True)
    made = Experiment(task=task, train=train, epochs=3, optimizer=adamw(5e-3), schedule=warmup(0.1, linear()))
    training = Training(made, device="cpu")
    for _ in training:
        pass
    assert dict(evaluate(training, TensorStream(splits.test, 500)))["accuracy"] > 0.85

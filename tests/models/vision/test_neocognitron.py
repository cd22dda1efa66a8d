"""The neocognitron: its cells are the formulas of 1980, only winners learn, and what it has learned may lie elsewhere."""

import pytest
import torch
from definitions import equal_with_gradients
from torch import nn
from torch.nn.functional import pad

from thalweg.build import adapt, build
from thalweg.data.sources import digits
from thalweg.data.streams import TensorStream
from thalweg.layers.standardize import standardize
from thalweg.models.vision.neocognitron import CCells, Neocognitron, SCells, neocognitron
from thalweg.tasks.self_organisation import SelfOrganisation
from thalweg.training import Experiment, Training
from thalweg.training.optimisers import adamw, sgd


def cells(in_channels=2, planes=3, selectivity=1.5):
    layer = SCells(in_channels, planes, 3, selectivity).double()
    nn.init.uniform_(layer.weight)
    nn.init.uniform_(layer.inhibition, 6.0, 16.0)
    return layer


def seen(x, row, column):
    return pad(x, (1, 1, 1, 1))[:, row : row + 3, column : column + 3]


def test_an_s_cell_is_its_formula():
    layer = cells()
    x = torch.rand(1, 2, 3, 4, dtype=torch.float64).requires_grad_()
    r, c = layer.selectivity, layer.window[0]
    assert abs(float(c.detach().sum()) - 1) < 1e-6
    rows = []
    for a, b in zip(layer.weight, layer.inhibition, strict=True):
        for row, column in torch.cartesian_prod(torch.arange(3), torch.arange(4)).tolist():
            part = seen(x[0], row, column)
            v = (c * part**2).sum().sqrt()
            rows.append(r * ((1 + (a * part).sum()) / (1 + r / (1 + r) * b * v) - 1).clamp(min=0))
    ours = layer(x)
    assert 0.2 < (ours > 0).double().mean() < 1
    equal_with_gradients(ours.flatten(), torch.stack(rows), [x, *layer.parameters()])


def test_a_c_cell_is_its_formula():
    layer = CCells(3, 2).double()
    u = torch.rand(1, 3, 5, 4, dtype=torch.float64).requires_grad_()
    d = layer.window[0]
    blurred = [[[(d * seen(plane[None], row, column)).sum() for column in (0, 2)] for row in (0, 2, 4)] for plane in u[0]]
    blurred = torch.stack([torch.stack([torch.stack(row) for row in plane]) for plane in blurred])
    s = ((1 + blurred) / (1 + blurred.mean(0)) - 1).clamp(min=0)
    equal_with_gradients(layer(u)[0], s / (s + 0.5), [u])


def test_the_weights_of_an_area_fall_from_its_middle():
    window = CCells(5, 1).window[0, 0]
    assert window[2, 2] == 1
    assert (window.diff(dim=0)[:2] > 0).all()
    assert torch.equal(window, window.flip(0))
    assert torch.equal(window, window.T)


def test_a_cell_answers_one_to_what_it_has_learned_and_nothing_to_what_differs_enough():
    layer, r = SCells(1, 1, 3, 4.0).double(), 4.0
    pattern = torch.tensor([[0.0, 1, 0], [0, 1, 0], [0, 1, 0]], dtype=torch.float64)
    image = pattern[None, None]
    strength = layer.strength(image)[0, 0, 1, 1]
    with torch.no_grad():  # a reinforcement, as strong as can be
        layer.weight.copy_(1e9 * layer.window * image)
        layer.inhibition.copy_(1e9 * strength[None])
    torch.testing.assert_close(layer(image)[0, 0, 1, 1].item(), 1.0, rtol=1e-6, atol=0)
    torch.testing.assert_close(layer(3 * image)[0, 0, 1, 1].item(), 1.0, rtol=1e-6, atol=0)  # however bright it is
    other = image.rot90(1, (2, 3))
    c = layer.window
    similarity = (c * image * other).sum() / ((c * image**2).sum() * (c * other**2).sum()).sqrt()
    assert similarity < r / (1 + r)
    assert layer(other)[0, 0, 1, 1] == 0


def test_the_slope_of_agreement_is_the_reinforcement_of_winners():
    """Per plane the cell that answers most, of those that answer most of all planes nearby; q c x and q v."""
    layer, x = cells(), torch.rand(2, 2, 7, 6, dtype=torch.float64)
    answer = layer(x, layer.sharper).detach()
    expected, fatigue = torch.zeros_like(layer.weight), torch.zeros_like(layer.inhibition)
    places = torch.cartesian_prod(torch.arange(2), torch.arange(7), torch.arange(6)).tolist()
    learned = 0
    for plane in range(3):
        best, winner = 0.0, None
        for image, row, column in places:
            near = answer[image, :, max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
            value = float(answer[image, plane, row, column])
            if value == near.max() and value > best:
                best, winner = value, (image, row, column)
        if winner:
            part = seen(x[winner[0]], *winner[1:])
            expected[plane] = layer.window[0] * part
            fatigue[plane] = (layer.window[0] * part**2).sum().sqrt()
            learned += 1
    assert learned
    layer.agreement(x).backward()
    torch.testing.assert_close(layer.weight.grad, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(layer.inhibition.grad, fatigue, rtol=0, atol=1e-10)


def test_nobody_wins_where_there_is_nothing_to_see():
    layer = cells()
    layer.agreement(torch.zeros(1, 2, 6, 6, dtype=torch.float64)).backward()
    assert not layer.weight.grad.any()
    assert not layer.inhibition.grad.any()


def test_lists_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match=r"planes=\[4, 4\], kernel_size=\[3\].*: expected one each a stage"):
        Neocognitron(planes=[4, 4], kernel_size=[3], selectivity=[1.0, 1.0])


def test_what_is_shifted_is_answered_alike():
    """By the halving of the first stage, two pixels are one place; digits are far enough from the border."""
    model = neocognitron(planes=[4, 6, 8]).double().eval()
    for layer in (stage[0] for stage in model.stages):
        nn.init.uniform_(layer.weight)
        nn.init.constant_(layer.inhibition, 1.0)
    image = pad(torch.rand(1, 1, 6, 6, dtype=torch.float64), (17,) * 4)
    assert (model(image) - model(torch.zeros_like(image))).abs().max() > 1e-3
    torch.testing.assert_close(model(image.roll((4, -2), (2, 3))), model(image), rtol=1e-10, atol=1e-10)


def on_a_field(image, down, right):
    """An image of 8x8 somewhere on 16x16."""
    return pad(image, (4, 4, 4, 4)).roll((down, right), (2, 3))


def test_it_recognises_digits_at_places_where_it_has_seen_none():
    splits = digits()
    known = {**splits.train, "image": on_a_field(splits.train["image"], 0, 0)}
    model = adapt(build(neocognitron), standardize, mean=[0.0], deviation=[1.0], size=[16, 16])
    task = build(SelfOrganisation, model=model, classes=splits.classes)
    training = Training(
        Experiment(task=task, train=TensorStream(known, 12, shuffle=True), steps=120,
                   optimizer={"model.model.stages": sgd(16.0), "model.model.head": adamw(0.05)}),
        device="cpu",
        precision="fp32",
    )  # fmt: skip
    for _ in training:
        pass
    image, label = splits.test["image"][:150], splits.test["label"][:150]
    task.eval()
    with torch.no_grad():
        task.evaluate({"image": on_a_field(image, 1, 1), "label": label})
    drawn = task.figures({"image": on_a_field(image, 1, 1), "label": label})
    assert {f"{kind}-cells of stage {number}" for kind in "SC" for number in (1, 2, 3)} <= set(drawn)
    for down, right in ((2, -1), (-3, 3)):
        moved = on_a_field(image, down, right)
        distance = torch.cdist(moved.flatten(1).float(), known["image"].flatten(1).float())
        by_pixels = (known["label"][distance.argmin(1)] == label).float().mean()
        with torch.no_grad():
            by_cells = (task.model(moved).argmax(1) == label).float().mean()
        assert by_pixels < 0.25
        assert by_cells > 0.45

"""BYOL: the loss against its formula, who gets a gradient, how the target follows, digits; and what collapses."""

import pytest
import torch
from torch import nn

from thalweg.adaptation.heads import without_head
from thalweg.build import adapt, build, load, save
from thalweg.data.augmentation import resized_crop, rotate
from thalweg.data.sources import digits
from thalweg.data.views import two_views
from thalweg.layers.standardize import moments, standardize
from thalweg.models.vision.resnet import ResNet
from thalweg.tasks.self_supervised import BYOL
from thalweg.training import Experiment, Training
from thalweg.training.loop import evaluate
from thalweg.training.optimisers import adamw


@pytest.fixture
def task():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Tanh())
    task = BYOL(encoder, feature_dim=4, projection_dim=3, hidden_dim=5, decay=0.9).double()
    for parameter in task.target.parameters():  # so that target and online differ
        parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return task


@pytest.fixture
def batch():
    return {name: torch.randn(5, 1, 2, 3, dtype=torch.float64) for name in ("image", "other_view")}


def online(task):
    return [*task.encoder.parameters(), *task.projector.parameters()]


def test_the_loss_and_its_gradient_are_those_of_the_paper_with_the_target_held_fixed(task, batch):
    player, total, count = next(task.losses(batch))
    total.backward()
    views = torch.cat([batch["image"], batch["other_view"]])
    foretold = task.predictor(task.projector(task.encoder(views)))
    constant = task.target(views).detach()
    expected = torch.zeros((), dtype=torch.float64)
    for row in range(5):
        for here, there in ((row, 5 + row), (5 + row, row)):
            q, z = foretold[here], constant[there]
            expected = expected + ((q / (q @ q).sqrt() - z / (z @ z).sqrt()) ** 2).sum()
    learning = [*online(task), *task.predictor.parameters()]
    assert player is task
    assert count == 5
    assert abs(total.item() - expected.item()) < 1e-10
    for parameter, wanted in zip(learning, torch.autograd.grad(expected, learning), strict=True):
        torch.testing.assert_close(parameter.grad, wanted, rtol=0, atol=1e-10)


def test_no_gradient_reaches_the_target(task, batch):
    next(task.losses(batch))[1].backward()
    assert all(not p.requires_grad and p.grad is None for p in task.target.parameters())
    assert all(p.grad is not None for name, p in task.named_parameters() if not name.startswith("target"))


def test_the_target_follows_after_the_step_and_not_before(task, batch):
    before = [p.clone() for p in task.target.parameters()]
    players = task.losses(batch)
    next(players)
    assert all(torch.equal(p, b) for p, b in zip(task.target.parameters(), before, strict=True))
    with torch.no_grad():  # the step at the yield
        for parameter in task.parameters():
            parameter.add_(1.0) if parameter.requires_grad else None
    assert next(players, None) is None
    for found, old, now in zip(task.target.parameters(), before, online(task), strict=True):
        torch.testing.assert_close(found, 0.9 * old + 0.1 * now, rtol=0, atol=1e-12)


def test_the_target_starts_as_a_copy_of_its_own():
    task = BYOL(nn.Sequential(nn.Flatten(), nn.Linear(6, 4)), feature_dim=4)
    for followed, following in zip(online(task), task.target.parameters(), strict=True):
        assert torch.equal(followed, following)
        assert followed is not following


def test_a_decay_outside_the_unit_interval_is_refused():
    with pytest.raises(ValueError, match=r"decay=1\.5: expected a number in \[0, 1\]"):
        BYOL(nn.Flatten(), feature_dim=4, decay=1.5)


def small(splits, decay=0.98):
    encoder = adapt(build(ResNet, depths=[1, 1], in_channels=1, width=32, stem="small"), without_head)
    encoder = adapt(encoder, standardize, **moments(splits.train["image"]), size=[8, 8])
    return build(BYOL, encoder=encoder, feature_dim=64, classes=splits.classes, projection_dim=32, hidden_dim=128, decay=decay)


def learn(task, splits, steps):
    """The metrics before and after."""
    streams = splits.streams(128, augment=[two_views(rotate(15), resized_crop(0.5))])
    experiment = Experiment(task=task, train=streams.train, valid=streams.valid, steps=steps,
                            optimizer=adamw(3e-3, weight_decay=1e-4))  # fmt: skip
    training = Training(experiment, precision="fp32")
    before = {name: float(value) for name, value in evaluate(training, streams.test)}
    for _ in training:
        pass
    return before, {name: float(value) for name, value in evaluate(training, streams.test)}


def test_digits_are_told_apart_better_than_before_without_any_label(tmp_path):
    splits = digits()
    task = small(splits)
    before, after = learn(task, splits, 100)
    assert after["linear_probe"] > before["linear_probe"] + 0.05
    assert after["nearest_neighbours"] > before["nearest_neighbours"] + 0.05
    assert after["spread"] > 0.6
    drawn = task.eval().figures({"image": splits.test["image"][:100], "label": splits.test["label"][:100]})
    assert {name: len(figure.axes) for name, figure in drawn.items()} == {"map of the features": 1, "nearest neighbours": 64}
    save(task, tmp_path)
    image = {"image": splits.test["image"][:3]}
    torch.testing.assert_close(load(tmp_path).predict(image)["features"], task.predict(image)["features"])


def test_without_predictor_and_slow_target_all_images_collapse_into_one_vector():
    splits = digits()
    task = small(splits, decay=0.0)
    task.predictor = nn.Identity()
    _, after = learn(task, splits, 40)
    assert after["spread"] < 0.3

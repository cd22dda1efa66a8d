"""Adversarial learning: both losses against their formulas, who learns when, samples of digits."""

import math

import pytest
import torch
from torch import nn

from thalweg.build import adapt, build, load, save
from thalweg.data.sources import digits
from thalweg.layers.standardize import standardize
from thalweg.models.generative.dcgan import dcgan_discriminator, dcgan_generator
from thalweg.tasks.adversarial import Adversarial, slerp
from thalweg.training import Experiment, Training
from thalweg.training.loop import evaluate
from thalweg.training.optimisers import adam


class Painter(nn.Module):
    """A generator in one layer."""

    def __init__(self):
        super().__init__()
        self.latent_dim = 3
        self.paint = nn.Linear(3, 4)

    def forward(self, latent):
        return self.paint(latent).sigmoid().view(-1, 1, 2, 2)


@pytest.fixture
def latent():
    return torch.randn(6, 3, dtype=torch.float64)


@pytest.fixture
def task(latent, monkeypatch):
    """Two players of order-one weights, and noise that is known."""
    task = Adversarial(Painter(), nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))).double()
    monkeypatch.setattr(task, "noise", lambda count: latent[:count])
    return task


@pytest.fixture
def batch():
    return {"image": torch.rand(6, 1, 2, 2, dtype=torch.float64)}


def gradients(module):
    return [p.grad.clone() for p in module.parameters()]


def test_the_losses_are_those_of_the_paper_and_so_are_their_gradients(task, batch, latent):
    players = task.losses(batch)
    fake = task.generator(latent)

    player, total, count = next(players)
    total.backward()
    assert player is task.discriminator
    assert count == 6
    expected = torch.zeros((), dtype=torch.float64)
    for row in range(6):
        real_logit, fake_logit = task.discriminator(batch["image"][row : row + 1]), task.discriminator(fake[row : row + 1])
        expected = expected - torch.log(1 / (1 + torch.exp(-real_logit))).sum()
        expected = expected - torch.log(1 - 1 / (1 + torch.exp(-fake_logit))).sum()
    assert abs(total.item() - expected.item()) < 1e-10
    for found, wanted in zip(
        gradients(task.discriminator), torch.autograd.grad(expected, list(task.discriminator.parameters())), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)

    player, total, count = next(players)
    total.backward()
    assert player is task.generator
    assert count == 6
    expected = torch.zeros((), dtype=torch.float64)
    for row in range(6):
        logit = task.discriminator(task.generator(latent)[row : row + 1])
        expected = expected - torch.log(1 / (1 + torch.exp(-logit))).sum()
    assert abs(total.item() - expected.item()) < 1e-10
    for found, wanted in zip(
        gradients(task.generator), torch.autograd.grad(expected, list(task.generator.parameters())), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    assert next(players, None) is None


def test_the_discriminators_loss_sends_nothing_to_the_generator(task, batch):
    _, total, _ = next(task.losses(batch))
    total.backward()
    assert all(p.grad is None for p in task.generator.parameters())


def test_the_generators_loss_leaves_nothing_in_the_discriminator(task, batch):
    players = task.losses(batch)
    next(players)[1].backward()
    before = gradients(task.discriminator)
    next(players)[1].backward()
    for found, kept in zip(gradients(task.discriminator), before, strict=True):
        assert torch.equal(found, kept)
    assert all(p.requires_grad for p in task.discriminator.parameters())


def test_what_was_frozen_before_stays_frozen(task, batch):
    task.discriminator[1].requires_grad_(False)
    list(task.losses(batch))
    assert [p.requires_grad for p in task.discriminator.parameters()] == [False, False, True, True]


def test_the_generator_learns_against_the_discriminator_after_its_step(task, batch, latent):
    players = task.losses(batch)
    next(players)
    with torch.no_grad():  # the step at the yield
        for parameter in task.discriminator.parameters():
            parameter.add_(0.5)
    _, total, _ = next(players)
    logit = task.discriminator(task.generator(latent))
    assert abs(total.item() - torch.log(1 + torch.exp(-logit)).sum().item()) < 1e-10


def test_each_image_is_generated_once(task, batch):
    calls = []
    task.generator.register_forward_hook(lambda *_: calls.append(1))
    list(task.losses(batch))
    assert len(calls) == 1


def test_the_way_between_latents_keeps_their_length():
    first, last = torch.randn(2, 500, dtype=torch.float64)
    weight = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]
    way = slerp(first, last, weight)
    torch.testing.assert_close(way[0], first)
    torch.testing.assert_close(way[-1], last)
    assert way.norm(dim=1).min() > 0.95 * min(first.norm(), last.norm())
    assert torch.lerp(first, last, 0.5).norm() < 0.8 * first.norm()  # which a straight line does not


def small(seed=0):
    torch.manual_seed(seed)
    judge = build(dcgan_discriminator, image_size=8, in_channels=1, width=32)
    return build(
        Adversarial,
        generator=build(dcgan_generator, image_size=8, out_channels=1, latent_dim=16, width=64),
        discriminator=adapt(judge, standardize, mean=[0.5], deviation=[0.5], size=[8, 8]),
    )


def test_a_folder_gives_the_same_images_for_a_seed_and_others_for_another(tmp_path):
    task = small().eval()
    save(task, tmp_path)
    loaded = load(tmp_path)
    assert not any("metrics" in name for name in task.state_dict())
    inputs = {"count": torch.tensor([[5.0]])}
    image = task.predict(inputs)["image"]
    assert image.shape == (5, 1, 8, 8)
    assert torch.equal(image, loaded.predict(inputs)["image"])
    assert not torch.equal(image, loaded.predict(inputs, seed=1)["image"])


@pytest.mark.parametrize("count", [0, -3, 2.5, math.nan])
def test_a_count_of_images_that_is_none_is_refused(count):
    with pytest.raises(ValueError, match=r"count=.*expected a whole number"):
        small().predict({"count": torch.tensor([[count]])})


def test_digits_are_learned():
    splits = digits()
    streams = splits.streams(64)
    task = small()
    experiment = Experiment(task=task, train=streams.train, valid=streams.valid, steps=200, ema=0.95,
                            optimizer=adam(1e-3, betas=(0.5, 0.999)))  # fmt: skip
    training = Training(experiment, precision="fp32")
    before = {name: float(value) for name, value in evaluate(training, streams.valid)}
    for _ in training:
        pass
    after = {name: float(value) for name, value in evaluate(training, streams.valid)}
    assert after["frechet_distance"] < 0.2 * before["frechet_distance"]
    drawn = training.evaluated.eval().figures(next(iter(streams.valid)))
    assert {name: len(figure.axes) for name, figure in drawn.items()} == {"samples": 64, "interpolation": 80}

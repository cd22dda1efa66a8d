"""The gradient noise scale against the variance of the gradients of single examples."""

import pytest
import torch
from scenes import Fit, points

from thalweg.data.streams import TensorStream
from thalweg.inspection.noise import Noise, gradient_noise
from thalweg.training import Experiment, Training
from thalweg.training.optimisers import sgd


def training(count, batch_size):
    examples = points(count) | {"mask": torch.ones(count, dtype=torch.float64)}
    made = Experiment(task=Fit().double(), train=TensorStream(examples, batch_size, shuffle=True), steps=9, optimizer=sgd(0.1))
    return Training(made, device="cpu", precision="fp32")


def test_signal_and_noise_are_those_of_the_gradients_of_single_examples():
    made = training(20_000, 10)
    before = [parameter.clone() for parameter in made.task.parameters()]
    found = gradient_noise(made, groups=250, size=8)  # a pass over the data
    data = made.experiment.train.tensors
    with torch.no_grad():
        error = made.task.model(data["features"]).squeeze(1) - data["target"]
        single = torch.cat([error[:, None] * data["features"], error[:, None]], 1)  # d/dw and d/db of half the square
    assert found.noise == pytest.approx(single.var(0).sum().item(), rel=0.05)
    assert found.signal == pytest.approx(single.mean(0).square().sum().item(), rel=0.05)
    assert found.scale == found.noise / found.signal
    assert all(torch.equal(a, b) for a, b in zip(before, made.task.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in made.task.parameters())
    assert made.number == 0


def test_the_estimate_is_the_formula_of_the_paper():
    made = training(80, 10)
    found = gradient_noise(made, groups=1, size=4)
    gradients = []
    for number in range(4):
        total, count = made.task.loss(made.experiment.train.batch(number))
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(total / count, list(made.task.parameters()))]))
    small = sum(float(g @ g) for g in gradients) / 4
    mean = sum(gradients) / 4
    large = float(mean @ mean)
    assert found.signal == pytest.approx((40 * large - 10 * small) / 30, rel=1e-10)
    assert found.noise == pytest.approx((small - large) / (1 / 10 - 1 / 40), rel=1e-10)


def test_without_signal_no_batch_is_too_large_and_what_makes_no_sense_is_refused():
    assert Noise(signal=-0.1, noise=1.0).scale == float("inf")
    with pytest.raises(ValueError, match="groups=1, size=1: expected at least 1 and 2"):
        gradient_noise(training(20, 5), groups=1, size=1)

"""The learning-rate range test: where learning starts, where it ends, and nothing is changed by looking."""

import math

import pytest
import torch
from scenes import Fit, Game, points, small_digits
from torch import nn

from thalweg import cli
from thalweg.data.streams import TensorStream
from thalweg.inspection.range_test import RangeTest, range_test
from thalweg.training import Experiment, Task, Training
from thalweg.training.optimisers import sgd


def fit(lr=0.1, size=1.0, **options) -> Training:
    examples = points(24, dtype=torch.float32)
    examples["target"] = size * examples["target"]
    made = Experiment(task=Fit(), train=TensorStream(examples, 24), steps=50, optimizer=sgd(lr), **options)
    return Training(made, device="cpu", precision="fp32")


def test_the_rates_rise_by_equal_factors_and_the_losses_are_those_of_descent_at_them():
    training = fit(0.2)
    found = range_test(training, lowest=0.01, highest=1, steps=40)
    assert found.rates == pytest.approx([0.2 * 0.01 * 100 ** (n / 40) for n in range(40)])
    again, mean = fit(0.2), 0.0
    again.task.load_state_dict(training.task.state_dict())
    data = again.experiment.train.tensors
    for number, (rate, loss, smoothed) in enumerate(zip(found.rates, found.losses, found.smoothed, strict=True), 1):
        total, count = again.task.loss(data)
        assert loss == pytest.approx((total / count).item(), rel=1e-5)
        mean = 0.9 * mean + 0.1 * loss
        assert smoothed == pytest.approx(mean / (1 - 0.9**number), rel=1e-5)
        for parameter, gradient in zip(again.task.parameters(), torch.autograd.grad(total / count, again.task.parameters()),
                                       strict=True):  # fmt: skip
            parameter.data -= rate * gradient


def test_the_test_ends_where_descent_diverges_and_suggests_a_rate_that_learns():
    """Descent on a quadratic diverges above 2 / (largest curvature): the suggestion stays well below."""
    training = fit()
    features = torch.cat([training.experiment.train.tensors["features"], torch.ones(24, 1)], 1)
    mask = training.experiment.train.tensors["mask"]
    bound = 2 / torch.linalg.eigvalsh((features.T * mask) @ features / mask.sum())[-1].item()
    found = range_test(training)
    assert bound < found.rates[-1] < 100 * bound  # it ended soon after, not at a thousand times the rate of 0.1
    assert bound / 100 < found.suggestion < bound
    assert found.suggestion == found.minimum / 10
    training = fit(found.suggestion)
    losses = [step.losses[""].item() for step in training]
    assert losses[-1] < 0.7 * losses[0]


def test_the_rule_is_a_tenth_of_the_rate_of_the_smallest_smoothed_loss():
    found = RangeTest([0.1, 0.2, 0.4, 0.8], [4.0, 0.5, 3.0, 9.0], [4.0, 3.5, 3.0, 5.0])
    assert found.minimum == 0.4
    assert found.suggestion == 0.04
    axis = found.figure().axes[0]
    assert axis.get_xscale() == "log"
    assert axis.lines[0].get_ydata().tolist() == [4.0, 0.5, 3.0, 9.0]


def test_the_training_is_left_as_it_was_and_goes_on_as_if_nothing_had_been():
    looked, other = (Training(small_digits(), device="cpu") for _ in range(2))
    other.task.load_state_dict(looked.task.state_dict())
    other.average.load_state_dict(looked.average.state_dict())
    before = {name: value.clone() for name, value in looked.task.state_dict().items()}
    state = torch.get_rng_state()
    range_test(looked, steps=12)
    assert torch.equal(torch.get_rng_state(), state)
    assert looked.number == 0
    assert all(torch.equal(value, before[name]) for name, value in looked.task.state_dict().items())
    assert all(parameter.grad is None for parameter in looked.task.parameters())
    for training in (looked, other):
        torch.set_rng_state(state)
        list(training)
    for name, value in other.task.state_dict().items():
        assert torch.equal(looked.task.state_dict()[name], value), name


def test_two_players_are_tested_together():
    stream = TensorStream(points(24, dtype=torch.float32), 8)
    made = Experiment(task=Game(), train=stream, steps=5, optimizer={"critic": sgd(0.01), "maker": sgd(0.02)})
    found = range_test(Training(made, device="cpu", precision="fp32"), steps=30)
    assert len(found.rates) > 10


class Nothing(Task):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def loss(self, batch):
        return (self.weight * math.nan).sum(), 1


def test_what_cannot_be_tested_is_refused():
    training = fit()
    for options, words in [
        ({"steps": 5}, "steps=5: expected at least 10"),
        ({"lowest": 2, "highest": 1}, "lowest=2, highest=1"),
    ]:
        with pytest.raises(ValueError, match=words):
            range_test(training, **options)
    next(iter(training))
    with pytest.raises(ValueError, match="training: has taken 1 steps"):
        range_test(training)
    made = Experiment(task=Nothing(), train=TensorStream(points(4), 4), steps=1, optimizer=sgd(0.1))
    with pytest.raises(ValueError, match="the loss is no number at the first step"):
        range_test(Training(made, device="cpu"))


def test_the_command_prints_a_rate_and_draws(tmp_path, capsys):
    cli.main(["range-test", "lenet-digits", "--batch-size", "16", "--steps", "20", "--out", str(tmp_path / "a.png")])
    assert "suggestion: " in capsys.readouterr().out
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")

"""Weights averaged along the path: from when, of which, with which batch norm statistics, and what for."""

import pytest
import torch
from scenes import Fit, small_digits, stream
from torch import nn

from thalweg.data.sources import digits
from thalweg.data.streams import TensorStream
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import sgd
from thalweg.training.schedules import constant


def weights(module):
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


@pytest.mark.parametrize("swa", [0.0, 0.5, 0.95])
def test_the_weights_of_all_steps_from_a_share_of_the_run_on_count_alike(swa):
    task = Fit().double()
    training = Training(Experiment(task=task, train=stream(8), steps=20, optimizer=sgd(0.3), swa=swa), precision="fp32")
    path = [weights(task)]
    for step in training:
        path.append(weights(task))
        first = int(20 * swa)
        expected = torch.stack(path[first:]).mean(0) if step.number >= first else path[-1]
        torch.testing.assert_close(weights(training.evaluated), expected, rtol=0, atol=1e-12)
    assert not torch.allclose(path[-1], weights(training.evaluated), atol=1e-6)


class Normed(Fit):
    """With a batch norm whose statistics depend on the weights before it."""

    def __init__(self):
        super().__init__(hidden=4)
        self.model.insert(1, nn.Sequential(nn.BatchNorm1d(4, momentum=0.3), nn.Dropout(0.5)))
        self.model[1][1].eval()


def training_of(steps=12, swa=0.5):
    torch.manual_seed(0)
    task, data = Normed(), stream(8, dtype=torch.float32)
    return Training(Experiment(task=task, train=data, steps=steps, optimizer=sgd(0.5, momentum=0.9), swa=swa), precision="fp32")


def test_batch_norms_get_the_statistics_of_the_data_under_the_average():
    training = training_of()
    for _ in training:
        pass
    average, norm = training.evaluated, training.evaluated.model[1][0]
    batches = [batch["features"] for batch in training.experiment.train]
    with torch.no_grad():
        before = [average.model[0](x) for x in batches]
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean(0) for x in before]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var(0) for x in before]).mean(0))
    assert not torch.allclose(norm.running_mean, training.task.model[1][0].running_mean, atol=1e-3)
    assert norm.momentum == 0.3
    assert [module.training for module in average.modules()] == [module.training for module in training.task.modules()]


def test_looking_at_the_average_changes_nothing_of_what_comes_after():
    def trained(looks):
        training = training_of()
        for step in training:
            for _ in range(looks * step.number % 3):
                dict(evaluate(training, training.experiment.train))
        return weights(training.task), dict(evaluate(training, training.experiment.train))["loss"], torch.rand(1)

    for one, other in zip(trained(0), trained(1), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("saved", [3, 8])
def test_a_restored_run_goes_on_with_its_average(tmp_path, saved):
    straight, again = training_of(), training_of()
    for step in straight:
        if step.number == saved:
            straight.save(tmp_path)
    again.restore(tmp_path)
    for _ in again:
        pass
    assert torch.equal(weights(again.evaluated), weights(straight.evaluated))
    assert torch.equal(again.evaluated.model[1][0].running_mean, straight.evaluated.model[1][0].running_mean)


def test_the_average_beats_the_last_weights_of_a_path_that_swings():
    """At a rate that stays high the weights circle around a good place; their mean lies nearer to it."""
    errors = {"average": 0.0, "last": 0.0}
    for seed in range(2):
        torch.manual_seed(seed)
        options = {"optimizer": sgd(0.1, momentum=0.9), "schedule": constant, "ema": None, "dropout": 0.0}
        training = Training(small_digits(steps=60, train=1000, swa=0.5, **options), precision="fp32")
        for _ in training:
            pass
        for name, task in (("average", training.evaluated), ("last", training.task)):
            errors[name] += 1 - float(dict(evaluate(training, TensorStream(digits().test, 50), task))["accuracy"])
    assert errors["average"] < 0.7 * errors["last"]

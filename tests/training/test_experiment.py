"""What an experiment refuses, and the length that it works out."""

import pytest
from scenes import Fit, Game, stream

from thalweg.training import Experiment
from thalweg.training.optimisers import sgd


class Endless:
    """A stream without a length, as of experience."""

    def batches(self, start=0):
        yield from ()


def experiment(**options):
    return Experiment(**{"task": Fit(), "train": stream(8), "optimizer": sgd(0.1), **options})


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, r"epochs=None, steps=None: expected exactly one of them"),
        ({"epochs": 1, "steps": 2}, r"epochs=1, steps=2: expected exactly one of them"),
        ({"steps": 0}, r"steps=0: expected at least 1"),
        ({"epochs": 0}, r"epochs=0: expected more than 0"),
        ({"epochs": -0.5}, r"epochs=-0\.5: expected more than 0"),
        ({"steps": 1, "accumulate": 0}, r"accumulate=0: expected at least 1"),
        ({"steps": 1, "clip": 0.0}, r"clip=0\.0: expected more than 0"),
        ({"steps": 1, "ema": 1.0}, r"ema=1\.0: expected less than 1"),
        ({"steps": 1, "ema": -0.9}, r"ema=-0\.9: expected more than 0"),
        ({"steps": 1, "swa": 1.0}, r"swa=1\.0: expected in \[0, 1\)"),
        ({"steps": 1, "swa": 0.5, "ema": 0.9}, r"ema=0\.9, swa=0\.5: expected at most one of them"),
        ({"steps": 1, "swa": 0.5, "task": Game()}, r"swa=0\.5 needs a task with one loss; Game defines losses\(\)"),
        ({"steps": 1, "evaluate_every": 0}, r"evaluate_every=0: expected at least 1"),
        ({"steps": 1, "patience": 2}, r"patience=2: expected monitor to name the metric it watches"),
        ({"steps": 1, "patience": 0, "monitor": "loss", "valid": stream(8)}, r"patience=0: expected at least 1"),
        ({"steps": 1, "monitor": "loss"}, r"monitor='loss': expected valid, the data that it is measured on"),
        ({"steps": 1, "accumulate": 2, "task": Game()}, r"accumulate=2 needs a task with one loss; Game defines losses\(\)"),
        ({"epochs": 1, "train": Endless()}, r"epochs=1: the training stream has no length; expected steps"),
    ],
)
def test_an_experiment_that_makes_no_sense_is_refused_before_work_starts(options, error):
    with pytest.raises(ValueError, match=f"^{error}"):
        experiment(**options)


def test_epochs_become_steps_and_a_pass_is_evaluated_once():
    made = experiment(epochs=4)  # 24 examples in batches of 8
    assert (made.length, made.evaluate_every) == (12, 3)
    assert experiment(epochs=0.1).length == 1


def test_a_stream_without_a_length_is_evaluated_ten_times():
    assert experiment(steps=200, train=Endless()).evaluate_every == 20
    assert experiment(steps=3, train=Endless()).evaluate_every == 1

"""A run keeps what is best, stops when it is time, and tells the person what went wrong."""

import json
import math
import re

import pytest
import torch
from scenes import Fit, small_digits, stream

from thalweg.build import build, load
from thalweg.tasks.classification import Classification
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import sgd
from thalweg.training.recorder import read_metrics
from thalweg.training.run import Stopped, run


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch):
    """Drawing takes longer than all the rest."""
    monkeypatch.setattr(Classification, "figures", lambda task, batch: {})


def go(experiment, folder, **options):
    return run(Training(experiment, device="cpu"), folder, {"recipe": "small"}, progress=False, **options)


def told(folder, name):
    return [(line["step"], line[name]) for line in read_metrics(folder / "metrics.jsonl") if name in line]


def scripted(training, values):
    """Makes the validation metric of a run take these values, one an evaluation; the weights then are remembered."""
    weights, values = [], iter(values)

    def evaluate_as_told(run, stream, task=None):
        if task is not None:  # the test of what was kept
            yield from evaluate(run, stream, task)
            return
        weights.append({name: value.clone() for name, value in run.evaluated.state_dict().items()})
        yield "loss", torch.tensor(next(values))

    return weights, evaluate_as_told


@pytest.mark.parametrize(
    ("values", "kept", "steps"),
    [
        ([9.0, 5.0, 4.0, 6.0, 4.0, 3.0], 2, 16),  # an equal value is no improvement; the third in a row ends it
        ([9.0, 5.0, 4.0, 3.0, 2.0, 1.0], 5, 20),
        ([1.0, 5.0, 4.0, 3.0, 2.0, 1.5], 0, 8),
        ([math.nan, 5.0, 6.0, math.nan, 7.0, 8.0], 1, 12),
    ],
)
def test_a_run_stops_when_patience_ends_and_keeps_the_best_weights(tmp_path, monkeypatch, values, kept, steps):
    training = Training(small_digits(steps=20, patience=2), device="cpu")
    weights, evaluate_as_told = scripted(training, values)
    monkeypatch.setattr("thalweg.training.run.evaluate", evaluate_as_told)
    facts = run(training, tmp_path, {}, progress=False)
    assert training.number == steps
    assert facts["best_step"] == 4 * kept
    saved = load(tmp_path / "model").state_dict()
    assert all(torch.equal(saved[name], value) for name, value in weights[kept].items())
    assert [value for _, value in told(tmp_path, "valid/loss")] == pytest.approx(values[: steps // 4 + 1], nan_ok=True)


def test_a_metric_of_which_more_is_better_is_followed_upwards(tmp_path):
    facts = go(small_digits(steps=20, monitor="accuracy", ema=None), tmp_path)
    seen = dict(told(tmp_path, "valid/accuracy"))
    assert max(seen.values()) > min(seen.values())
    assert seen[facts["best_step"]] == max(seen.values())


def test_the_weights_that_are_tested_are_those_that_are_kept(tmp_path):
    experiment = small_digits()
    facts = go(experiment, tmp_path)
    training = Training(small_digits(), device="cpu")
    again = dict(evaluate(training, experiment.test, load(tmp_path / "model")))
    assert facts["metrics"]["test/accuracy"] == {"value": float(again["accuracy"]), "higher_is_better": True}
    assert facts["metrics"]["test/loss"]["higher_is_better"] is False
    assert set(facts["metrics"]) == {"test/accuracy", "test/loss"}


def test_without_a_monitor_the_last_weights_are_kept(tmp_path):
    training = Training(small_digits(monitor=None), device="cpu")
    run(training, tmp_path, {}, progress=False)
    saved = load(tmp_path / "model").state_dict()
    assert all(torch.equal(saved[name], value) for name, value in training.evaluated.state_dict().items())


def test_a_run_folder_holds_what_it_promises(tmp_path, monkeypatch):
    monkeypatch.undo()
    go(small_digits(), tmp_path, checkpoint_every=5)
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file() and "tfevents" not in path.name}
    assert names == {
        "run.json", "metrics.jsonl", "model/config.json", "model/model.safetensors", "figures/confusion.png",
        "figures/most-wrong.png", "checkpoints/step-00000010.safetensors", "checkpoints/step-00000012.safetensors",
    }  # fmt: skip
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["recipe"] == "small"
    assert facts["steps"] == 12
    assert facts["optimizer"] == "SGD (fused)"
    assert facts["copies"] == 0
    assert [step for step, _ in told(tmp_path, "train/loss")] == list(range(1, 13))
    assert [step for step, _ in told(tmp_path, "valid/loss")] == [0, 4, 8, 12]
    assert [step for step, _ in told(tmp_path, "test/loss")] == [12]


class Exploding(Fit):
    """Its loss, or only the gradient of it, is no number at one step."""

    def __init__(self, at=5, gradient=False):
        super().__init__()
        self.at, self.gradient, self.number = at, gradient, 0

    def loss(self, batch):
        self.number += 1
        total, count = super().loss(batch)
        if self.number == self.at:
            total = (total - total.detach()).sqrt() if self.gradient else total * math.inf
        return total, count


@pytest.mark.parametrize(("gradient", "what"), [(False, r"train/loss is (inf|nan)"), (True, r"the norm of the weights is nan")])
def test_what_is_no_number_stops_the_run_and_reaches_no_checkpoint(tmp_path, gradient, what):
    data = stream(6, dtype=torch.float32)
    experiment = Experiment(task=build(Exploding, gradient=gradient), train=data, steps=20, optimizer=sgd(0.1), accumulate=1)
    with pytest.raises(Stopped) as stopped:
        go(experiment, tmp_path, checkpoint_every=1)
    words = str(stopped.value)
    assert stopped.value.status == 2
    assert re.match(rf"{what} at step 5 on the training examples \[0, 1, 2, 3, 4, 5\]\. ", words), words
    assert "Lower the learning rate" in words
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir())[-1] == "step-00000004.safetensors"
    assert not (tmp_path / "model").exists()


def test_the_examples_of_an_accumulated_step_are_all_named(tmp_path):
    experiment = Experiment(task=build(Exploding), train=stream(6), steps=20, optimizer=sgd(0.1), accumulate=2)
    experiment.task.double()
    with pytest.raises(Stopped, match=rf"at step 3 on the training examples \[{', '.join(map(str, range(12)))}\]"):
        go(experiment, tmp_path)


def test_a_stream_that_does_not_know_its_examples_is_no_obstacle(tmp_path):
    class Plain:
        def batches(self, start=0):
            yield from stream(6, dtype=torch.float32).batches(start)

    experiment = Experiment(task=build(Exploding), train=Plain(), steps=20, optimizer=sgd(0.1))
    with pytest.raises(Stopped, match=r"at step 5\. Lower"):
        go(experiment, tmp_path)


def test_a_task_that_could_not_be_saved_is_refused_before_work_starts(tmp_path):
    experiment = Experiment(task=Fit(), train=stream(6), steps=2, optimizer=sgd(0.1))
    with pytest.raises(ValueError, match="task: Fit was not made by build"):
        go(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_monitor_that_the_task_does_not_measure_is_named_before_the_first_step(tmp_path):
    training = Training(small_digits(monitor="f1"), device="cpu")
    with pytest.raises(ValueError, match=r"monitor='f1': the task measures \['accuracy', 'confusion', 'loss', 'most_wrong'\]"):
        run(training, tmp_path, {}, progress=False)
    assert training.number == 0


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Stopped, match=r"file/run cannot be written to: .*Not a directory"):
        go(small_digits(), tmp_path / "file" / "run")

"""Choosing hyper-parameters by validation: folds, the ranked table, and a sweep that was stopped."""

import json
import re
import statistics
import textwrap

import pytest
import torch
from scenes import small_digits
from torch.testing import assert_close

from thalweg import cli, launch
from thalweg.tasks.classification import Classification
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import sgd
from thalweg.training.run import run
from thalweg.training.sweep import candidate, held_out, points


def test_every_combination_comes_once_in_order():
    assert points({"a": [1, 2], "b": ["x"], "c": [3, 4]}) == [
        {"a": 1, "b": "x", "c": 3}, {"a": 1, "b": "x", "c": 4}, {"a": 2, "b": "x", "c": 3}, {"a": 2, "b": "x", "c": 4},
    ]  # fmt: skip


def test_each_example_is_held_out_once_and_never_trained_on_then():
    whole = small_digits(epochs=2, steps=None)
    examples = whole.train.tensors["image"]
    held, streams = [], [held_out(whole, number, 3) for number in range(3)]
    for made in streams:
        valid = torch.cat([batch["image"] for batch in made.valid])
        train = made.train.fetch(torch.arange(made.train.size))["image"]
        assert made.test is None
        assert len(valid) + len(train) == len(examples) == 200
        assert not (train.flatten(1)[:, None] == valid.flatten(1)[None]).all(-1).any()
        assert len(made.train.augment) == 2  # the training part is augmented as it was, the other is as it is
        assert made.train.shuffle
        assert made.length == 2 * len(made.train)  # epochs are of the part
        held.append(valid)
    assert {len(part) for part in held} == {66, 67}
    assert_close(torch.cat(held).flatten(1).sort(0).values, examples.flatten(1).sort(0).values)
    again = torch.cat([batch["image"] for batch in held_out(whole, 1, 3).valid])
    assert torch.equal(again, held[1])


def test_a_candidate_has_no_test_data_and_a_metric_to_be_chosen_by():
    made = candidate(small_digits(monitor=None), metric="accuracy", steps=3)
    assert (made.test, made.monitor, made.length) == (None, "accuracy", 3)
    assert candidate(small_digits(monitor="loss")).monitor == "loss"


@pytest.mark.parametrize(
    ("options", "arguments", "error"),
    [
        ({}, {"folds": 1}, "folds=1: expected 2 to 200, the number of training examples"),
        ({}, {"folds": 201}, "folds=201: expected 2 to 200"),
        ({}, {"folds": 3, "fold": 3}, "number=3: expected 0 to 2"),
        ({"monitor": None}, {}, r"metric: the recipe monitors none; expected one of \['accuracy'"),
        ({}, {"metric": "f1"}, r"metric='f1': the task measures \['accuracy'"),
    ],
)
def test_a_candidate_that_cannot_be_chosen_is_refused(options, arguments, error):
    with pytest.raises(ValueError, match=error):
        candidate(small_digits(**options), **arguments)


def test_without_validation_data_or_examples_there_is_nothing_to_choose_by():
    class Endless:
        def batches(self, start=0):
            yield from ()

    made = small_digits()
    alone = Experiment(task=made.task, train=made.train, steps=1, optimizer=sgd(0.1))
    with pytest.raises(ValueError, match="valid: there are no validation data to choose by; expected folds"):
        candidate(alone, metric="loss")
    with pytest.raises(ValueError, match="folds=2: a Endless has no examples to hold out"):
        candidate(Experiment(task=made.task, train=Endless(), steps=1, optimizer=sgd(0.1)), folds=2)


RECIPES = '''
import math
import torch
from thalweg.build import build
from thalweg.data.streams import TensorStream, generator
from thalweg.models.classical.linear import linear_regression
from thalweg.tasks.regression import Regression
from thalweg.training import Experiment
from thalweg.training.optimisers import sgd


def cubic(*, degree: int = 3, lr: float = 0.3, wide: bool = False):
    """A polynomial through noisy points of a cubic."""
    random = generator(1)
    x = torch.rand(30, generator=random) * 2 - 1
    y = 2 * x**3 - x + 0.2 * torch.randn(30, generator=random)
    features = torch.cos(torch.arange(1, degree + 1) * torch.arccos(x)[:, None])
    train = TensorStream({"features": features, "target": y[:, None]}, 30, shuffle=True)
    task = build(Regression, model=build(linear_regression, in_features=degree))
    test = TensorStream({"features": features, "target": y[:, None] + 1}, 30)
    return Experiment(task=task, train=train, steps=200, optimizer=sgd(lr), monitor="rmse", valid=train, test=test,
                      evaluate_every=200)
'''


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setattr("thalweg.tasks.regression.Regression.figures", lambda task, batch: {})
    (tmp_path / "mine.py").write_text(textwrap.dedent(RECIPES))
    return f"{tmp_path / 'mine.py'}:cubic"


def sweep(recipe, folder, *words):
    cli.main(["sweep", recipe, "--out", str(folder), *words])
    return json.loads((folder / "sweep.json").read_text())


def test_cross_validation_picks_the_degree_that_the_data_have(recipe, tmp_path, capsys):
    found = sweep(recipe, tmp_path / "sweep", "--degree", "1,3,14", "--folds", "5")
    assert found["metric"] == "valid/rmse"
    assert found["rows"][0]["arguments"]["degree"] == 3
    values = [row["value"] for row in found["rows"]]
    assert values == sorted(values)  # of an error the smallest is the best
    for row in found["rows"]:
        assert len(row["scores"]) == len(row["runs"]) == row["folds"] == 5
        assert row["value"] == pytest.approx(statistics.mean(row["scores"]))
        assert row["deviation"] == pytest.approx(statistics.stdev(row["scores"]))
        facts = json.loads((tmp_path / "sweep" / row["runs"][2] / "run.json").read_text())
        assert facts["metrics"]["valid/rmse"]["value"] == row["scores"][2]
        assert not any(name.startswith("test/") for name in facts["metrics"])
    lines = capsys.readouterr().out.splitlines()
    best = found["rows"][0]
    said = f"  1  {best['value']:.4f} ± {best['deviation']:.4f}  degree=3  4 parameters, {best['seconds']:.0f} s"
    assert said in lines
    assert best["test"] == {}


def test_the_score_of_a_fold_is_what_the_metric_is_on_what_was_held_out(recipe, tmp_path):
    found = sweep(recipe, tmp_path / "sweep", "--degree", "2,3", "--folds", "3", "--seed", "4")
    torch.manual_seed(4)
    made = candidate(launch.find(recipe).load()(degree=2), fold=1, folds=3)
    training = Training(made)
    list(training)
    row = next(row for row in found["rows"] if row["arguments"]["degree"] == 2)
    assert row["runs"][1] == "degree=2,fold=2of3"
    assert row["scores"][1] == pytest.approx(float(dict(evaluate(training, made.valid))["rmse"]))


def test_a_sweep_that_was_stopped_goes_on_and_repeats_nothing(recipe, tmp_path, monkeypatch):
    words = ["--lr", "0.1,0.3", "--degree", "2,3"]
    whole = sweep(recipe, tmp_path / "whole", *words)
    started, stop = [], True

    def counted(training, path, facts, **options):
        started.append(path.name)
        if stop and len(started) == 3:
            monkeypatch.setattr(Training, "save", interrupted)
        return run(training, path, facts, checkpoint_every=50, **options)

    def interrupted(training, folder, beside=None):
        save(training, folder, beside)
        if training.number == 100:
            raise KeyboardInterrupt

    save = Training.save
    monkeypatch.setattr("thalweg.training.run.run", counted)
    with pytest.raises(SystemExit):
        sweep(recipe, tmp_path / "broken", *words)
    assert len(started) == 3
    stop = False
    monkeypatch.setattr(Training, "save", save)
    again = sweep(recipe, tmp_path / "broken", *words)
    assert started[2:] == ["degree=3,lr=0.1", "degree=3,lr=0.1", "degree=3,lr=0.3"]
    assert sweep(recipe, tmp_path / "broken", *words) == again
    for row in again["rows"] + whole["rows"]:
        assert row.pop("seconds") > 0
    assert again == whole
    assert len(started) == 5


def test_a_combination_that_diverges_is_last_and_not_tried_again(recipe, tmp_path, capsys):
    found = sweep(recipe, tmp_path / "sweep", "--lr", "100,0.1", "--degree", "8")
    assert [(row["arguments"]["lr"], row["value"] is None) for row in found["rows"]] == [(0.1, False), (100, True)]
    assert "  2  diverged  lr=100.0" in capsys.readouterr().out.splitlines()
    assert sweep(recipe, tmp_path / "sweep", "--lr", "100,0.1", "--degree", "8") == found


def test_what_is_compared_is_measured_on_test_data_and_ranked_by_validation_still(recipe, tmp_path, capsys):
    found = sweep(recipe, tmp_path / "sweep", "--degree", "2,5", "--test")
    assert [row["arguments"]["degree"] for row in found["rows"]] == [5, 2]
    assert "  1  " in (shown := capsys.readouterr().out)
    for row in found["rows"]:
        assert row["parameters"] == row["arguments"]["degree"] + 1
        facts = json.loads((tmp_path / "sweep" / row["runs"][0] / "run.json").read_text())
        assert (facts["parameters"], facts["seconds"]) == (row["parameters"], row["seconds"])
        assert row["value"] == facts["best_value"] < 0.5
        assert row["test"] == {name: measured["value"] for name, measured in facts["metrics"].items()}
        assert row["test"]["test/rmse"] > 0.9  # their targets are one more
        assert f"{row['parameters']} parameters, {row['seconds']:.0f} s, test/" in shown
        assert f"test/rmse {row['test']['test/rmse']:.4f}" in shown


def test_each_combination_is_trained_by_each_seed_and_ranked_by_the_mean(recipe, tmp_path, capsys):
    found = sweep(recipe, tmp_path / "sweep", "--degree", "2,5", "--seed", "3,4,4", "--test")
    alone = sweep(recipe, tmp_path / "alone", "--degree", "2,5", "--seed", "4", "--test")["rows"]
    assert [row["arguments"]["degree"] for row in found["rows"]] == [5, 2]
    for row, one in zip(found["rows"], alone, strict=True):
        degree = row["arguments"]["degree"]
        assert row["runs"] == [f"degree={degree},seed=3", f"degree={degree},seed=4"]
        assert row["scores"][0] != row["scores"][1] == one["value"]
        assert row["value"] == pytest.approx(statistics.mean(row["scores"]))
        runs = [json.loads((tmp_path / "sweep" / name / "run.json").read_text()) for name in row["runs"]]
        assert [facts["seed"] for facts in runs] == [3, 4]
        tested = [facts["metrics"]["test/rmse"]["value"] for facts in runs]
        assert row["test"]["test/rmse"] == pytest.approx(statistics.mean(tested))
        assert row["test_deviation"]["test/rmse"] == pytest.approx(statistics.stdev(tested))
    best = found["rows"][0]
    assert f"test/rmse {best['test']['test/rmse']:.4f} ± {best['test_deviation']['test/rmse']:.4f}" in capsys.readouterr().out
    more = sweep(recipe, tmp_path / "sweep", "--degree", "2,5", "--seed", "4,5", "--test")["rows"]
    assert more[0]["runs"] == ["degree=5,seed=4", "degree=5,seed=5"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--lr", "0.1,fast"], r"argument --lr: invalid value in '0.1,fast': expected FLOAT, with commas between"),
        (["--wide", "true,maybe"], r"argument --wide: invalid value in 'true,maybe': expected true or false"),
        (["--metric", "f1"], r"metric='f1': the task measures \['loss', 'mae', 'r2', 'rmse'\]"),
        (["--test", "--folds", "5"], r"test=True, folds=5: expected one of them"),
        (["--folds", "31"], r"folds=31: expected 2 to 30"),
        (["--steps", "0"], r"steps=0: expected at least 1"),
        (["--seed", "1,x"], r"argument --seed: invalid value in '1,x': expected INT, with commas between"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused_in_one_line(recipe, tmp_path, words, error, capsys):
    with pytest.raises(SystemExit):
        sweep(recipe, tmp_path / "sweep", *words)
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert re.search(error, text), text


def test_another_sweep_in_the_same_folder_and_a_resumed_part_are_refused(recipe, tmp_path, capsys):
    sweep(recipe, tmp_path / "sweep", "--lr", "0.1,0.2", "--steps", "3")
    with pytest.raises(SystemExit):
        sweep(recipe, tmp_path / "sweep", "--lr", "0.1,0.2", "--steps", "4")
    assert "name another --out" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["run", "--resume", str(tmp_path / "sweep" / "lr=0.1")])
    assert "is part of a sweep; the same sweep again goes on with it" in capsys.readouterr().err


def test_what_was_chosen_on_a_public_board_looks_better_there_than_it_is():
    """Of many submissions that guess, the best on the public half of a test set scores above chance there only."""
    random = torch.Generator().manual_seed(0)
    answers = torch.randint(0, 2, (200,), generator=random)
    gaps = []
    for _ in range(30):
        right = (torch.randint(0, 2, (100, 200), generator=random) == answers).double()
        public, private = right[:, :100].mean(1), right[:, 100:].mean(1)
        chosen = public.argmax()
        gaps.append((public[chosen] - private[chosen]).item())
    # the largest of 100 means of 100 coins: about 0.5 + 2.5 * 0.05
    assert statistics.mean(gaps) == pytest.approx(0.125, abs=0.02)
    honest = [(right[0, :100].mean() - right[0, 100:].mean()).item() for right in [
        (torch.randint(0, 2, (1, 200), generator=random) == answers).double() for _ in range(300)]]  # fmt: skip
    assert statistics.mean(honest) == pytest.approx(0, abs=0.02)  # one that was not chosen there is as good on both


def test_the_run_of_a_candidate_measures_validation_data_only(monkeypatch, tmp_path):
    monkeypatch.setattr(Classification, "figures", lambda task, batch: {})
    facts = run(Training(candidate(small_digits(steps=4)), device="cpu"), tmp_path, {}, progress=False)
    assert set(facts["metrics"]) == {"valid/accuracy", "valid/loss"}

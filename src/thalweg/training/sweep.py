"""Choosing hyper-parameters: every combination is trained, by several seeds or on folds if wanted, and ranked by validation.

LEE "General Guide".

The test data are not looked at, unless what was chosen before is to be compared. What is known lies in the folders of
the runs, so a sweep that was killed goes on.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from thalweg.data.streams import Part, Stream, generator
from thalweg.training.experiment import Experiment


def points(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the values, the last name varying fastest.   {"a": [1, 2]} -> [{"a": 1}, {"a": 2}]"""
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def held_out(experiment: Experiment, number: int, count: int) -> Experiment:
    """The experiment with a part of its training data as its validation data: one of `count` of equal size, at random.

    Over number = 0 ... count - 1 each example is once held out; the parts are the same in every run. The experiment's own
    validation data are not used, and its test data taken away. What the recipe measured on all of its training data,
    such as their mean, it has measured on the part too.   ValueError where the stream does not know its examples.
    """
    train = experiment.train
    if not isinstance(train, Stream):
        raise ValueError(f"folds={count}: a {type(train).__name__} has no examples to hold out")
    if not 2 <= count <= train.size:
        raise ValueError(f"folds={count}: expected 2 to {train.size}, the number of training examples")
    if not 0 <= number < count:
        raise ValueError(f"number={number}: expected 0 to {count - 1}")
    parts = torch.randperm(train.size, generator=generator(count)).tensor_split(count)
    kept = torch.cat([part for other, part in enumerate(parts) if other != number]).sort().values
    seen = Part(train, kept, train.batch_size, shuffle=train.shuffle, augment=train.augment)
    return replace(experiment, train=seen, valid=Part(train, parts[number].sort().values, 500), test=None)


def candidate(
    experiment: Experiment,
    *,
    metric: str | None = None,
    steps: int | None = None,
    fold: int = 0,
    folds: int | None = None,
    test: bool = False,
) -> Experiment:
    """The experiment as a sweep runs it: without test data, its weights chosen by the metric, or by its own monitor.

    test: keep the test data, to compare and not to choose.   steps: in place of its length.
    fold, folds: see `held_out`; the experiment's own validation data if None.
    ValueError where there is nothing to choose by.
    """
    if test and folds is not None:
        raise ValueError(f"test=True, folds={folds}: expected one of them; folds are to choose, test data to compare")
    if folds is not None:
        experiment = held_out(experiment, fold, folds)
    metric = metric or experiment.monitor
    if experiment.valid is None:
        raise ValueError("valid: there are no validation data to choose by; expected folds")
    if metric is None:
        raise ValueError(f"metric: the recipe monitors none; expected one of {sorted(map(str, experiment.task.metrics))}")
    if metric not in experiment.task.metrics:
        raise ValueError(f"metric={metric!r}: the task measures {sorted(map(str, experiment.task.metrics))}")
    length = {"epochs": None, "steps": steps} if steps is not None else {}
    return replace(experiment, test=experiment.test if test else None, monitor=metric, **length)  # type: ignore[arg-type]


def table(folder: Path, metric: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The finished combinations of a sweep, best first: arguments, the validation metric, its deviation over folds and seeds.

    The value of a combination is the mean over its folds and seeds, and so is what was measured on test data, where the runs
    have them; also parameters, and seconds of all runs. Those that diverged come last, with no value.
    """
    combinations: dict[str, dict[str, Any]] = {}
    higher = True
    for path in sorted(folder.glob("*/run.json")):
        facts = json.loads(path.read_text(encoding="utf8"))
        if not {"metrics", "diverged"} & set(facts) or facts["seed"] not in seeds:
            continue
        arguments, folds = facts["arguments"], facts["circumstances"]["folds"]
        row = combinations.setdefault(
            json.dumps([arguments, folds]),
            {"arguments": arguments, "folds": folds, "scores": [], "runs": [], "parameters": None, "seconds": 0.0, "tests": []},
        )
        metrics = facts.get("metrics", {})
        measured = metrics.get(f"valid/{metric}")
        if tested := metrics.get(f"test/{metric}"):  # then the kept weights were measured on those alone at the end
            measured = {**tested, "value": facts["best_value"]}
        if measured:
            higher = measured["higher_is_better"]
        row["scores"].append(measured["value"] if measured else None)
        row["runs"].append(path.parent.name)
        row["parameters"] = facts.get("parameters")
        row["seconds"] = round(row["seconds"] + facts.get("seconds", 0.0), 2)
        row["tests"].append({name: found["value"] for name, found in metrics.items() if name.startswith("test/")})
    rows = []
    for row in combinations.values():
        scores, tests = row["scores"], row.pop("tests")
        if len(scores) == (row["folds"] or 1) * len(seeds):
            whole, several = None not in scores, len(scores) > 1
            row |= {"value": mean(scores) if whole else None, "deviation": stdev(scores) if whole and several else None}
            row |= {"test": {}, "test_deviation": {}}
            for name in tests[0] if whole else ():
                row["test"][name] = mean(test[name] for test in tests)
                if several:
                    row["test_deviation"][name] = stdev(test[name] for test in tests)
            rows.append(row)
    return sorted(rows, key=lambda row: (row["value"] is None, -(row["value"] or 0) if higher else row["value"] or 0))

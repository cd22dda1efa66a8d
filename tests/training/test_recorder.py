"""What a run writes about itself can be read: by line, by TensorBoard, after a resumption."""

import json
import math

import pytest
import torch
from scenes import Fit, Game, stream
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from thalweg.training import Experiment, Training, recorder
from thalweg.training.loop import Step
from thalweg.training.optimisers import sgd
from thalweg.training.recorder import Diverged, Recorder, read_metrics


def step(number, loss, *, player="", count=4, norm=None):
    norms = {player: torch.tensor(norm)} if norm else {}
    return Step(number, 0.5, {player: torch.tensor(loss * count)}, {player: count}, norms)


def events(folder):
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    return {name: [(event.step, event.value) for event in board.Scalars(name)] for name in board.Tags()["scalars"]}


def test_a_line_has_step_time_and_names(tmp_path):
    with Recorder(tmp_path) as written:
        written.write(step(1, 2.5, norm=3.0))
        written.write(step(2, 1.5))
        assert written.write_metrics(2, "valid", [("accuracy", torch.tensor(0.75)), ("confusion", torch.eye(2)), ("n", 3)]) == {
            "accuracy": 0.75,
            "n": 3.0,
        }
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [list(line) for line in lines] == [
        ["step", "time", "train/loss", "train/gradient_norm", "train/lr"],
        ["step", "time", "train/loss", "train/lr"],
        ["step", "time", "valid/accuracy", "valid/n"],
    ]
    assert [line["step"] for line in lines] == [1, 2, 2]
    assert lines[0]["train/loss"] == 2.5
    assert lines[0]["train/gradient_norm"] == 3.0
    assert lines[0]["train/lr"] == 0.5
    assert lines[2]["valid/accuracy"] == 0.75
    assert all(0 <= line["time"] < 60 for line in lines)


def test_players_are_part_of_the_names(tmp_path):
    with Recorder(tmp_path) as written:
        optimizer = {"critic": sgd(0.1), "maker": sgd(0.01)}
        for taken in Training(Experiment(task=Game().double(), train=stream(8), steps=1, optimizer=optimizer)):
            written.write(taken)
    assert set(read_metrics(tmp_path / "metrics.jsonl")[0]) == {
        "step", "time", "train/critic/loss", "train/maker/loss", "train/critic/gradient_norm", "train/maker/gradient_norm",
        "train/lr",
    }  # fmt: skip


def test_every_step_is_written_though_none_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "INTERVAL", 1e9)
    with Recorder(tmp_path) as written:
        for taken in Training(Experiment(task=Fit(), train=stream(8, dtype=torch.float32), steps=7, optimizer=sgd(0.1))):
            written.write(taken)
        assert read_metrics(tmp_path / "metrics.jsonl") == []
        written.flush()
        assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6, 7]
        assert written.lines == 7


def test_steps_are_written_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "INTERVAL", 0.0)
    with Recorder(tmp_path) as written:
        written.write(step(1, 2.5))
        assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1]


def test_tensorboard_reads_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "INTERVAL", 0.0)
    with Recorder(tmp_path) as written:
        written.write(step(1, 2.5))
        written.write(step(2, 1.5))
        written.write_metrics(2, "valid", [("accuracy", torch.tensor(0.75))])
        assert events(tmp_path)["train/loss"] == [(1, 2.5), (2, 1.5)]  # a kill now would lose none
    assert events(tmp_path) == {
        "train/loss": [(1, 2.5), (2, 1.5)],
        "train/lr": [(1, 0.5), (2, 0.5)],
        "valid/accuracy": [(2, 0.75)],
    }


def test_a_resumed_run_keeps_the_lines_its_checkpoint_knew_and_repeats_none(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "INTERVAL", 0.0)
    with Recorder(tmp_path) as written:
        written.write(step(1, 4.0))
        written.write(step(2, 3.0))
        written.write_metrics(2, "valid", [("loss", 3.0)])
        known = written.lines
        written.write_metrics(2, "test", [("loss", 9.0)])  # at the same step, after the checkpoint
        written.write(step(3, 7.0))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "ti')  # where a kill cut it
    with Recorder(tmp_path, lines=known, step=2, before=100.0) as written:
        written.write(step(3, 2.0))
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [(line["step"], line.get("train/loss", line.get("valid/loss"))) for line in lines] == [
        (1, 4),
        (2, 3),
        (2, 3),
        (3, 2),
    ]
    assert lines[-1]["time"] >= 100
    assert events(tmp_path)["train/loss"] == [(1, 4.0), (2, 3.0), (3, 2.0)]


def test_a_run_that_starts_anew_in_its_folder_keeps_nothing(tmp_path):
    for loss in (4.0, 2.0):
        with Recorder(tmp_path) as written:
            written.write_metrics(0, "valid", [("loss", loss)])
    assert [line["valid/loss"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [2.0]
    assert events(tmp_path)["valid/loss"] == [(0, 2.0)]


def test_a_line_that_was_cut_is_not_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    path.write_text('{"step": 1}\n{"step": 2, "tra')
    assert read_metrics(path) == [{"step": 1}]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_written_and_told_with_its_step(tmp_path, loss):
    with Recorder(tmp_path) as written:
        for number, value in enumerate((2.0, loss, math.nan), 1):
            written.write(step(number, value, player="critic"))
        with pytest.raises(Diverged, match=rf"train/critic/loss is {loss} at step 2") as told:
            written.flush()
    assert told.value.step == 2
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 3


def test_a_mean_over_nothing_is_no_number(tmp_path):
    with Recorder(tmp_path) as written:
        written.write(step(1, 2.0, count=0))
        with pytest.raises(Diverged, match="train/loss is nan at step 1"):
            written.flush()


def test_without_tensorboard_the_lines_are_written_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboard.compat.proto", None)
    with Recorder(tmp_path) as written:
        written.write_metrics(1, "valid", [("loss", 1.0)])
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1
    assert not (tmp_path / "tensorboard").exists()

"""What a run says about itself: metrics.jsonl, one object a line, and TensorBoard events beside it.

    {"step": 20, "time": 1.84, "train/loss": 0.71, "train/lr": 0.004}

Steps are kept as tensors and written together once a second, so that recording costs a step next to nothing.
"""

import json
import math
import socket
import time
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch

from thalweg.training.loop import Step
from thalweg.weights import write_whole

INTERVAL = 1.0  # seconds between writes


class Diverged(RuntimeError):
    """A loss is no number any more."""

    def __init__(self, step: int, name: str, value: float):
        super().__init__(f"{name} is {value} at step {step}")
        self.step = step


class Recorder:
    """Appends to metrics.jsonl in a folder; closed at the end of its `with`.

    A resumed run keeps the first `lines` lines, goes on from `step` and has taken `before` seconds until then.
    """

    def __init__(self, folder: Path, *, lines: int = 0, step: int = 0, before: float = 0.0):
        self.path = folder / "metrics.jsonl"
        self.before, self.started = before, time.perf_counter()
        self._steps: list[Step] = []
        self._written = self.started
        self.latest: dict[str, float] = {}
        kept = self.path.read_text().splitlines()[:lines] if lines else []
        self.lines = len(kept)
        write_whole(self.path, lambda part: part.write_text("".join(line + "\n" for line in kept)))
        self._file = self.path.open("a", buffering=1)
        self._board = _board(folder, step)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is None:
            self.flush()
        with suppress(OSError) if kind else nullcontext():  # what could not be written cannot be now either
            self._file.close()
        if self._board:
            with suppress(OSError) if kind else nullcontext():
                self._board.close()

    @property
    def seconds(self) -> float:
        """How long the run has taken."""
        return self.before + time.perf_counter() - self.started

    def write(self, step: Step) -> None:
        """Keeps a step; once a second all kept ones are written. Diverged if a loss is not finite."""
        self._steps.append(step)
        if time.perf_counter() - self._written > INTERVAL:
            self.flush()

    def flush(self) -> None:
        """Writes the steps kept."""
        steps, self._steps = self._steps, []
        self._written = time.perf_counter()
        if not steps:
            return
        now, lines = round(self.seconds, 3), []
        flat = [
            value for step in steps for value in (*step.sums.values(), *step.counts.values(), *step.gradient_norms.values())
        ]
        values = iter(_numbers(flat))
        bad: Diverged | None = None
        for step in steps:
            sums, counts, norms = ([next(values) for _ in held] for held in (step.sums, step.counts, step.gradient_norms))
            scalars = {
                _name(player, "loss"): s / c if c else math.nan for player, s, c in zip(step.sums, sums, counts, strict=True)
            }
            for name, value in scalars.items():
                if bad is None and not math.isfinite(value):
                    bad = Diverged(step.number, name, value)
            scalars |= {_name(player, "gradient_norm"): norm for player, norm in zip(step.gradient_norms, norms, strict=True)}
            self.latest = {**scalars, "train/lr": step.lr}
            lines.append(json.dumps({"step": step.number, "time": now, **self.latest}))
        self._append(lines)
        if self._board:
            self._board.write(steps[-1].number, self.latest)
        if bad:
            raise bad

    def write_metrics(self, number: int, part: str, metrics: Iterable[tuple[str, Any]]) -> dict[str, float]:
        """Writes the scalars among a part's metrics ("valid", "test") and returns them."""
        self.flush()
        scalars = {name: float(value) for name, value in metrics if _is_scalar(value)}
        named = {f"{part}/{name}": value for name, value in scalars.items()}
        self._append([json.dumps({"step": number, "time": round(self.seconds, 3), **named})])
        if self._board:
            self._board.write(number, named)
        return scalars

    def _append(self, lines: list[str]) -> None:
        self._file.write("\n".join(lines) + "\n")
        self.lines += len(lines)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a metrics.jsonl; a last line that a kill cut short is left out."""
    lines = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def _name(player: str, what: str) -> str:
    return f"train/{player}/{what}" if player else f"train/{what}"


def _numbers(values: list[torch.Tensor | int]) -> list[float]:
    """Tensors of one number, and numbers, as numbers: one transfer from the device."""
    tensors = [value.float() for value in values if isinstance(value, torch.Tensor)]
    read = iter(torch.stack(tensors).tolist())
    return [next(read) if isinstance(value, torch.Tensor) else value for value in values]


def _is_scalar(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, torch.Tensor) and value.ndim == 0)


class Board:
    """TensorBoard's event file. Its own writer would write in a thread, where a full disk is noticed too late.

    start: the step that a resumed run goes on from; TensorBoard forgets what it read of later ones.
    """

    def __init__(self, folder: Path, start: int):
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.event, self.summary = event_pb2.Event, summary_pb2.Summary
        folder.mkdir(exist_ok=True)
        self.file = open(folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}", "xb")  # noqa: SIM115
        self.records = RecordWriter(self.file)
        self._write(file_version="brain.Event:2")
        restart = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(step=start + 1 if start else 0, session_log=restart)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        values = [self.summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(step=step, summary=self.summary(value=values))

    def _write(self, **event: Any) -> None:
        self.records.write(self.event(wall_time=time.time(), **event).SerializeToString())
        self.file.flush()

    def close(self) -> None:
        self.file.close()


def _board(folder: Path, start: int) -> Board | None:
    """TensorBoard's events beside the lines, where it is installed."""
    try:
        return Board(folder / "tensorboard", start)
    except ImportError:
        return None

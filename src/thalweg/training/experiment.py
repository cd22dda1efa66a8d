"""An experiment is everything that decides the result of a run: task, data, optimiser, schedule, length."""

from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

from thalweg.training.optimisers import MakeOptimizer
from thalweg.training.schedules import OnPlateau, Schedule, constant
from thalweg.training.task import Task
from thalweg.vocabulary import Batch


@runtime_checkable
class Stream(Protocol):
    """Batches without end, from any number on; iterated plainly, one pass over the data.

    A stream whose batches depend on more than their number (replay, self-play) has state_dict and load_state_dict too.
    """

    def batches(self, start: int = 0) -> Iterator[Batch]: ...


@dataclass
class Experiment:
    """What a recipe returns.

    train, valid, test: streams; a valid or test stream is iterated for one pass.
    epochs or steps: the length of the run, one of them.
    optimizer: module -> optimiser, or one such a player, by the name of its submodule in the task.
    schedule: progress in [0, 1] -> factor on every learning rate.
    accumulate: batches a step.   clip: largest norm of a player's gradient.
    ema: decay of the running average of the weights that is evaluated and kept, or None.
    swa: share of the run from which on the weights of all steps are averaged alike, for the same purpose, or None
    (stochastic weight averaging; Izmailov et al. 2018, arXiv:1803.05407).
    monitor: the validation metric that decides which weights are kept; None keeps the last.
    patience: evaluations without improvement of it before the run stops early, or None.
    plateau: such evaluations -> a lasting factor on the learning rate, see `on_plateau`, or None.
    evaluate_every: steps between evaluations; one pass over the training data where it has a length.
    notes: what the recipe found in the data and chose by it, in words, for the person.
    """

    task: Task
    train: Stream
    optimizer: MakeOptimizer | Mapping[str, MakeOptimizer]
    valid: Stream | None = None
    test: Stream | None = None
    epochs: float | None = None
    steps: int | None = None
    schedule: Schedule = field(default=constant)
    accumulate: int = 1
    clip: float | None = None
    ema: float | None = None
    swa: float | None = None
    monitor: str | None = None
    patience: int | None = None
    plateau: OnPlateau | None = None
    evaluate_every: int | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"epochs={self.epochs}, steps={self.steps}: expected exactly one of them")
        for name in ("steps", "accumulate", "patience", "evaluate_every"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name}={value}: expected at least 1")
        for name in ("epochs", "clip", "ema"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ValueError(f"{name}={value}: expected more than 0")
        if self.ema is not None and self.ema >= 1:
            raise ValueError(f"ema={self.ema}: expected less than 1")
        if self.swa is not None and not 0 <= self.swa < 1:
            raise ValueError(f"swa={self.swa}: expected in [0, 1)")
        if self.swa is not None and self.ema is not None:
            raise ValueError(f"ema={self.ema}, swa={self.swa}: expected at most one of them")
        for name, asked in (("accumulate", self.accumulate > 1), ("swa", self.swa is not None)):
            if asked and type(self.task).losses is not Task.losses:
                raise ValueError(f"{name}={getattr(self, name)} needs a task with one loss; {type(self.task).__name__} "
                                 "defines losses()")  # fmt: skip
        for name in ("patience", "plateau"):
            if getattr(self, name) is not None and self.monitor is None:
                raise ValueError(f"{name}={getattr(self, name)}: expected monitor to name the metric it watches")
        if self.monitor is not None and self.valid is None:
            raise ValueError(f"monitor={self.monitor!r}: expected valid, the data that it is measured on")
        if self.steps is None and not isinstance(self.train, Sized):
            raise ValueError(f"epochs={self.epochs}: the training stream has no length; expected steps")
        self.evaluate_every = self.evaluate_every or self._pass or max(1, self.length // 10)

    @property
    def _pass(self) -> int:
        """Steps of a pass over the training data; 0 where they have no end."""
        return max(1, len(self.train) // self.accumulate) if isinstance(self.train, Sized) else 0

    @cached_property
    def length(self) -> int:
        """Steps of the run."""
        return self.steps if self.steps is not None else max(1, round((self.epochs or 0) * self._pass))

    def optimizer_of(self, player: str) -> MakeOptimizer:
        """The optimiser of a player, by its name in the task ("" is the task itself)."""
        if callable(self.optimizer):
            return self.optimizer
        if player not in self.optimizer:
            raise ValueError(f"optimizer: none for the player {player!r}; there are {sorted(self.optimizer)}")
        return self.optimizer[player]

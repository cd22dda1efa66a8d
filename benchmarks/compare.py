"""Measuring ours and a peer in one process, alternating, so that a drifting machine harms both alike."""

import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from thalweg.training import Task
    from thalweg.vocabulary import Batch

# Peers import torchvision, whose CUDA build starts beside a CPU torch only if the operators it registers are declared.
TORCHVISION = torch.library.Library("torchvision", "FRAGMENT")
for operator in ("nms", "qnms"):
    TORCHVISION.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def alternate(runs: dict[str, Callable[[], float]], repeats: int = 5) -> dict[str, float]:
    """Median seconds of each; every function returns the seconds of its timed part; one round warms up."""
    for run in runs.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            taken[name].append(run())
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def take_turns(turns: dict[str, Iterator[object]], steps: int) -> dict[str, float]:
    """So many steps of each training, one of each in turn; the median seconds of a step of each."""
    taken: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(steps):
        for name, turn in turns.items():
            start = time.perf_counter()
            next(turn)
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


@torch.inference_mode()
def measured(task: "Task", batches: "Iterable[Batch]", names: Sequence[str]) -> dict[str, float]:
    """Metrics of a task over batches."""
    task.eval()
    for batch in batches:
        task.evaluate(batch)
    return {name: round(float(task.metrics[name].compute()), 4) for name in names}


class OtherWork:
    """The share of one core that other processes take; above 0.1 a timing is no measurement."""

    def __init__(self) -> None:
        self.start = self._busy()

    def share(self) -> float | None:
        now = self._busy()
        if now is None or self.start is None:
            return None
        machine, own, wall = (after - before for after, before in zip(now, self.start, strict=True))
        return round(max(0.0, machine - own) / wall, 2)

    @staticmethod
    def _busy() -> tuple[float, float, float] | None:
        if not os.path.exists("/proc/stat"):
            return None
        with open("/proc/stat") as file:
            ticks = [int(word) for word in file.readline().split()[1:]]
        own = os.times()
        return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK"), sum(own[:4]), time.perf_counter()

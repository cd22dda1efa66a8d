"""Measuring ours and a peer in one process, alternating, so that a drifting machine harms both alike."""

import os
import statistics
import time
from collections.abc import Callable

import torch

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

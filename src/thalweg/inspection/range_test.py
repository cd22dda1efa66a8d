"""The learning-rate range test: which rates does this experiment learn at?   Smith 2015, arXiv:1506.01186, 3.3"""

from copy import deepcopy
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING

from tqdm import tqdm

from thalweg.figures import new_figure
from thalweg.training import Experiment, Training

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class RangeTest:
    """The loss at each rate; `smoothed` is its running mean, which forgets a tenth a step.

    minimum: the rate of the smallest smoothed loss: about the largest that still learns.
    suggestion: a tenth of it, for a schedule to start from; the top of a cyclical one can lie between the two.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]

    @property
    def minimum(self) -> float:
        return self.rates[self.smoothed.index(min(self.smoothed))]

    @property
    def suggestion(self) -> float:
        return self.minimum / 10

    def figure(self) -> "Figure":
        """Loss over rate, and the suggestion."""
        figure, axes = new_figure(6, 3.4)
        axis = axes[0, 0]
        axis.plot(self.rates, self.losses, linewidth=0.8, alpha=0.4, label="loss")
        axis.plot(self.rates, self.smoothed, linewidth=1.6, color="C0", label="smoothed")
        axis.axvline(self.suggestion, color="C3", linewidth=1.2, label=f"suggestion {self.suggestion:.2g}")
        low, high = min(self.smoothed), self.smoothed[0]
        axis.set_ylim(low - 0.3 * abs(high - low), high + 0.6 * abs(high - low) + 1e-12)
        axis.set_xscale("log")
        axis.set_xlabel("learning rate")
        axis.set_ylabel("loss")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
        return figure


def range_test(
    training: Training, *, lowest: float = 1e-3, highest: float = 1e3, steps: int = 100, progress: bool = False
) -> RangeTest:
    """Trains for some steps while every rate rises geometrically, from `lowest` to `highest` times the experiment's own.

    It ends early where the smoothed loss is no number or has risen above its start by more than it fell, or than its size.
    Training is left as it was: weights, data, random numbers. The loss is that of all players together.
    ValueError for a training that has begun, fewer than 10 steps, lowest >= highest or a rate below 0.
    """
    if training.number:
        raise ValueError(f"training: has taken {training.number} steps; expected one that has not begun")
    if steps < 10:
        raise ValueError(f"steps={steps}: expected at least 10")
    if not 0 < lowest < highest:
        raise ValueError(f"lowest={lowest}, highest={highest}: expected 0 < lowest < highest")
    before, experiment = deepcopy(training.state_dict()), training.experiment
    rising = Training(_rising(experiment, lowest, highest, steps), device=training.device, precision=training.precision)
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    try:
        mean = best = 0.0
        for step in tqdm(rising, total=steps, unit="step", disable=not progress, dynamic_ncols=True):
            loss = float(sum(step.losses.values()))
            mean = 0.9 * mean + 0.1 * loss
            unbiased = mean / (1 - 0.9**step.number)
            best = min(best, unbiased) if smoothed else unbiased
            if not isfinite(loss) or (smoothed and unbiased > smoothed[0] + max(smoothed[0] - best, abs(smoothed[0]))):
                break
            rates.append(step.lr)
            losses.append(loss)
            smoothed.append(unbiased)
    finally:
        training.task.zero_grad()
        training.load_state_dict(before)
    if not rates:
        raise ValueError("the loss is no number at the first step")
    return RangeTest(rates, losses, smoothed)


def _rising(experiment: Experiment, lowest: float, highest: float, steps: int) -> Experiment:
    """The same experiment over these steps, with nothing in the way of the rate."""
    return replace(experiment, epochs=None, steps=steps, ema=None, schedule=lambda p: lowest * (highest / lowest) ** p)

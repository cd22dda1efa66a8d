"""Forecasting: how does a series of numbers go on?   LBDL 3.2, D2L 8.1"""

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import MeanSquaredError, MetricCollection

from thalweg import figures
from thalweg.decoding.rollout import foretell
from thalweg.metrics import Skill
from thalweg.training import Task
from thalweg.vocabulary import Batch


class Forecasting(Task):
    """Each value from those before it.   loss = sum_t ((model(x_1 ... x_t) - x_{t+1}) / unit)^2, t >= least

    batch: series [batch time feature]; what is evaluated goes on for max(horizons) values after the first `context`.
    context: values that the model reads at most.   least: values that it must have read before its forecasts count.
    unit: the error of each feature that counts as 1.   features: their names.   horizons: steps ahead that are told.
    rmse: of the next value, rmse_4 ... of that which is 4 steps ahead ...;   skill: 1 - mse / mse of saying the last value.
    """

    reads = "series"
    unit: Tensor

    def __init__(
        self,
        model: nn.Module,
        context: int,
        least: int = 1,
        unit: Sequence[float] = (1.0,),
        features: Sequence[str] = ("series",),
        horizons: Sequence[int] = (1, 4, 16, 64),
    ):
        super().__init__()
        if not 1 <= least <= context or not horizons or min(horizons) < 1:
            raise ValueError(f"context={context}, least={least}, horizons={horizons}: expected 1 <= least <= context, and at "
                             "least one horizon, each at least 1")  # fmt: skip
        self.model, self.context, self.least = model, context, least
        self.features, self.horizons = tuple(features), tuple(sorted(horizons))
        self.register_buffer("unit", torch.tensor(unit, dtype=torch.float32))
        longest = self.horizons[-1]
        errors = {f"rmse_{k}": MeanSquaredError(squared=False) for k in self.horizons if k > 1}
        self.metrics = MetricCollection(
            {
                "rmse": MeanSquaredError(squared=False),
                "skill": Skill(),
                **errors,
                "by_step": MeanSquaredError(squared=False, num_outputs=longest),
                "last_by_step": MeanSquaredError(squared=False, num_outputs=longest),
            },
            compute_groups=False,
        )

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        series = batch["series"]
        errors = ((self.model(series[:, :-1]) - series[:, 1:]) / self.unit)[:, self.least - 1 :]
        return errors.square().sum(), errors.numel()

    def evaluate(self, batch: Batch) -> None:
        known, future = batch["series"][:, : self.context], batch["series"][:, self.context :]
        foretold, last = foretell(self.model, known, self.horizons[-1], self.context).float(), known[:, -1:].expand_as(future)
        self.metrics["skill"].update(*(x[:, 0] / self.unit for x in (foretold, future, last)))
        for k in self.horizons:
            self.metrics[f"rmse_{k}" if k > 1 else "rmse"].update(*(x[:, k - 1].flatten() for x in (foretold, future)))
        for name, said in (("by_step", foretold), ("last_by_step", last)):
            self.metrics[name].update(*(x.transpose(1, 2).flatten(0, 1) for x in (said, future)))

    @torch.inference_mode()
    def predict(self, inputs: Batch, *, steps: int = 8) -> dict[str, Any]:
        """series: the next `steps` values.   inputs: series [batch time], or of several features those of each time in turn

        ValueError if there are fewer values than it must have read.
        """
        series = inputs["series"]
        if series.ndim == 2:
            if series.shape[1] % len(self.features):
                raise ValueError(f"series: {series.shape[1]} numbers, expected {', '.join(self.features)} of each time")
            series = series.unflatten(1, (-1, len(self.features)))
        if series.shape[1] < self.least:
            raise ValueError(f"series: {series.shape[1]} values, expected at least {self.least}")
        foretold = foretell(self.model, series, steps, self.context).float()
        return {"series": foretold.squeeze(2) if len(self.features) == 1 else foretold}

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """What was foretold so many steps before it happened; and how the error grows with the number of steps."""
        foretold = foretell(self.model, batch["series"][:, : self.context], self.horizons[-1], self.context)
        true = (torch.cat([batch[name][:, self.context], batch[name][-1, self.context + 1 :]]) for name in ("time", "series"))
        lines = {"as it was": _points(*true)}
        for k in self.horizons:
            lines[f"{k} step{'s' * (k > 1)} before"] = _points(batch["time"][:, self.context + k - 1], foretold[:, k - 1])
        errors = {
            name: list(enumerate(self.metrics[metric].compute().reshape(-1).tolist(), 1))
            for name, metric in (("forecast", "by_step"), ("last value", "last_by_step"))
        }
        return {"forecasts": figures.curves(lines, xlabel="time", ylabel=self.features[0]),
                "error": figures.curves(errors, xlabel="steps ahead", ylabel="root mean square error")}  # fmt: skip


def _points(time: Tensor, value: Tensor) -> list[tuple[float, float]]:
    """The first feature over time.   time: [n], value: [n feature]"""
    return list(zip(time.tolist(), value[:, 0].tolist(), strict=True))

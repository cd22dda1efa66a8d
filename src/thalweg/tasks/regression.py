"""Regression: how much, how many.   LBDL 1.1, D2L 3.1"""

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection, R2Score

from thalweg import figures
from thalweg.metrics import MeanLoss
from thalweg.training import Task
from thalweg.vocabulary import Batch


class Regression(Task):
    """Numbers for an example.   loss = ((model(features) - target) / unit)^2, summed over examples and targets

    batch: features [batch feature], target [batch target].   targets, features: the names of the columns.
    unit: the error of each target that counts as 1, such as its deviation, so that no unit of measurement outweighs another.
    Metrics are in the targets' own units: r2, the share of the variance that is explained, rmse and mae.
    """

    reads = "features"

    def __init__(
        self,
        model: nn.Module,
        targets: Sequence[str] = ("target",),
        unit: Sequence[float] | None = None,
        features: Sequence[str] = (),
    ):
        super().__init__()
        unit = [1.0] * len(targets) if unit is None else unit
        if len(unit) != len(targets) or not all(value > 0 for value in unit):
            raise ValueError(f"unit={unit}: expected a positive number for each of the targets {list(targets)}")
        self.model, self.targets, self.features = model, tuple(targets), tuple(features)
        self.register_buffer("unit", torch.tensor(unit, dtype=torch.float32))
        self.metrics = MetricCollection(
            {"r2": R2Score(), "rmse": MeanSquaredError(squared=False), "mae": MeanAbsoluteError(), "loss": MeanLoss()},
            compute_groups=False,
        )

    def errors(self, batch: Batch) -> Tensor:
        """(model(features) - target) / unit   [batch target]"""
        return (self.model(batch["features"]) - batch["target"]) / self.unit

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        errors = self.errors(batch)
        return errors.square().sum(), errors.numel()

    def evaluate(self, batch: Batch) -> None:
        predicted, target = self.model(batch["features"]).float(), batch["target"]
        for name in ("r2", "rmse", "mae"):
            self.metrics[name].update(predicted, target)
        self.metrics["loss"].update(((predicted - target) / self.unit).square())

    @torch.inference_mode()
    def predict(self, inputs: Batch) -> dict[str, Any]:
        """The predicted numbers of each target, by its name.   inputs: features [batch feature]

        ValueError, with their names, if there are fewer or more features than there should be.
        """
        if self.features and inputs["features"].shape[1] != len(self.features):
            raise ValueError(f"features: {inputs['features'].shape[1]} numbers, expected {len(self.features)}: "
                             f"{', '.join(self.features)}")  # fmt: skip
        return dict(zip(self.targets, self.model(inputs["features"]).float().unbind(1), strict=True))

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """Predicted against true: on the line is right."""
        drawn = figures.against_truth(self.model(batch["features"]), batch["target"], self.targets)
        return {"predicted against true": drawn}

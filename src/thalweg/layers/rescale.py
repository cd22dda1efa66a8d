"""Tables in their own units: what a model of numbers must see and say is scaled by its first and its last layer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Rescaled(nn.Module):
    """A model that takes and gives numbers as they were measured.

    y = target_deviation * model((x - mean) / deviation) + target_mean, in float32 also where products are in bf16,
    which has three digits only.   x: [batch feature] -> y: [batch target].   ValueError for unequal or zero deviations.
    """

    mean: Tensor
    deviation: Tensor
    target_mean: Tensor
    target_deviation: Tensor

    def __init__(
        self,
        model: nn.Module,
        mean: Sequence[float],
        deviation: Sequence[float],
        target_mean: Sequence[float],
        target_deviation: Sequence[float],
    ):
        super().__init__()
        if len(mean) != len(deviation) or len(target_mean) != len(target_deviation):
            raise ValueError(f"mean={mean}, deviation={deviation}, target_mean={target_mean}, "
                             f"target_deviation={target_deviation}: expected as many means as deviations")  # fmt: skip
        if not all([*deviation, *target_deviation]):
            raise ValueError(f"deviation={deviation}, target_deviation={target_deviation}: expected no zero")
        self.model = model
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("deviation", torch.tensor(deviation))
        self.register_buffer("target_mean", torch.tensor(target_mean))
        self.register_buffer("target_deviation", torch.tensor(target_deviation))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != len(self.mean):
            raise ValueError(f"x: {x.shape[-1]} numbers an example, expected {len(self.mean)}")
        with torch.autocast(x.device.type, enabled=False):
            return self.target_deviation * self.model((x - self.mean) / self.deviation) + self.target_mean


def rescale(
    model: nn.Module,
    *,
    mean: Sequence[float],
    deviation: Sequence[float],
    target_mean: Sequence[float],
    target_deviation: Sequence[float],
) -> nn.Module:
    """The model between layers that scale, see Rescaled."""
    return Rescaled(model, mean, deviation, target_mean, target_deviation)


def column_moments(features: Tensor, target: Tensor) -> dict[str, list[float]]:
    """Mean and deviation of every column, 1 where it is constant, to hand to `rescale`.   [row feature], [row target]"""
    result: dict[str, list[float]] = {}
    for prefix, table in (("", features), ("target_", target)):
        deviation, mean = torch.std_mean(table.double(), 0)
        result |= {f"{prefix}mean": mean.tolist(), f"{prefix}deviation": torch.where(deviation > 0, deviation, 1.0).tolist()}
    return result

"""Which parameters an optimiser moves, which of them decay, and which numbers it refuses."""

import math
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

MakeOptimizer = Callable[[nn.Module], Optimizer]

KEPT = ("alpha", "betas", "momentum", "rho")  # the share of a running mean that a step keeps


def trainable(module: nn.Module) -> list[Tensor]:
    """The parameters that are not frozen."""
    return [p for p in module.parameters() if p.requires_grad]


def decayed(parameters: Iterable[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices and filters decay, vectors and scalars (norms, biases) do not; one where nothing decays."""
    parameters = list(parameters)
    if weight_decay == 0:
        return [{"params": parameters, "weight_decay": 0.0}]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def check(**numbers: float | tuple[float, float]) -> None:
    """ValueError for a negative number, or for one of a running mean (KEPT) that is not below 1."""
    for name, value in numbers.items():
        below = 1 if name in KEPT else math.inf
        if not all(0 <= number < below for number in (value if isinstance(value, tuple | list) else (value,))):
            raise ValueError(f"{name}={value}: expected {'in [0, 1)' if name in KEPT else 'at least 0'}")

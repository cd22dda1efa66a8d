"""Descent an example at a time, by several threads at once."""

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from thalweg.training import distribution
from thalweg.training.optimisers.groups import MakeOptimizer, check


def hogwild(lr: float) -> MakeOptimizer:
    """Plain gradient descent, a step for every example of a batch, and not one for their mean.

    w = w - lr g_i(w) for one example i after the other: as many steps as examples, which is worth it where each touches few
    of the weights. Threads do not wait for each other; what one changes another may overwrite, which is rare where few are
    touched. With one thread a run is the same again, with several it is not.
    The module takes the steps itself: `module.descend(rate)`, for the examples of its last loss.   One process.
    Niu, Recht, Ré, Wright 2011, arXiv:1106.5730.
    """
    check(lr=lr)

    def make(module: nn.Module) -> Optimizer:
        if not hasattr(module, "descend"):
            raise ValueError(f"hogwild: {type(module).__name__} has no method descend(rate)")
        if distribution.world_size() > 1:
            raise ValueError(f"hogwild: goes in one process, not in {distribution.world_size()}")
        return Hogwild(module, lr)

    return make


class Hogwild(Optimizer):
    """Lets a module descend, see `hogwild`."""

    def __init__(self, module: nn.Module, lr: float):
        super().__init__(module.parameters(), {"lr": lr})
        self.module: Any = module

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.module.descend(self.param_groups[0]["lr"])

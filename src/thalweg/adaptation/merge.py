"""Models that learned different things from one beginning are merged into one that knows them all.   LBDL 8.4"""

from collections.abc import Sequence

import torch
from torch import nn


@torch.no_grad()
def merge(base: nn.Module, tuned: Sequence[nn.Module], weights: Sequence[float]) -> nn.Module:
    """Task arithmetic: theta = theta_0 + sum_t w_t (theta_t - theta_0), written into the base, theta_0, which is returned.

    tuned: what became of the base by learning on, each in a direction of its own.   weights: how far to go in each; one below
    0 takes away what was learned. With 1 / T for T models it is their mean.
    Buffers of whole numbers stay as they are in the base.
    ValueError unless all have the same history and there is a weight for each.   Ilharco et al. 2022, arXiv:2212.04089.
    """
    if len(tuned) != len(weights) or not tuned:
        raise ValueError(f"weights: {len(weights)} for {len(tuned)} models, expected one each, and at least one")
    for place, model in enumerate(tuned):
        if getattr(model, "history", None) != getattr(base, "history", None):
            raise ValueError(f"tuned: model {place} was not built as the base was, so that its numbers mean other things")
    learned = [model.state_dict() for model in tuned]
    held = {name: value for name, value in base.state_dict().items() if value.is_floating_point()}
    starts = {name: value.to(torch.float64, copy=True) for name, value in held.items()}  # a shared table has several names
    for name, start in starts.items():
        moved = sum(weight * (one[name].double() - start) for weight, one in zip(weights, learned, strict=True))
        held[name].copy_(start + moved)
    return base

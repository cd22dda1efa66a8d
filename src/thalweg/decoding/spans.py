"""The likeliest span of a text, from what is said of its ends.   D2L 15.6, LEE BERT"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def best_spans(
    start: Float[Tensor, "batch time"], end: Float[Tensor, "batch time"], allowed: Bool[Tensor, "batch time"], longest: int
) -> tuple[Int[Tensor, "batch 2"], Float[Tensor, " batch"]]:
    """The i <= j < i + longest, both allowed, of the largest start_i + end_j; and that sum."""
    time = start.shape[1]
    score = start.masked_fill(~allowed, -torch.inf)[:, :, None] + end.masked_fill(~allowed, -torch.inf)[:, None]
    near = torch.ones(time, time, dtype=torch.bool, device=start.device).triu().tril(longest - 1)
    best, place = score.masked_fill(~near, -torch.inf).flatten(1).max(1)
    return torch.stack([place // time, place % time], 1), best

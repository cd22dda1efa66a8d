"""Attention that learns which part of a text each part should read, as a sorting of blocks.   LEE "Attention Variant" """

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import pad

from thalweg.layers.attention import attention


def sinkhorn(score: Float[Tensor, "*any block block"], steps: int = 8) -> Float[Tensor, "*any block block"]:
    """The nearest doubly stochastic matrix to exp(score): rows and columns sum to 1, as those of a permutation that is soft.

    Columns and rows are divided by their sums in turn, `steps` times, as logarithms; rows last, so these sum to 1 exactly and
    columns the better the more steps.   Sinkhorn 1964; Mena et al. 2018, arXiv:1802.08665.
    """
    for _ in range(steps):
        score = score - score.logsumexp(-2, keepdim=True)
        score = score - score.logsumexp(-1, keepdim=True)
    return score.exp()


class SinkhornAttention(nn.Module):
    """Each block of places reads itself and one other block, which a small network has sorted to it.

    y of block i = attention of its queries to [k'_i, k_i],   k'_i = sum_j R_ij k_j, and v' alike,
    R = sinkhorn((W_2 relu(W_1 m) + gumbel) / temperature), row i of m the sum of the keys of block i; W_1, W_2 for all heads.
    Time grows as time 2 block, and R as (time / block)^2.
    query, key, value: [batch head time dim], time at most `context`.   gumbel: noise in training, with which R is a sample.
    mask: True where a place is real; a sorted key counts as far as what it is a mixture of is real.   Not causal.
    ValueError if block does not divide context, or time > context.   Tay et al. 2020, arXiv:2002.11296.
    """

    def __init__(self, dim: int, context: int, block: int, hidden_dim: int = 64, temperature: float = 0.75, steps: int = 8):
        super().__init__()
        if context % block:
            raise ValueError(f"context={context}: expected a multiple of block={block}")
        self.context, self.block, self.temperature, self.steps = context, block, temperature, steps
        self.up, self.down = nn.Linear(dim, hidden_dim), nn.Linear(hidden_dim, context // block)

    def sorting(self, key: Float[Tensor, "batch head block place dim"]) -> Float[Tensor, "batch head block block"]:
        """R: how much each block (row) takes of each (column)."""
        number = key.shape[2]
        score = self.down(self.up(key.sum(3)).relu())[..., :number]
        if self.training:
            score = score - torch.empty_like(score).exponential_().clamp(min=1e-20).log()
        return sinkhorn(score / self.temperature, self.steps)

    def forward(
        self,
        query: Float[Tensor, "batch head time dim"],
        key: Float[Tensor, "batch head time dim"],
        value: Float[Tensor, "batch head time out"],
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch head time out"]:
        time, missing = query.shape[2], -query.shape[2] % self.block
        if time > self.context:
            raise ValueError(f"query: {time} places, made for at most context={self.context}")
        query, key, value = (pad(x, (0, 0, 0, missing)).unflatten(2, (-1, self.block)) for x in (query, key, value))
        seen = share = None
        if mask is not None or missing:
            whole = query.new_ones(len(query), time, dtype=torch.bool) if mask is None else mask
            real = pad(whole, (0, missing)).unflatten(1, (-1, self.block))[:, None, :, :, None].to(key.dtype)
            key, value = key * real, value * real
        mixture = self.sorting(key)

        def beside(x: Tensor) -> Tensor:
            """What was sorted to each block, then its own."""
            return torch.cat([(mixture @ x.flatten(3)).unflatten(3, x.shape[3:]), x], 3).flatten(1, 2)

        if mask is not None or missing:
            share = beside(real.expand(-1, key.shape[1], -1, -1, -1)).mT  # of each key that is real, [batch block 1 2 block]
            seen, share = share > 0, share.clamp(min=1e-6).log()
        y = attention(query.flatten(1, 2), beside(key), beside(value), seen, share)
        return y.unflatten(1, key.shape[1:3]).flatten(2, 3)[:, :, :time]

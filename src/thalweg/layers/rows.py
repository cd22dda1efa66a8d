"""Tokens that move within their rows, all rows at once: repeated, taken out, put in between.   LEE NAT"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def compact(tokens: Int[Tensor, "rows time"], keep: Bool[Tensor, "rows time"], pad: int) -> Int[Tensor, "rows _"]:
    """The tokens that are kept, moved together; padding behind them, no more than the longest row needs."""
    order = (~keep).long().argsort(dim=1, stable=True)
    return tokens.masked_fill(~keep, pad).gather(1, order)[:, : int(keep.sum(1).max())]


def repeated(
    tokens: Int[Tensor, "rows time"], times: Int[Tensor, "rows time"], pad: int
) -> tuple[Int[Tensor, "rows _"], Bool[Tensor, "rows _"]]:
    """Every token so many times in a row, none where it is 0; and where the result is real.   a b c, 2 0 1 -> a a c"""
    ends = times.cumsum(1)
    place = torch.arange(int(ends[:, -1].max()), device=tokens.device).expand(len(tokens), -1).contiguous()
    mask = place < ends[:, -1:]
    origin = torch.searchsorted(ends, place, right=True).clamp(max=tokens.shape[1] - 1)
    return tokens.gather(1, origin).masked_fill(~mask, pad), mask


def interleaved(between: Int[Tensor, "rows slot"], tokens: Int[Tensor, "rows time"]) -> Int[Tensor, "rows all"]:
    """What stands before each of the tokens and behind the last, and they: b_0 t_0 b_1 t_1 ... b_T.   slot = time + 1"""
    merged = torch.stack([between[:, :-1], tokens], 2).flatten(1)
    return torch.cat([merged, between[:, -1:]], 1)

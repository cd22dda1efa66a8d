"""Attention: every place asks, and reads most where the answer fits its question.   LBDL 4.8, D2L 10.1-10.6"""

from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

LONG = 1024  # places up to which a CPU multiplies the matrices of the formula faster than torch's kernel goes through them


def attention(
    query: Float[Tensor, "batch head time dim"],
    key: Float[Tensor, "batch head read dim"],
    value: Float[Tensor, "batch head read dim"],
) -> Float[Tensor, "batch head time dim"]:
    """Every query reads every key.

    y_t = sum_s a_ts v_s,   a_t = softmax_s(q_t . k_s / sqrt(dim)).   Vaswani et al. 2017, arXiv:1706.03762.
    """
    if query.device.type != "cpu" or query.dtype != torch.bfloat16 or key.shape[-2] > LONG:
        return scaled_dot_product_attention(query, key, value)  # in float32 a CPU is as fast with torch's kernel
    nothing = query.new_zeros(1, 1, 1)
    score = torch.baddbmm(nothing, query.flatten(0, 1), key.flatten(0, 1).mT, beta=0, alpha=1 / sqrt(query.shape[-1]))
    return (score.softmax(-1) @ value.flatten(0, 1)).unflatten(0, query.shape[:2])


def causal_attention(
    query: Float[Tensor, "batch head time dim"],
    key: Float[Tensor, "batch head read dim"],
    value: Float[Tensor, "batch head read dim"],
) -> Float[Tensor, "batch head time dim"]:
    """Every place reads itself and the places before it; the last query is at the place of the last key.

    y_t = sum_s a_ts v_s,   a_t = softmax_s(q_t . k_s / sqrt(dim)) over s <= t + read - time.
    ValueError if there are fewer keys than queries.   Vaswani et al. 2017, arXiv:1706.03762.
    """
    time, read = query.shape[-2], key.shape[-2]
    if read < time:
        raise ValueError(f"key: {read} places, expected at least the {time} of the queries")
    if query.device.type != "cpu" or read > LONG:
        seen = None if time in (1, read) else query.new_ones(time, read, dtype=torch.bool).tril(read - time)
        return scaled_dot_product_attention(query, key, value, seen, is_causal=1 < time == read)
    future = query.new_full((time, read), -torch.inf).triu(read - time + 1)
    score = torch.baddbmm(future, query.flatten(0, 1), key.flatten(0, 1).mT, alpha=1 / sqrt(query.shape[-1]))
    return (score.softmax(-1) @ value.flatten(0, 1)).unflatten(0, query.shape[:2])


class KeyValueCache:
    """The keys and values of one layer for the places read so far, in memory that is taken once.

    length: places read.   No gradient flows through it.   ValueError from append if they would be more than `time`.
    """

    def __init__(self, batch: int, num_heads: int, time: int, dim: int, like: Tensor):
        self.key, self.value = (like.new_empty(batch, num_heads, time, dim) for _ in range(2))
        self.length = 0

    def append(
        self, key: Float[Tensor, "batch head time dim"], value: Float[Tensor, "batch head time dim"]
    ) -> tuple[Float[Tensor, "batch head read dim"], Float[Tensor, "batch head read dim"]]:
        """Takes in the keys and values of the next places; returns those of all places so far."""
        start, self.length = self.length, self.length + key.shape[-2]
        if self.length > self.key.shape[-2]:
            raise ValueError(f"cache: {self.length} places to keep, made for time={self.key.shape[-2]}")
        for held, new in ((self.key, key), (self.value, value)):
            held[:, :, start : self.length] = new.detach()
        return self.key[:, :, : self.length], self.value[:, :, : self.length]

"""Places that are mixed without comparing a query with a key.   LEE "Attention Variant": do we need them?"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from thalweg.layers.attention import masked_softmax


class DenseSynthesizer(nn.Module):
    """Each place says from itself alone how much it takes of which place.

    y_t = W_o [h_1, ..., h_H],   h_i = sum_s a_ts v_s,   a_t = softmax_s((W_2 relu(W_1 x_t))_s), one W_1, W_2 a head.
    x: [batch time embed], time at most `context` -> [batch time embed].   mask: True where a place read is real.
    causal: s <= t.   ValueError if the heads do not divide, or time > context.   Tay et al. 2020, arXiv:2005.00743.
    """

    def __init__(self, embed_dim: int, num_heads: int, context: int, causal: bool = False):
        super().__init__()
        _divides(embed_dim, num_heads)
        self.num_heads, self.context, self.causal = num_heads, context, causal
        dim = embed_dim // num_heads
        self.up, self.down = nn.Linear(embed_dim, embed_dim), nn.Parameter(torch.randn(num_heads, dim, context) / dim**0.5)
        self.value, self.output = nn.Linear(embed_dim, embed_dim), nn.Linear(embed_dim, embed_dim)

    def forward(
        self, x: Float[Tensor, "batch time embed"], mask: Bool[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time embed"]:
        time = _short_enough(x, self.context)
        hidden = self.up(x).relu().unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        weights = _weights(hidden @ self.down[..., :time], mask, self.causal)
        value = self.value(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return self.output((weights @ value).transpose(1, 2).flatten(2))


class RandomSynthesizer(nn.Module):
    """Each place takes the same of each place, whatever they hold.

    As `DenseSynthesizer` with a_t = softmax_s(R_ts), R: [head context context], learned; or, not learned, as it was drawn.
    Tay et al. 2020, arXiv:2005.00743.
    """

    def __init__(self, embed_dim: int, num_heads: int, context: int, learned: bool = True, causal: bool = False):
        super().__init__()
        _divides(embed_dim, num_heads)
        self.num_heads, self.context, self.causal = num_heads, context, causal
        self.score = nn.Parameter(torch.randn(num_heads, context, context), requires_grad=learned)
        self.value, self.output = nn.Linear(embed_dim, embed_dim), nn.Linear(embed_dim, embed_dim)

    def forward(
        self, x: Float[Tensor, "batch time embed"], mask: Bool[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time embed"]:
        time = _short_enough(x, self.context)
        weights = _weights(self.score[:, :time, :time], mask, self.causal)
        value = self.value(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return self.output((weights @ value).transpose(1, 2).flatten(2))


class AttentionFree(nn.Module):
    """Every channel for itself takes a mean of the places, weighted by its keys and by the distance; the query is a gate (AFT).

    y_t = W_o (sigmoid(q_t) * sum_s exp(k_s + w_ts) v_s / sum_s exp(k_s + w_ts)),   w: [context context], learned.
    So exp(w) @ (exp(k) v) does it: time^2 embed operations, and memory of time (time + embed).
    x: [batch time embed], time at most `context`.   mask: True where a place read is real; where none is, y_t = W_o 0.
    causal: s <= t.   ValueError if time > context.   Zhai et al. 2021, arXiv:2105.14103.
    """

    def __init__(self, embed_dim: int, context: int, causal: bool = False):
        super().__init__()
        self.context, self.causal = context, causal
        self.query, self.key, self.value, self.output = (nn.Linear(embed_dim, embed_dim) for _ in range(4))
        self.position = nn.Parameter(0.02 * torch.randn(context, context))

    def forward(
        self, x: Float[Tensor, "batch time embed"], mask: Bool[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time embed"]:
        time = _short_enough(x, self.context)
        key, position = self.key(x), self.position[:time, :time]
        if mask is not None:
            key = key.masked_fill(~mask[..., None], torch.finfo(key.dtype).min)
        # the largest exponents are taken out above and below the line, so nothing overflows
        key = (key - key.detach().amax(1, keepdim=True)).exp()
        key = key if mask is None else key * mask[..., None]
        position = (position - position.detach().amax(-1, keepdim=True)).exp()
        position = position.tril() if self.causal else position
        above, below = (position @ torch.cat([key * self.value(x), key], -1)).chunk(2, -1)
        return self.output(self.query(x).sigmoid() * above / torch.where(below > 0, below, 1))


def fourier_mixing(x: Float[Tensor, "batch time embed"]) -> Float[Tensor, "batch time embed"]:
    """Every number becomes a sum of all, with nothing to learn: the real part of a Fourier transform in both directions.

    y_tc = sum_s sum_d x_sd cos(2 pi (t s / time + c d / embed)); time log time operations.   Not causal.
    Lee-Thorp et al. 2021, arXiv:2105.03824 (FNet).
    """
    return torch.fft.fft2(x).real


def _weights(score: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """softmax over the places that are real and, if causal, not after."""
    seen = None if mask is None else mask[:, None, None]
    if causal:
        past = score.new_ones(score.shape[-2:], dtype=torch.bool).tril()
        seen = past if seen is None else seen & past
    return masked_softmax(score if mask is None or score.ndim == 4 else score.expand(len(mask), *score.shape), seen)


def _divides(embed_dim: int, num_heads: int) -> None:
    if embed_dim % num_heads:
        raise ValueError(f"embed_dim={embed_dim}: expected a multiple of num_heads={num_heads}")


def _short_enough(x: Tensor, context: int) -> int:
    if x.shape[1] > context:
        raise ValueError(f"x: {x.shape[1]} places, made for at most context={context}")
    return x.shape[1]

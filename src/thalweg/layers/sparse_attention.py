"""Attention that reads a few places of a long text: near ones, every so many-th, some that all read, some at random.

A pattern says which query may read which key, as a function of their places. As a mask it makes attention exact and no
faster; what is computed in blocks costs as much as it reads.   LEE "Attention Variant"
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from thalweg.layers.attention import attention

Pattern = Callable[[Tensor, Tensor], Tensor]  # places t of queries, s of keys, which broadcast -> may t read s?


def local(window: int) -> Pattern:
    """Neighbours: |t - s| <= window. A layer of it sees as far as a convolution of 2 window + 1 places."""
    return lambda t, s: (t - s).abs() <= window


def strided(stride: int) -> Pattern:
    """Every so many-th place, counted from the query's own: s = t modulo stride.   Child et al. 2019, arXiv:1904.10509."""
    return lambda t, s: (t - s) % stride == 0


def global_tokens(tokens: int) -> Pattern:
    """The first `tokens` places read all and are read by all, so any place is two steps from any other."""
    return lambda t, s: (t < tokens) | (s < tokens)


def blocks(chosen: Int[Tensor, "block count"], block: int) -> Pattern:
    """Places in blocks of `block`; those of block i read the blocks chosen[i], see `random_blocks`."""
    return lambda t, s: (chosen[t // block] == (s // block)[..., None]).any(-1)


def union(*patterns: Pattern) -> Pattern:
    """Whatever one of them reads."""

    def read(t: Tensor, s: Tensor) -> Tensor:
        found = patterns[0](t, s)
        for pattern in patterns[1:]:
            found = found | pattern(t, s)
        return found

    return read


def longformer(window: int, tokens: int) -> Pattern:
    """A window that slides along the text, and global tokens.   Beltagy, Peters, Cohan 2020, arXiv:2004.05150."""
    return union(local(window), global_tokens(tokens))


def big_bird(window: int, tokens: int, chosen: Int[Tensor, "block count"]) -> Pattern:
    """Longformer's pattern and random blocks of `window` places, which make long ways short.

    Zaheer et al. 2020, arXiv:2007.14062.   Elsewhere: their window too is of whole blocks.
    """
    return union(longformer(window, tokens), blocks(chosen, window))


def random_blocks(
    time: int, block: int, count: int, generator: torch.Generator | None = None, causal: bool = False
) -> Int[Tensor, "block count"]:
    """For each block of `block` places, `count` different others drawn at random; causal: of those before, as far as there are.

    ValueError if there are not so many others.
    """
    number = -(-time // block)
    if count >= number:
        raise ValueError(f"count={count}: expected fewer than the {number} blocks of {time} places")
    chance = torch.rand(number, number, generator=generator)
    chance.fill_diagonal_(-1)
    if causal:
        chance -= torch.ones(number, number).triu(1)
    return chance.topk(count).indices


def pattern_mask(
    patterns: Sequence[Pattern], time: int, causal: bool = False, device: torch.device | None = None
) -> Bool[Tensor, "head time time"]:
    """What `attention` takes: True where the query of a row may read the key of a column; a pattern for each head."""
    places = torch.arange(time, device=device)
    mask = torch.stack([pattern(places[:, None], places) for pattern in patterns])
    return mask.tril() if causal else mask


def sparse_attention(
    query: Float[Tensor, "batch head time dim"],
    key: Float[Tensor, "batch head time dim"],
    value: Float[Tensor, "batch head time out"],
    window: int,
    tokens: int = 0,
    chosen: Int[Tensor, "block count"] | None = None,
    mask: Bool[Tensor, "batch time"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "batch head time out"]:
    """Attention of the pattern `big_bird(window, tokens, chosen)`, `longformer` without chosen, `local` without tokens too.

    Time is cut into blocks of `window` places. A block of queries has before it: its own block of keys, that to the left and
    (unless causal) to the right, the chosen ones and the global tokens, (3 + count) window + tokens keys; a mask hides what
    lies outside of the pattern, and what stands there twice. So time and memory grow as `time`, not as its square.
    chosen: blocks that each block reads besides, different ones in a row.   mask: True where a place is real.
    ValueError if window < 1, or if chosen has a row for other than each block.
    """
    time = query.shape[2]
    number = -(-time // window) if window > 0 else 0
    if window < 1 or (chosen is not None and len(chosen) != number):
        rows = None if chosen is None else len(chosen)
        raise ValueError(f"window={window}, chosen: {rows} rows: expected at least 1, and {number} for {time} places")
    tokens, missing = min(tokens, time), number * window - time
    sides = 1 if causal else 2
    around = (0, 0, window, missing + window * (sides - 1))
    own = torch.arange(number, device=query.device)[:, None] * window
    t = own + torch.arange(window, device=query.device)  # [block window]
    s = own + torch.arange(-window, sides * window, device=query.device)
    seen = local(window)(t[..., None], s[:, None]) & (s >= tokens)[:, None]
    parts = [[pad(x, around).unfold(2, (1 + sides) * window, window).movedim(-1, -2) for x in (key, value)]]
    if chosen is not None:
        far = (chosen[..., None] * window + torch.arange(window, device=query.device)).flatten(1)
        fresh = ~local(window)(t[..., None], far[:, None]) & (far >= tokens)[:, None]
        s, seen = torch.cat([s, far], 1), torch.cat([seen, fresh], 2)
        parts.append([pad(x, (0, 0, 0, missing)).index_select(2, far.flatten()).unflatten(2, far.shape) for x in (key, value)])
    if tokens:
        first = torch.arange(tokens, device=query.device).expand(number, -1)
        s, seen = torch.cat([s, first], 1), pad(seen, (0, tokens), value=True)
        parts.append([x[:, :, None, :tokens].expand(-1, -1, number, -1, -1) for x in (key, value)])
    real = (s >= 0) & (s < time)
    seen = seen & real[:, None]
    if causal:
        seen = seen & (s[:, None] <= t[..., None])
    if mask is not None:
        seen = seen & mask[:, s.clamp(0, time - 1)][:, :, None]
    # blocks stand beside the batch: the mask is the same for all heads
    blocked = pad(query, (0, 0, 0, missing)).unflatten(2, (number, window)).transpose(1, 2).flatten(0, 1)
    keys, values = (torch.cat(part, 3).transpose(1, 2).flatten(0, 1) for part in zip(*parts, strict=True))
    seen = seen.expand(len(query), -1, -1, -1).flatten(0, 1)[:, None]
    y = attention(blocked, keys, values, seen).unflatten(0, (-1, number)).transpose(1, 2).flatten(2, 3)[:, :, :time]
    if not tokens:
        return y
    read = tokens if causal else time  # what the global tokens may read
    real_keys = None if mask is None else mask[:, None, None, :read]
    whole = attention(query[:, :, :tokens], key[:, :, :read], value[:, :, :read], real_keys, causal=causal)
    return torch.cat([whole, y[:, :, tokens:]], 2)


def strided_attention(
    query: Float[Tensor, "batch head time dim"],
    key: Float[Tensor, "batch head time dim"],
    value: Float[Tensor, "batch head time out"],
    stride: int,
    mask: Bool[Tensor, "batch time"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "batch head time out"]:
    """Attention of the pattern `strided(stride)`: places of the same remainder are a text of their own, time / stride long.

    mask: True where a place is real.   Child et al. 2019, arXiv:1904.10509.
    """
    time, missing = query.shape[2], -query.shape[2] % stride
    query, key, value = (pad(x, (0, 0, 0, missing)).unflatten(2, (-1, stride)).permute(0, 3, 1, 2, 4).flatten(0, 1)
                         for x in (query, key, value))  # fmt: skip
    seen = None
    if mask is not None or missing:
        whole = query.new_ones(len(query) // stride, time, dtype=torch.bool) if mask is None else mask
        seen = pad(whole, (0, missing)).unflatten(1, (-1, stride)).mT.flatten(0, 1)[:, None, None]
    y = attention(query, key, value, seen, causal=causal)
    return y.unflatten(0, (-1, stride)).permute(0, 2, 3, 1, 4).flatten(2, 3)[:, :, :time]

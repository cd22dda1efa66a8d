"""Where a token stands, for layers that see their inputs as a set.   LBDL 4.10, D2L 10.6

Three ways: a code of the place is added to the token (sinusoidal; learned ones are an nn.Embedding of places), queries and
keys are turned by their places (rotary), or a bias that knows the distance alone is added to the scores (the others here).
As in causal attention, the last of `time` queries stands at the place of the last of `read` keys, so a cache needs no offset.
"""

from collections.abc import Sequence
from math import log, log2, pi, sqrt

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad


def sinusoidal(start: int, time: int, dim: int, like: Tensor, base: float = 10000.0) -> Float[Tensor, "time dim"]:
    """Codes of the places start, ..., start + time - 1: hands of clocks, each slower than the one before.

    p(t, d) = sin(t / base^(d / dim)) for even d, cos(t / base^((d - 1) / dim)) for odd d.
    A step of k places turns each pair (p(t, d), p(t, d + 1)) by an angle that depends on k alone: a linear map.
    like: gives type and device.   Vaswani et al. 2017, arXiv:1706.03762.
    Elsewhere: tensor2tensor and fairseq put all sines before all cosines.
    """
    angle = _angles(start, time, dim, like, base)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :dim].to(like.dtype)


def _angles(start: int | Tensor, time: int, dim: int, like: Tensor, base: float) -> Tensor:
    """t base^(-2 i / dim), as exact as float32 at least.   [time pair], or [batch time pair] of a start a text"""
    exact, device = torch.promote_types(like.dtype, torch.float32), like.device
    place, pair = (torch.arange(*ends, dtype=exact, device=device) for ends in ((0, time), (0, dim, 2)))
    first = start[:, None] if isinstance(start, Tensor) else start
    return (first + place)[..., None] * base ** (-pair / dim)


def rotation(
    start: int | Int[Tensor, " batch"],
    time: int,
    dim: int,
    like: Tensor,
    base: float = 10000.0,
    slower: Sequence[float] | None = None,
) -> Float[Tensor, "2 *batch time dim"]:
    """Cosine and signed sine of the angles by which `rotate` turns the places start, ..., start + time - 1.

    angle(t, i) = t base^(-2 i / dim) / s_i, i = 0, ..., dim / 2 - 1.   dim even.   like: gives type and device.
    start: a number, or one a text; the turns are then [2 batch 1 time dim], for heads to stand in the middle.
    slower: the s_i, all 1 if None, see `slowed`.   ValueError if dim is odd.
    """
    if dim % 2:
        raise ValueError(f"dim={dim}: rotary positions turn pairs, so expected an even number")
    angle = _angles(start, time, dim, like, base)
    if slower is not None:
        angle = angle / torch.tensor(slower, dtype=angle.dtype, device=angle.device)
    if isinstance(start, Tensor):
        angle = angle[:, None]
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)]).to(like.dtype)


def slowed(dim: int, base: float, factor: float, low: float, high: float, context: float) -> list[float]:
    """By how much each pair turns slower, so that a model trained on `context` tokens can go on to read `factor` times as many.

    A pair that turns n = context base^(-2 i / dim) / (2 pi) times within the context keeps its pace if n > high, turns `factor`
    times slower if n < low, and between them 1 / s = (1 - a) / factor + a, a = (n - low) / (high - low).
    Llama 3.1, 2024, arXiv:2407.21783; the idea: Peng et al. 2023, arXiv:2309.00071.
    """
    turns = [context * base ** (-pair / dim) / (2 * pi) for pair in range(0, dim, 2)]
    share = [min(1.0, max(0.0, (n - low) / (high - low))) for n in turns]
    return [1 / ((1 - a) / factor + a) for a in share]


def rotate(x: Float[Tensor, "*any time dim"], turn: Float[Tensor, "2 *batch time dim"]) -> Float[Tensor, "*any time dim"]:
    """Turns each pair (x_i, x_{i + dim/2}) by an angle that grows with its place, so a dot product sees their distance.

    y_i = x_i cos(a_i) - x_{i + dim/2} sin(a_i),   y_{i + dim/2} = x_{i + dim/2} cos(a_i) + x_i sin(a_i).
    rotate(q, place s) . rotate(k, place t) depends on s - t alone.   Su et al. 2021, arXiv:2104.09864.
    Elsewhere: the paper turns neighbouring pairs (x_2i, x_2i+1); Hugging Face turns halves, as here.
    """
    cos, sin = turn
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def distances(time: int, read: int, device: torch.device | None = None) -> Int[Tensor, "distance"]:
    """All that there are between the places of queries and keys, s - t from 1 - read to time - 1."""
    return torch.arange(1 - read, time, device=device)


def spread(line: Float[Tensor, "*any distance"], read: int) -> Float[Tensor, "*any time read"]:
    """Gives every pair of places the number of its distance, b_ts = line(s - t).   line: in the order of `distances`"""
    return line.unfold(-1, read, 1).flip(-2)


def aligned(score: Float[Tensor, "*any time read"]) -> Float[Tensor, "*any time read"]:
    """Gives every pair of places the score that its query has for its distance: y_ts = score(t, t - s).

    score: columns are the distances read - 1, ..., 1, 0 back from the query's place. What is ahead of it gets a number that
    means nothing: for causal attention.   Dai et al. 2019, arXiv:1901.02860, appendix B.
    """
    time, read = score.shape[-2:]
    return (
        pad(score, (1, 0))
        .unflatten(-1, (1, read + 1))
        .flatten(-3)
        .unflatten(-1, (read + 1, time))[..., 1:, :]
        .reshape(score.shape)
    )


def alibi(num_heads: int, time: int, read: int, like: Tensor) -> Float[Tensor, "head time read"]:
    """A bias that falls with the distance, in each head at a slope of its own: attention with linear biases (ALiBi).

    b_ts = -m_h |s - t|,   m_h = 2^(-8 h / H), h = 1, ..., H, if H is a power of two; else those of the power below, then
    every second of the power above.   Nothing is learned, so texts longer than those of training are read as well.
    like: gives type and device.   Press, Smith, Lewis 2021, arXiv:2108.12409.
    """
    below = 2 ** int(log2(num_heads))
    slopes = [2 ** (-8 * (h + 1) / below) for h in range(below)]
    slopes += [2 ** (-4 * (h + 1) / below) for h in range(0, 2 * (num_heads - below), 2)]
    line = -torch.tensor(slopes, dtype=like.dtype, device=like.device)[:, None] * distances(time, read, like.device).abs()
    return spread(line, read)


def buckets(distance: Int[Tensor, "*any"], num_buckets: int, max_distance: int, causal: bool) -> Int[Tensor, "*any"]:
    """Sorts distances s - t: near ones each for itself, farther ones together, the more the farther they are.

    With n = |s - t|, B buckets a side, the first B / 2 of them for one distance each:
    bucket = n if n < B / 2, else min(B - 1, B / 2 + floor(B / 2 log(2 n / B) / log(2 max_distance / B))).
    causal: B = num_buckets, and all that is ahead falls to 0; else B = num_buckets / 2, and B is added to what is ahead.
    """
    side = num_buckets if causal else num_buckets // 2
    away, near = distance.clamp(max=0).neg() if causal else distance.abs(), side // 2
    far = (away.clamp(min=near).float() / near).log() / log(max_distance / near) * (side - near)
    bucket = torch.where(away < near, away, (near + far.long()).clamp(max=side - 1))
    return bucket if causal else bucket + side * (distance > 0)


class BucketedBias(nn.Module):
    """A learned bias for each head and each bucket of distances, as in T5.

    b_ts = table(bucket(s - t), head), see `buckets`.   (time, read) -> [head time read].
    ValueError if the buckets cannot be halved, or reach no farther than one distance each.
    Raffel et al. 2019, arXiv:1910.10683.   Elsewhere: T5 does not divide its scores by sqrt(dim), which attention here does.
    """

    def __init__(self, num_heads: int, num_buckets: int = 32, max_distance: int = 128, causal: bool = False):
        super().__init__()
        near = num_buckets // (2 if causal else 4)
        if num_buckets % (2 if causal else 4) or not 0 < near < max_distance:
            raise ValueError(f"num_buckets={num_buckets}, max_distance={max_distance}: expected a multiple of "
                             f"{2 if causal else 4}, and a distance above {near}")  # fmt: skip
        self.num_buckets, self.max_distance, self.causal = num_buckets, max_distance, causal
        self.table = nn.Embedding(num_buckets, num_heads)
        nn.init.normal_(self.table.weight, std=0.02)

    def at(self, distance: Int[Tensor, "*any"]) -> Float[Tensor, "head *any"]:
        """The bias of each distance s - t."""
        return self.table(buckets(distance, self.num_buckets, self.max_distance, self.causal)).movedim(-1, 0)

    def forward(self, time: int, read: int) -> Float[Tensor, "head time read"]:
        return spread(self.at(distances(time, read, self.table.weight.device)), read)


class RelativeKeys(nn.Module):
    """Each key looks different to a query from each distance: a learned vector for it is added to the key.

    q_t . (k_s + w(c)) / sqrt(dim),   c = s - t, held between -distance and distance; this gives the bias
    b_ts = q_t . w(c) / sqrt(dim).   query: [batch head time dim], read: number of keys -> [batch head time read].
    Shaw, Uszkoreit, Vaswani 2018, arXiv:1803.02155, without the vectors that it adds to values too: its table 3 finds no
    use in them.
    """

    def __init__(self, dim: int, distance: int = 16):
        super().__init__()
        self.distance = distance
        self.table = nn.Embedding(2 * distance + 1, dim)
        nn.init.normal_(self.table.weight, std=dim**-0.5)

    def forward(self, query: Float[Tensor, "batch head time dim"], read: int) -> Float[Tensor, "batch head time read"]:
        time, dim = query.shape[-2:]
        score = query @ self.table.weight.T / sqrt(dim)  # of every distance, before it is handed to the pairs
        away = distances(time, read, query.device).clamp(-self.distance, self.distance) + self.distance
        pairs = away.unfold(0, read, 1).flip(0)
        return score.gather(-1, pairs.expand(*score.shape[:-1], read))


class WindowBias(nn.Module):
    """A learned bias for each head and each offset, in rows and columns, of two places of a window, as in Swin.

    b_ij = table(row_i - row_j, column_i - column_j, head), places in reading order -> [head place place].
    Liu et al. 2021, arXiv:2103.14030.
    """

    index: Tensor

    def __init__(self, num_heads: int, height: int, width: int):
        super().__init__()
        self.table = nn.Embedding((2 * height - 1) * (2 * width - 1), num_heads)
        nn.init.trunc_normal_(self.table.weight, std=0.02)
        row, column = torch.arange(height * width) // width, torch.arange(height * width) % width
        down, right = (place[:, None] - place for place in (row, column))
        self.register_buffer("index", (down + height - 1) * (2 * width - 1) + right + width - 1)

    def forward(self) -> Float[Tensor, "head place place"]:
        return self.table.weight.T.index_select(1, self.index.flatten()).unflatten(1, self.index.shape)

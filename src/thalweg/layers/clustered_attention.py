"""Attention among what is alike: weights are large where query and key are near, so only near ones are compared.

Reformer finds them by hashing, Routing Transformer by clusters that are learned.   LEE "Attention Variant"
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import layer_norm, normalize, pad

from thalweg.layers.attention import attention

OWN = -1e5  # added to the score of a place with itself: it is read only where there is nothing else


def hash_buckets(
    x: Float[Tensor, "batch head time dim"], rotations: Float[Tensor, "round dim half"]
) -> Int[Tensor, "batch head round time"]:
    """Numbers for vectors, probably the same for near ones: where a random rotation takes them to.

    bucket = argmax [x R, -x R], one of 2 half, in every round.   rotations: normal numbers.
    Andoni et al. 2015, arXiv:1509.02897; as in Kitaev, Kaiser, Levskaya 2020, arXiv:2001.04451.
    """
    turned = x.detach()[:, :, None] @ rotations.to(x)  # [batch head round time half]
    return torch.cat([turned, -turned], -1).argmax(-1)


def hashed_attention(
    query: Float[Tensor, "batch head time dim"],
    value: Float[Tensor, "batch head time out"],
    rotations: Float[Tensor, "round dim half"],
    chunk: int = 32,
    mask: Bool[Tensor, "batch time"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "batch head time out"]:
    """Attention of each place to those that fell into the same bucket in one of the rounds (Reformer).

    The keys are the queries at length one. In each round places are sorted by their bucket, and among equals by their order,
    and cut into chunks; t reads s if they have one bucket and s lies in t's chunk or in that before. What several rounds find
    counts once, so y_t is `attention` over the union of the rounds, exactly; a place reads itself only where there is nothing
    else. Time grows as rounds time (2 chunk + log time).
    rotations: normal numbers, `half` so many that a bucket has about chunk places, time / chunk / 2; best afresh at every
    step.   mask: True where a place is real; padding gets zeros.   Kitaev, Kaiser, Levskaya 2020, arXiv:2001.04451.
    Elsewhere: trax compares across buckets too and counts what several rounds find several times.
    """
    time, dim = query.shape[2:]
    rounds, missing = len(rotations), -time % chunk
    bucket = hash_buckets(query, rotations)
    if mask is not None:
        bucket = bucket.masked_fill(~mask[:, None, None], 2 * rotations.shape[2])  # a bucket of padding, which comes last
    bucket = pad(bucket, (0, missing), value=2 * rotations.shape[2])
    order = bucket.argsort(dim=-1, stable=True)
    rank = order.argsort(-1)  # where each place stands
    t = order.unflatten(-1, (-1, chunk))  # [batch head round chunks chunk]
    s = torch.cat([t.roll(1, -2), t], -1)  # [batch head round chunks 2 chunk]
    query, value = (pad(x, (0, 0, 0, missing)) for x in (query, value))
    key = normalize(query, dim=-1)

    def meet(which: int) -> Tensor:
        """Does t read s in that round?   [batch head round chunks chunk 2 chunk]"""
        (here, there), (one, other) = (
            [x[:, :, which, None, None].expand(*places.shape[:-1], -1).gather(-1, places) for places in (t, s)]
            for x in (bucket, rank // chunk)
        )
        chunks = one[..., None] - other[..., None, :]
        return (here[..., None] == there[..., None, :]) & ((chunks == 0) | (chunks == 1))

    found = torch.zeros(*t.shape, 2 * chunk, dtype=torch.int8, device=query.device)
    seen = found.bool()
    for which in range(rounds):
        pairs = meet(which)
        found += pairs
        seen[:, :, which] = pairs[:, :, which]
    seen[..., 0, :, :chunk] = False  # before the first chunk there is none
    if causal:
        seen &= s[..., None, :] <= t[..., None]
    score = _at(query, t) @ _at(key, s).mT / dim**0.5 - found.clamp(min=1).to(query.dtype).log()
    score = (score + OWN * (s[..., None, :] == t[..., None])).masked_fill(~seen, -torch.inf)
    total = score.logsumexp(-1, keepdim=True)
    y = (score - total).exp() @ _at(value, s)
    back = rank[..., None]
    y, total = (x.flatten(3, 4).gather(3, back.expand(*back.shape[:-1], x.shape[-1])) for x in (y, total))
    y = (total.softmax(2) * y).sum(2)[:, :, :time]
    return y if mask is None else y * mask[:, None, :, None]


def _at(x: Tensor, places: Tensor) -> Tensor:
    """The vectors of those places.   [batch head time dim], [batch head ...] -> [batch head ... dim]"""
    flat = places.flatten(2)[..., None].expand(-1, -1, -1, x.shape[-1])
    return x.gather(2, flat).unflatten(2, places.shape[2:])


class RoutedAttention(nn.Module):
    """Attention inside of clusters, whose centres follow the queries and keys as in k-means (Routing Transformer).

    Queries and keys are normalised (layer norm without weights). Each of the clusters takes the `size` queries and the `size`
    keys that are nearest to its centre, and is an attention of its own; y_t is the mean over the clusters that took t, 0 if
    none did. In training a centre c goes on: c = decay c + (1 - decay) mean of the queries and keys whose nearest it is.
    Time grows as clusters size^2; with size = time / clusters and clusters = sqrt(time) as time^1.5.
    query, key, value: [batch head time dim].   size: by default time / clusters, rounded up.   mask: True where a place is
    real.   causal: reads s <= t alone; but which places a cluster takes depends on all that compete for it.
    Roy, Saffar, Vaswani, Grangier 2020, arXiv:2003.05997.
    """

    centre: Tensor

    def __init__(
        self, num_heads: int, dim: int, clusters: int, size: int | None = None, decay: float = 0.999, causal: bool = False
    ):
        super().__init__()
        self.size, self.decay, self.causal = size, decay, causal
        self.register_buffer("centre", torch.randn(num_heads, clusters, dim))

    def forward(
        self,
        query: Float[Tensor, "batch head time dim"],
        key: Float[Tensor, "batch head time dim"],
        value: Float[Tensor, "batch head time out"],
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch head time out"]:
        time, dim = query.shape[2:]
        query, key = (layer_norm(x, (dim,)) for x in (query, key))
        if self.training:
            self._follow(query.detach(), key.detach(), mask)
        size = min(time, self.size or -(-time // self.centre.shape[1]))
        centre = normalize(self.centre, dim=-1).to(query)
        taken = []
        for x in (query, key):
            near = centre @ x.detach().mT  # [batch head cluster time]
            if mask is not None:
                near = near.masked_fill(~mask[:, None, None], -torch.inf)
            taken.append(near.topk(size).indices.sort().values)
        t, s = taken  # [batch head cluster size]
        seen = None
        if mask is not None:
            seen = mask[:, None, None].expand(-1, *s.shape[1:3], -1).gather(-1, s)[..., None, :]
        if self.causal:
            past = s[..., None, :] <= t[..., None]
            seen = past if seen is None else seen & past
        asked, read, told = (_at(x, places).flatten(1, 2) for x, places in ((query, t), (key, s), (value, s)))
        y = attention(asked, read, told, None if seen is None else seen.flatten(1, 2))
        where = t.flatten(2)[..., None]
        y = y.unflatten(1, s.shape[1:3]).flatten(2, 3)
        total = torch.zeros_like(value).scatter_add(2, where.expand_as(y), y)
        count = value.new_zeros(*value.shape[:3], 1).scatter_add(2, where, torch.ones_like(y[..., :1]))
        return total / count.clamp(min=1)

    @torch.no_grad()
    def _follow(self, query: Tensor, key: Tensor, mask: Tensor | None) -> None:
        """One step of k-means, over all that is real."""
        x = torch.cat([query, key], 2)
        nearest = (x @ normalize(self.centre, dim=-1).to(x).mT).argmax(-1)
        member = nn.functional.one_hot(nearest, self.centre.shape[1]).to(x)  # [batch head place cluster]
        if mask is not None:
            member *= mask.repeat(1, 2)[:, None, :, None]
        count, total = member.sum((0, 2))[..., None], (member.mT @ x).sum(0)
        moved = self.centre.to(x).lerp(total / count.clamp(min=1), 1 - self.decay)
        self.centre.copy_(torch.where(count > 0, moved, self.centre.to(x)))

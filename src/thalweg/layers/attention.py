"""Attention: every place asks, and reads most where the answer fits its question.   LBDL 4.8, D2L 10.1-10.6"""

from copy import copy
from math import sqrt

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from thalweg.layers.dropout import byte_dropout

LONG = 1024  # places up to which a CPU multiplies the formula's matrices in bf16 faster than torch's kernel goes through them


def attention(
    query: Float[Tensor, "batch head time dim"],
    key: Float[Tensor, "batch group read dim"],
    value: Float[Tensor, "batch group read out"],
    mask: Bool[Tensor, "..."] | None = None,
    bias: Float[Tensor, "..."] | None = None,
    dropout: float = 0.0,
    causal: bool = False,
) -> Float[Tensor, "batch head time out"]:
    """Every query reads the keys: all of them, or those that the mask shows it.

    y_t = sum_s a_ts v_s,   a_t = softmax_s(q_t . k_s / sqrt(dim) + b_ts) over the s that t may read.
    mask: True where it may; bias: the b_ts, finite; each broadcasts to [batch head time read], so that of padded texts
    [batch time] is mask[:, None, None].   A query that may read nothing gets zeros, and so do the gradients behind it.
    dropout: probability with which an a_ts is zeroed (the others grow by 1 / (1 - dropout)), also outside of training; on a
    CPU the nearest multiple of 1/256, see `byte_dropout`.
    causal: a query reads its own place and those before; the last query is at the place of the last key.
    group: fewer heads of keys and values than of queries are shared by neighbouring heads (Ainslie et al. 2023,
    arXiv:2305.13245; one for all: Shazeer 2019, arXiv:1911.02150).
    ValueError if the heads cannot be shared evenly, or if causal and there are fewer keys than queries.
    Vaswani et al. 2017, arXiv:1706.03762.
    """
    (heads, time), (groups, read) = query.shape[1:3], key.shape[1:3]
    if heads % groups:
        raise ValueError(f"key: {groups} heads, expected a divisor of the {heads} of the queries")
    if causal and read < time:
        raise ValueError(f"key: {read} places, expected at least the {time} of the queries")
    if time == 1 and groups < heads and bias is None and not dropout and (mask is None or mask.shape[-3:-2] in ((), (1,))):
        together = query.reshape(query.shape[0], groups, -1, query.shape[3])  # heads that share keys: several queries of one,
        added, blind = _added(together, read, mask, None, False)  # for which torch's kernel is several times as fast
        added = None if added is None else added[(None,) * (4 - added.ndim)]
        y = scaled_dot_product_attention(together, key, value, added)
        return (y if blind is None else y.masked_fill(blind, 0)).reshape(*query.shape[:3], -1)
    # in float32 torch's kernel is faster on a CPU too, but it knows neither dropout nor the gradient of a bias
    special = query.dtype == torch.bfloat16 or dropout > 0 or (bias is not None and bias.requires_grad)
    matrices = special and query.device.type == "cpu" and read <= LONG
    shared, whole = groups < heads, mask is None and bias is None and (not causal or time in (1, read))
    if whole and not matrices:
        return scaled_dot_product_attention(query, key, value, None, dropout, causal and time > 1, enable_gqa=shared)
    added, blind = _added(query, read, mask, bias, causal)
    if matrices:
        weights = byte_dropout(_weights(query, key, added), dropout)
        y = (weights.reshape(-1, heads // groups * time, read) @ value.flatten(0, 1)).view(*query.shape[:3], -1)
    else:
        added = None if added is None else added[(None,) * (4 - added.ndim)]  # of three axes torch's kernel takes none
        y = scaled_dot_product_attention(query, key, value, added, dropout, enable_gqa=shared)
    return y if blind is None else y.masked_fill(blind, 0)


def attention_weights(
    query: Float[Tensor, "batch head time dim"],
    key: Float[Tensor, "batch group read dim"],
    mask: Bool[Tensor, "..."] | None = None,
    bias: Float[Tensor, "..."] | None = None,
    causal: bool = False,
) -> Float[Tensor, "batch head time read"]:
    """The a_ts of `attention`: how much each query takes from each key. They sum to 1, or to 0 where nothing may be read."""
    added, blind = _added(query, key.shape[2], mask, bias, causal)
    weights = _weights(query, key, added)
    return weights if blind is None else weights.masked_fill(blind, 0)


def _added(
    query: Tensor, read: int, mask: Tensor | None, bias: Tensor | None, causal: bool
) -> tuple[Tensor | None, Tensor | None]:
    """What is added to the scores, -inf where nothing may be read; and the queries that may read nothing."""
    time, seen, blind = query.shape[2], mask, None
    if causal and time > 1:
        past = query.new_ones(time, read, dtype=torch.bool).tril(read - time)
        seen = past if mask is None else mask & past
    if mask is not None and seen is not None:
        blind = ~seen.any(-1, keepdim=True)
        seen = seen | blind  # a softmax over nothing is not a number, and neither is its gradient
    if bias is not None:
        bias = bias.to(query.dtype)
    return bias if seen is None else (query.new_zeros(()) if bias is None else bias).where(seen, -torch.inf), blind


def _weights(query: Tensor, key: Tensor, added: Tensor | None) -> Tensor:
    """softmax(query key^T / sqrt(dim) + added); heads that share a key are stacked before it, as if they were more queries."""
    (batch, heads, time, dim), (groups, read) = query.shape, key.shape[1:3]
    queries = query.reshape(batch * groups, -1, dim)
    start = query.new_zeros(1, 1, 1)
    if added is not None:  # copied to where the product is then added: a pass less than adding it afterwards
        start = added.expand(batch, heads, time, read).reshape(batch * groups, -1, read)
    score = torch.baddbmm(start, queries, key.flatten(0, 1).mT, beta=int(added is not None), alpha=1 / sqrt(dim))
    # rows of bf16 that are shorter than a vector a CPU goes through number by number
    wide = torch.float32 if score.dtype == torch.bfloat16 and read < 32 else None
    return score.softmax(-1, dtype=wide).to(score.dtype).view(batch, heads, time, read)


class KeyValueCache:
    """The keys and values of one layer for the places read so far, in memory that is taken once.

    length: places read, of all texts alike, or of each [batch]; then `append` takes one place a text, and mask
    [batch 1 1 read] says which places of those returned are a text's own.
    No gradient flows through it.   ValueError from append if they would be more than `time`.
    """

    mask: Bool[Tensor, "batch 1 1 read"] | None = None
    length: int | Int[Tensor, " batch"]

    def __init__(self, batch: int, num_heads: int, time: int, dim: int, like: Tensor):
        self.key, self.value = (like.new_empty(batch, num_heads, time, dim) for _ in range(2))
        self.length = 0

    def append(
        self, key: Float[Tensor, "batch head time dim"], value: Float[Tensor, "batch head time dim"]
    ) -> tuple[Float[Tensor, "batch head read dim"], Float[Tensor, "batch head read dim"]]:
        """Takes in the keys and values of the next places; returns those of all places so far."""
        if self.mask is not None:
            row, read = torch.arange(len(key), device=key.device), self.mask.shape[-1]
            self.key[row, :, self.length], self.value[row, :, self.length] = key[:, :, 0].detach(), value[:, :, 0].detach()
            return self.key[:, :, :read], self.value[:, :, :read]
        start, self.length = self.length, self.length + key.shape[-2]
        if self.length > self.key.shape[-2]:
            raise ValueError(f"cache: {self.length} places to keep, made for time={self.key.shape[-2]}")
        for held, new in ((self.key, key), (self.value, value)):
            held[:, :, start : self.length] = new.detach()
        return self.key[:, :, : self.length], self.value[:, :, : self.length]

    def row(self, number: int, length: int) -> "KeyValueCache":
        """One text alone, of which `length` places have been read; it stays in the same memory."""
        one = copy(self)
        one.key, one.value, one.length = self.key[number : number + 1], self.value[number : number + 1], length
        return one

    def rows(self, length: Int[Tensor, " row"], mask: Bool[Tensor, "row 1 1 read"]) -> "KeyValueCache":
        """The first texts, as many as there are lengths, side by side though they are not of one length."""
        first = copy(self)
        first.key, first.value, first.length, first.mask = self.key[: len(mask)], self.value[: len(mask)], length, mask
        return first

    def keep(self, rows: Int[Tensor, " rows"]) -> None:
        """Goes on with these rows of the batch alone."""
        whole = self.key, self.value
        self.key, self.value = (held.new_empty(len(rows), *held.shape[1:]) for held in whole)
        for held, before in zip((self.key, self.value), whole, strict=True):
            held[:, :, : self.length] = before[rows, :, : self.length]


def head_count(embed_dim: int, head_dim: int) -> int:
    """As many heads as there are of at least `head_dim` numbers each, of an even number, as rotations want; at least one.

    ValueError for an odd embed_dim.
    """
    for count in range(max(1, embed_dim // head_dim), 0, -1):
        if embed_dim % (2 * count) == 0:
            return count
    raise ValueError(f"embed_dim={embed_dim}: expected an even number")


class MultiHeadAttention(nn.Module):
    """Attention several times side by side, each head in a space of its own: one finds the verb, another the last line.

    y = W_o [h_1, ..., h_H],   h_i = attention(W_q,i x, W_k,i m, W_v,i m),   m: the memory, or x itself (self-attention).
    num_key_value_heads: heads of keys and values, each shared by as many heads of queries; by default one each, 1 is
    multi-query attention.   memory_dim: width of the memory where it is not embed_dim.   dropout: on the weights, in
    training.   causal: each place reads itself and those before.
    x: [batch time embed], memory: [batch read memory_dim] -> [batch time embed].   mask: True where a place read is real;
    a query with none gets the bias of W_o alone.   bias: added to the scores, broadcasts to [batch head time read].
    cache: from new_cache; x then goes on where it ends, or, with a memory, the keys and values of that are computed once.
    ValueError if the heads do not divide, or if both causal and a memory.   Vaswani et al. 2017, arXiv:1706.03762.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        num_key_value_heads: int | None = None,
        memory_dim: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        causal: bool = False,
    ):
        super().__init__()
        groups = num_heads if num_key_value_heads is None else num_key_value_heads
        if embed_dim % num_heads or groups < 1 or num_heads % groups:
            raise ValueError(f"embed_dim={embed_dim}, num_key_value_heads={num_key_value_heads}: expected a multiple and a "
                             f"divisor of num_heads={num_heads}")  # fmt: skip
        self.dim, self.dropout, self.causal = embed_dim // num_heads, dropout, causal
        self.query = nn.Linear(embed_dim, embed_dim, bias)
        self.key, self.value = (nn.Linear(memory_dim or embed_dim, groups * self.dim, bias) for _ in range(2))
        self.output = nn.Linear(embed_dim, embed_dim, bias)

    def forward(
        self,
        x: Float[Tensor, "batch time embed"],
        memory: Float[Tensor, "batch read memory_dim"] | None = None,
        mask: Bool[Tensor, "batch read"] | None = None,
        bias: Float[Tensor, "..."] | None = None,
        cache: KeyValueCache | None = None,
    ) -> Float[Tensor, "batch time embed"]:
        if self.causal and memory is not None:
            raise ValueError("memory: a causal layer reads its own past alone, expected None")
        query = self._split(self.query(x))
        if memory is not None and cache is not None and cache.length:
            key, value = cache.key[:, :, : cache.length], cache.value[:, :, : cache.length]
        else:
            read = x if memory is None else memory
            key, value = self._split(self.key(read)), self._split(self.value(read))
            if cache is not None:
                key, value = cache.append(key, value)
        seen, dropout = None if mask is None else mask[:, None, None], self.dropout if self.training else 0.0
        return self.output(attention(query, key, value, seen, bias, dropout, self.causal).transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.dim)).transpose(1, 2)  # [batch head time dim]

    def new_cache(self, batch: int, time: int) -> KeyValueCache:
        """Room for the keys and values of up to `time` places."""
        return KeyValueCache(batch, self.key.out_features // self.dim, time, self.dim, self.key.weight)


def masked_softmax(score: Float[Tensor, "*any read"], mask: Bool[Tensor, "..."] | None = None) -> Float[Tensor, "*any read"]:
    """Probabilities of the places that the mask shows; zeros where it shows none, and no gradient.

    a_s = exp(score_s) / sum_r exp(score_r) over the r with mask_r.   mask: broadcasts to the scores.   D2L 10.3
    """
    if mask is None:
        return score.softmax(-1)
    return score.masked_fill(~mask, torch.finfo(score.dtype).min).softmax(-1) * mask


class AdditiveAttention(nn.Module):
    """A small network says how well a query fits a key, whatever the width of each.

    y_t = sum_s a_ts v_s,   a_t = softmax_s(w . tanh(W_q q_t + W_k k_s)).
    query: [batch time query_dim], key: [batch read key_dim], value: [batch read out] -> [batch time out].
    mask: True where a place read is real; where none is, y = 0.   dropout: on the a_ts, in training.
    Bahdanau, Cho, Bengio 2014, arXiv:1409.0473.
    """

    def __init__(self, query_dim: int, key_dim: int, hidden_dim: int, dropout: float = 0.0):
        super().__init__()
        self.query, self.key = nn.Linear(query_dim, hidden_dim, bias=False), nn.Linear(key_dim, hidden_dim, bias=False)
        self.score = nn.Linear(hidden_dim, 1, bias=False)
        self.dropout = nn.Dropout(dropout)

    def weights(
        self,
        query: Float[Tensor, "batch time query_dim"],
        projected: Float[Tensor, "batch read hidden"],
        mask: Bool[Tensor, "batch read"] | None = None,
    ) -> Float[Tensor, "batch time read"]:
        """The a_ts.   projected: self.key(key), which a decoder computes once for all its steps."""
        score = self.score(torch.tanh(self.query(query)[:, :, None] + projected[:, None])).squeeze(-1)
        return masked_softmax(score, None if mask is None else mask[:, None])

    def forward(
        self,
        query: Float[Tensor, "batch time query_dim"],
        key: Float[Tensor, "batch read key_dim"],
        value: Float[Tensor, "batch read out"],
        mask: Bool[Tensor, "batch read"] | None = None,
    ) -> Float[Tensor, "batch time out"]:
        return self.dropout(self.weights(query, self.key(key), mask)) @ value


class MovingWindow(nn.Module):
    """Attention that only goes forward: a few bell curves over the places read move on by what the query says.

    a_ts = sum_k alpha_k exp(-beta_k (kappa_tk - s)^2),   kappa_tk = kappa_(t-1)k + delta_k,
    (alpha, beta, delta) = exp(W q_t + b).
    query: [batch time query_dim], kappa: [batch time window], 0 at first, mask: [batch read] -> a [batch time read], kappa.
    Other than shares, the a_ts do not add up to 1.   Graves 2013, arXiv:1308.0850.   D2L 10.4
    """

    def __init__(self, query_dim: int, windows: int = 4):
        super().__init__()
        self.windows, self.step = windows, nn.Linear(query_dim, 3 * windows)
        nn.init.constant_(self.step.bias[2 * windows :], -1.0)  # at first a target of some three tokens for each place

    def forward(
        self,
        query: Float[Tensor, "batch time query_dim"],
        kappa: Float[Tensor, "batch time window"],
        mask: Bool[Tensor, "batch read"],
    ) -> tuple[Float[Tensor, "batch time read"], Float[Tensor, "batch time window"]]:
        alpha, beta, delta = self.step(query).to(kappa.dtype).exp().chunk(3, -1)
        kappa = kappa + delta
        distance = kappa[..., None] - torch.arange(mask.shape[1], device=mask.device)
        weights = (alpha[..., None] * (-beta[..., None] * distance.square()).exp()).sum(2)
        return weights * mask[:, None], kappa


class BilinearAttention(nn.Module):
    """A matrix says how well each component of a query fits each of a key ("general", "multiplicative" attention).

    y_t = sum_s a_ts v_s,   a_t = softmax_s(q_t' W k_s).
    query: [batch time query_dim], key: [batch read key_dim], value: [batch read out] -> [batch time out].
    mask: True where a place read is real; where none is, y = 0.   dropout: on the a_ts, in training.
    Luong, Pham, Manning 2015, arXiv:1508.04025.
    """

    def __init__(self, query_dim: int, key_dim: int, dropout: float = 0.0):
        super().__init__()
        self.key = nn.Linear(key_dim, query_dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def weights(
        self,
        query: Float[Tensor, "batch time query_dim"],
        projected: Float[Tensor, "batch read query_dim"],
        mask: Bool[Tensor, "batch read"] | None = None,
    ) -> Float[Tensor, "batch time read"]:
        """The a_ts.   projected: self.key(key), which a decoder computes once for all its steps."""
        return masked_softmax(query @ projected.mT, None if mask is None else mask[:, None])

    def forward(
        self,
        query: Float[Tensor, "batch time query_dim"],
        key: Float[Tensor, "batch read key_dim"],
        value: Float[Tensor, "batch read out"],
        mask: Bool[Tensor, "batch read"] | None = None,
    ) -> Float[Tensor, "batch time out"]:
        return self.dropout(self.weights(query, self.key(key), mask)) @ value


class KernelRegression(nn.Module):
    """The answer to a question is the mean of known answers, those to nearer questions counting more (Nadaraya-Watson).

    y(q) = sum_s a_s v_s,   a = softmax_s(-|w (q - k_s)|^2 / 2): a Gaussian kernel of deviation 1 / w, w learned.
    query: [batch time dim], key: [batch read dim], value: [batch read out] -> [batch time out].
    mask: True where a question may see an answer, broadcasts to [batch time read]; to learn w each must not see its own.
    Nadaraya 1964, "On estimating regression"; Watson 1964, "Smooth regression analysis".   D2L 10.2
    """

    def __init__(self, width: float = 1.0):
        super().__init__()
        self.width = nn.Parameter(torch.tensor(float(width)))

    def weights(
        self,
        query: Float[Tensor, "batch time dim"],
        key: Float[Tensor, "batch read dim"],
        mask: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch time read"]:
        """The a_s of each question; the |q|^2 in the square is the same for all s, and a softmax does not see it."""
        score = torch.baddbmm(torch.linalg.vecdot(key, key)[:, None], query, key.mT, beta=-0.5)
        return masked_softmax(self.width.square() * score, mask)

    def forward(
        self,
        query: Float[Tensor, "batch time dim"],
        key: Float[Tensor, "batch read dim"],
        value: Float[Tensor, "batch read out"],
        mask: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch time out"]:
        return self.weights(query, key, mask) @ value

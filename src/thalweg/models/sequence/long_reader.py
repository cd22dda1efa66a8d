"""A Transformer for long texts in which the way to attend is an argument, and nothing else differs.

x = embedding(tokens) + position;  x += attend(norm(x)), x += mlp(norm(x)) in each block;  logits = head(norm(x)), of the next
token at every place, or of a class by the mean over the places. docs/attention.md has the ways.
Compared as in the Long Range Arena: Tay et al. 2020, arXiv:2011.04006.   LEE "Attention Variant"
"""

from collections.abc import Sequence
from math import sqrt

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu

from thalweg.layers.attention import attention
from thalweg.layers.clustered_attention import RoutedAttention, hashed_attention
from thalweg.layers.linear_attention import Linformer, elu_features, linear_attention, orthogonal_directions, softmax_features
from thalweg.layers.mixing import AttentionFree, DenseSynthesizer, RandomSynthesizer, fourier_mixing
from thalweg.layers.sinkhorn_attention import SinkhornAttention
from thalweg.layers.sparse_attention import random_blocks, sparse_attention, strided_attention

COMPARING = ("full", "window", "strided", "longformer", "big_bird", "reformer", "routing", "sinkhorn", "linformer", "linear",
             "performer")  # fmt: skip
WAYS = (*COMPARING, "synthesizer", "random_synthesizer", "attention_free", "fourier")
BOTH_SIDES = ("routing", "sinkhorn", "linformer", "fourier")  # these look at what comes after, or are chosen by it
GLOBAL, ROUNDS, RANDOM = 4, 2, 2  # global tokens; rounds of hashing; random blocks


class Comparing(nn.Module):
    """The ways that compare queries with keys, between the same projections.   x: [batch time embed] -> the same

    window: the sides of a window, or the size of a block, or the number of mixtures.
    """

    directions: Tensor
    chosen: Tensor

    def __init__(self, way: str, embed_dim: int, num_heads: int, context: int, window: int, causal: bool):
        super().__init__()
        self.way, self.num_heads, self.window, self.causal = way, num_heads, window, causal
        dim, self.clusters = embed_dim // num_heads, round(sqrt(context))
        self.rotations = max(1, context // window // 2)  # half as many as buckets, which so hold a window each
        self.query, self.value, self.output = (nn.Linear(embed_dim, embed_dim) for _ in range(3))
        self.key = None if way == "reformer" else nn.Linear(embed_dim, embed_dim)  # there the queries are the keys
        if way == "big_bird":
            self.register_buffer("chosen", random_blocks(context, window, RANDOM, causal=causal))
        if way == "performer":
            self.register_buffer("directions", orthogonal_directions(2 * dim, dim))
        if way == "routing":
            self.inner: nn.Module = RoutedAttention(num_heads, dim, self.clusters, causal=causal)
        if way == "sinkhorn":
            self.inner = SinkhornAttention(dim, context, window)
        if way == "linformer":
            self.inner = Linformer(context, window)

    def split(self, x: Tensor) -> Tensor:
        """[batch time embed] -> [batch head time dim]"""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        query, value = self.split(self.query(x)), self.split(self.value(x))
        key = query if self.key is None else self.split(self.key(x))
        return self.output(self.attend(query, key, value, mask).transpose(1, 2).flatten(2))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        causal, window = self.causal, self.window
        match self.way:
            case "full":
                return attention(query, key, value, None if mask is None else mask[:, None, None], causal=causal)
            case "window":
                return sparse_attention(query, key, value, window, mask=mask, causal=causal)
            case "strided":
                return strided_attention(query, key, value, self.clusters, mask, causal)
            case "longformer":
                return sparse_attention(query, key, value, window, GLOBAL, mask=mask, causal=causal)
            case "big_bird":
                return sparse_attention(query, key, value, window, GLOBAL, self.chosen, mask, causal)
            case "reformer":
                rotations = torch.randn(ROUNDS, query.shape[3], self.rotations, device=query.device)
                return hashed_attention(query, value, rotations, window, mask, causal)
            case "linear":
                return linear_attention(elu_features(query), elu_features(key), value, mask, causal)
            case "performer":
                query, key = (softmax_features(x, self.directions, x is query) for x in (query, key))
                return linear_attention(query, key, value, mask, causal)
        return self.inner(query, key, value, mask)


class Fourier(nn.Module):
    """`fourier_mixing` as a layer; padding is zero."""

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x.float()  # of bf16 there is no transform
        return fourier_mixing(x if mask is None else x * mask[..., None])


class Block(nn.Module):
    """x + attend(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, way: str, embed_dim: int, num_heads: int, context: int, window: int, causal: bool):
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(embed_dim), nn.LayerNorm(embed_dim)
        if way == "synthesizer":
            self.attention: nn.Module = DenseSynthesizer(embed_dim, num_heads, context, causal)
        elif way == "random_synthesizer":
            self.attention = RandomSynthesizer(embed_dim, num_heads, context, causal=causal)
        elif way == "attention_free":
            self.attention = AttentionFree(embed_dim, context, causal)
        elif way == "fourier":
            self.attention = Fourier()
        else:
            self.attention = Comparing(way, embed_dim, num_heads, context, window, causal)
        self.up, self.down = nn.Linear(embed_dim, 2 * embed_dim), nn.Linear(2 * embed_dim, embed_dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), mask)
        return x + self.down(gelu(self.up(self.mlp_norm(x))))


class LongReader(nn.Module):
    """tokens [batch context], mask [batch context] or None -> logits [batch class], or without num_classes [batch time vocab]

    Without num_classes every place reads those before it alone.   way: one of WAYS.
    ValueError for another, for one of BOTH_SIDES without num_classes, or if num_heads does not divide embed_dim.
    """

    def __init__(
        self,
        vocab_size: int,
        context: int,
        num_classes: int | None = None,
        way: str = "full",
        embed_dim: int = 64,
        num_layers: int = 2,
        num_heads: int = 2,
        window: int = 32,
    ):
        super().__init__()
        expected = WAYS if num_classes else [known for known in WAYS if known not in BOTH_SIDES]
        if way not in expected or embed_dim % num_heads:
            raise ValueError(f"way={way!r}, embed_dim={embed_dim}: expected one of {', '.join(expected)}, and a multiple of "
                             f"num_heads={num_heads}")  # fmt: skip
        self.pooled, causal = num_classes is not None, num_classes is None
        self.embedding, self.position = nn.Embedding(vocab_size, embed_dim), nn.Embedding(context, embed_dim)
        self.blocks = nn.ModuleList(Block(way, embed_dim, num_heads, context, window, causal) for _ in range(num_layers))
        self.norm, self.head = nn.LayerNorm(embed_dim), nn.Linear(embed_dim, num_classes or vocab_size)

    def forward(
        self, tokens: Int[Tensor, "batch time"], mask: Bool[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch *any"]:
        x = self.embedding(tokens) + self.position.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        if self.pooled:
            real = torch.ones_like(x[..., :1]) if mask is None else mask[..., None].to(x.dtype)
            x = (x * real).sum(1) / real.sum(1)
        return self.head(x)


class Readers(nn.ModuleDict):
    """A `LongReader` for each of several ways, all alike but for that."""

    def __init__(
        self,
        ways: Sequence[str],
        vocab_size: int,
        context: int,
        num_classes: int | None = None,
        embed_dim: int = 64,
        num_layers: int = 2,
        num_heads: int = 2,
        window: int = 32,
    ):
        sizes = {"embed_dim": embed_dim, "num_layers": num_layers, "num_heads": num_heads, "window": window}
        super().__init__({way: LongReader(vocab_size, context, num_classes, way, **sizes) for way in ways})

"""The Transformer: a sentence is read by attention to itself, and written by attention to what is written and to what was read.

A block adds to x what it makes of it: x + f(norm(x)), or, as in 2017, norm(x + f(x)), which needs a warm-up to learn.
Encoder:  self-attention, perceptron;   decoder:  self-attention to the past, cross-attention to the encoder, perceptron.
Tokens enter as sqrt(embed_dim) embedding + sinusoids of their places; the logits are the products with the embedding.
Vaswani et al. 2017, arXiv:1706.03762; norms first: Xiong et al. 2020, arXiv:2002.04745.   LBDL 5.3, D2L 10.7, LEE Transformer
"""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear

from thalweg.layers.cross_attention import BeamCache, Block
from thalweg.layers.dropout import ByteDropout
from thalweg.layers.position import sinusoidal


class Memory(NamedTuple):
    """Keys and values for each layer of the decoder, [batch head read dim] each, and where they are real."""

    read: list[tuple[Tensor, Tensor]]
    mask: Tensor


class Transformer(nn.Module):
    """source_tokens, source_mask: [batch read], target_tokens: [batch time] -> logits [batch time target_vocab_size]

    num_layers: of the encoder, and of the decoder.   hidden_dim: inside the perceptrons, 4 embed_dim if None.
    norm_first: x + f(norm(x)), which learns without a warm-up; else norm(x + f(x)).
    cross: what a layer of the decoder looks at: the "last" layer of the encoder, the "same" one, or a mean of "all" of them
    with weights that it learns (Bapna et al. 2018, arXiv:1808.07561).
    shared: one embedding for source and target, whose tokens are the same then.
    ValueError for another, or if num_heads does not divide embed_dim.
    """

    encoder: Sequence[Block]
    decoder: Sequence[Block]

    def __init__(
        self,
        source_vocab_size: int,
        target_vocab_size: int,
        embed_dim: int = 512,
        num_layers: int = 6,
        num_heads: int = 8,
        hidden_dim: int | None = None,
        dropout: float = 0.1,
        norm_first: bool = True,
        cross: str = "last",
        shared: bool = False,
    ):
        super().__init__()
        if embed_dim % num_heads or cross not in ("last", "same", "all"):
            raise ValueError(f"embed_dim={embed_dim}, cross={cross!r}: expected a multiple of num_heads={num_heads}, and last, "
                             "same or all")  # fmt: skip
        if shared and source_vocab_size != target_vocab_size:
            raise ValueError(f"shared=True: the vocabularies have {source_vocab_size} and {target_vocab_size} tokens")
        self.embed_dim, self.cross, self.dropout = embed_dim, cross, ByteDropout(dropout)
        self.source_embedding = nn.Embedding(source_vocab_size, embed_dim)
        self.target_embedding = self.source_embedding if shared else nn.Embedding(target_vocab_size, embed_dim)
        arguments = (embed_dim, num_heads, hidden_dim or 4 * embed_dim, dropout, norm_first)
        for name in ("encoder", "decoder"):
            self.add_module(name, nn.ModuleList(Block(*arguments, crosses=name == "decoder") for _ in range(num_layers)))
        self.encoder_norm, self.decoder_norm = (nn.LayerNorm(embed_dim) if norm_first else nn.Identity() for _ in range(2))
        self.mixture = nn.Parameter(torch.zeros(num_layers, num_layers)) if cross == "all" else None
        for weight in self.parameters():
            if weight.ndim == 2 and weight is not self.mixture:
                nn.init.xavier_uniform_(weight)
        for embedding in (self.source_embedding, self.target_embedding):
            nn.init.normal_(embedding.weight, std=embed_dim**-0.5)

    def forward(
        self,
        source_tokens: Int[Tensor, "batch read"],
        source_mask: Bool[Tensor, "batch read"],
        target_tokens: Int[Tensor, "batch time"],
    ) -> Float[Tensor, "batch time vocab"]:
        return self.decode(target_tokens, self.encode(source_tokens, source_mask))

    def embedded(self, tokens: Tensor, embedding: nn.Embedding, start: int = 0) -> Tensor:
        """Tokens with their places, the first of which is `start`."""
        x = sqrt(self.embed_dim) * embedding(tokens)
        return self.dropout(x + sinusoidal(start, tokens.shape[1], self.embed_dim, x))

    def encode(self, source_tokens: Int[Tensor, "batch read"], source_mask: Bool[Tensor, "batch read"]) -> Memory:
        """What each layer of the decoder looks at."""
        x, mask, layers = self.embedded(source_tokens, self.source_embedding), source_mask[:, None, None], []
        for block in self.encoder:
            x = block.think(block.attend(x, mask))
            layers.append(self.encoder_norm(x))
        if self.mixture is not None:
            layers = list(torch.einsum("dl,lbth->dbth", self.mixture.softmax(1).to(x), torch.stack(layers)))
        seen = layers[-1:] * len(layers) if self.cross == "last" else layers
        return Memory([block.cross.read(y) for block, y in zip(self.decoder, seen, strict=True)], mask)

    def decode(
        self, target_tokens: Int[Tensor, "rows time"], memory: Memory, cache: BeamCache | None = None
    ) -> Float[Tensor, "rows time vocab"]:
        x, bias = self.embedded(target_tokens, self.target_embedding, 0 if cache is None else cache.length), None
        if cache is not None:  # the targets of a source stand side by side, as if they were its times
            x, bias = x.view(len(memory.mask), -1, self.embed_dim), cache.extend(target_tokens.shape[1])
        layers = [None] * len(self.decoder) if cache is None else cache.layers
        for block, read, kept in zip(self.decoder, memory.read, layers, strict=True):
            x = block.think(block.look(block.attend(x, None, bias, cache is None, kept), *read, memory.mask))
        return linear(self.decoder_norm(x), self.target_embedding.weight).view(*target_tokens.shape, -1)

    def new_cache(self, memory: Memory, copies: int, time: int) -> BeamCache:
        """Room for keys and values of up to `time` places of so many targets of each source."""
        batch, heads, _, dim = memory.read[0][0].shape
        return BeamCache(len(self.decoder), batch, copies, heads, time, dim, memory.read[0][0])

    def alignment(
        self,
        source_tokens: Int[Tensor, "batch read"],
        source_mask: Bool[Tensor, "batch read"],
        target_tokens: Int[Tensor, "batch time"],
    ) -> Float[Tensor, "batch time read"]:
        """Where the last layer of the decoder looks before it writes the word that follows each: the mean of its heads."""
        memory = self.encode(source_tokens, source_mask)
        x = looks = self.embedded(target_tokens, self.target_embedding)
        for block, read in zip(self.decoder, memory.read, strict=True):
            looks = block.attend(x, causal=True)
            x = block.think(block.look(looks, *read, memory.mask))
        return self.decoder[-1].looked(looks, memory.read[-1][0], memory.mask).mean(1)

"""A translation written all at once: a Transformer whose decoder sees the whole target, what is before a place and after it.

The words of a target are then independent given the source and what the decoder reads, so one pass writes them all; what the
decoder reads instead of the words before differs from family to family:
    LengthTransformer      as many <bos> as a head on the source says there will be words, or a draft of the target
    FertilityTransformer   the source, each word as often as a head says that it has words in the target
    InsertionTransformer   a part of the target; its head says what belongs between any two words of it
    LevenshteinTransformer the same; its heads say which words go, how many new ones come between any two, and which
    KERMIT                 source and target side by side, any part of either
A place that is yet to be written holds <bos>.

Gu et al. 2017, arXiv:1711.02281 (fertility); Ghazvininejad et al. 2019, arXiv:1904.09324 (length, masks); Stern et al. 2019,
arXiv:1902.03249 (insertion); Gu, Wang, Zhao 2019, arXiv:1905.11006 (Levenshtein); Chan et al. 2019, arXiv:1906.01604
(KERMIT).   LEE NAT
"""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear

from thalweg.data.pairs import EOS, PAD
from thalweg.layers.cross_attention import Block
from thalweg.layers.position import sinusoidal
from thalweg.layers.rows import repeated


class Memory(NamedTuple):
    """What was read: the encoder's outputs [batch read embed], their keys and values for each layer of the decoder, and where
    they are real [batch 1 1 read]."""

    states: Tensor
    read: list[tuple[Tensor, Tensor]]
    mask: Tensor

    @property
    def summary(self) -> Tensor:
        """The sum of the outputs: every word of the source adds to the length of the target.   [batch embed]"""
        return (self.states * self.mask[:, 0, 0, :, None]).sum(1)


class ParallelTransformer(nn.Module):
    """An encoder, and a decoder without a future: every place of the target sees all others.

    source_tokens, source_mask: [batch read], target_tokens, target_mask: [batch time] -> logits [batch time target_vocab_size]
    of the word at each place (not after it), whatever is read there.   hidden_dim: 4 embed_dim if None.
    ValueError if num_heads does not divide embed_dim.
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
    ):
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim={embed_dim}: expected a multiple of num_heads={num_heads}")
        self.embed_dim, self.dropout = embed_dim, nn.Dropout(dropout)
        self.source_embedding = nn.Embedding(source_vocab_size, embed_dim)
        self.target_embedding = nn.Embedding(target_vocab_size, embed_dim)
        arguments = (embed_dim, num_heads, hidden_dim or 4 * embed_dim, dropout, norm_first)
        for name in ("encoder", "decoder"):
            self.add_module(name, nn.ModuleList(Block(*arguments, crosses=name == "decoder") for _ in range(num_layers)))
        self.encoder_norm, self.decoder_norm = (nn.LayerNorm(embed_dim) if norm_first else nn.Identity() for _ in range(2))
        for weight in self.parameters():
            if weight.ndim == 2:
                nn.init.xavier_uniform_(weight)
        for embedding in (self.source_embedding, self.target_embedding):
            nn.init.normal_(embedding.weight, std=embed_dim**-0.5)

    def forward(
        self,
        source_tokens: Int[Tensor, "batch read"],
        source_mask: Bool[Tensor, "batch read"],
        target_tokens: Int[Tensor, "batch time"],
        target_mask: Bool[Tensor, "batch time"],
    ) -> Float[Tensor, "batch time vocab"]:
        return self.words(self.decode(target_tokens, target_mask, self.encode(source_tokens, source_mask)))

    def embedded(self, tokens: Tensor, embedding: nn.Embedding) -> Tensor:
        """Tokens with their places."""
        x = sqrt(self.embed_dim) * embedding(tokens)
        return self.dropout(x + sinusoidal(0, tokens.shape[1], self.embed_dim, x))

    def encode(self, source_tokens: Int[Tensor, "batch read"], source_mask: Bool[Tensor, "batch read"]) -> Memory:
        x, mask = self.embedded(source_tokens, self.source_embedding), source_mask[:, None, None]
        for block in self.encoder:
            x = block.think(block.attend(x, mask))
        x = self.encoder_norm(x)
        return Memory(x, [block.cross.read(x) for block in self.decoder], mask)

    def decode(
        self, tokens: Int[Tensor, "rows time"], mask: Bool[Tensor, "rows time"], memory: Memory, copied: bool = False
    ) -> Float[Tensor, "rows time embed"]:
        """What is known of every place; rows: as many targets a source as wanted, side by side.

        copied: the tokens are words of the source.
        """
        x, seen = self.embedded(tokens, self.source_embedding if copied else self.target_embedding), mask[:, None, None]
        for block, read in zip(self.decoder, memory.read, strict=True):
            x = block.think(block.look(block.attend(x, seen), *read, memory.mask))
        return self.decoder_norm(x)

    def words(self, states: Float[Tensor, "*place embed"]) -> Float[Tensor, "*place vocab"]:
        """Logits of the words of places."""
        return linear(states, self.target_embedding.weight)


class LengthTransformer(nn.Module):
    """Reads a draft of the target, at first <bos> alone; how many places it has says a head on the sum of what was read.

    p(y | x) = p(T | x) prod_t p(y_t | draft, x), length: logits of T = 0, ..., longest.   network: a `ParallelTransformer`.
    """

    def __init__(self, network: ParallelTransformer, longest: int):
        super().__init__()
        self.network, self.length = network, nn.Linear(network.embed_dim, longest + 1)

    def forward(
        self, source_tokens: Tensor, source_mask: Tensor, target_tokens: Tensor, target_mask: Tensor
    ) -> tuple[Float[Tensor, "batch time vocab"], Float[Tensor, "batch length"]]:
        memory = self.network.encode(source_tokens, source_mask)
        states = self.network.decode(target_tokens, target_mask, memory)
        return self.network.words(states), self.length(memory.summary)


class FertilityTransformer(nn.Module):
    """Reads the source again, each word as often as it has words in the target: the plan of the sentence is drawn first.

    p(y | x) = sum_f prod_s p(f_s | x) prod_t p(y_t | x, f), the length of y the sum of f: what is unsure about the sentence as
    a whole is in f, so that given f the words need not know of each other.
    largest: of a fertility.   network: a `ParallelTransformer`.
    """

    def __init__(self, network: ParallelTransformer, largest: int = 4):
        super().__init__()
        self.network, self.fertility = network, nn.Linear(network.embed_dim, largest + 1)

    def forward(
        self,
        source_tokens: Int[Tensor, "batch read"],
        source_mask: Bool[Tensor, "batch read"],
        fertility: Int[Tensor, "batch read"],
    ) -> tuple[Float[Tensor, "batch time vocab"], Bool[Tensor, "batch time"], Float[Tensor, "batch read fertility"]]:
        memory = self.network.encode(source_tokens, source_mask)
        tokens, mask = repeated(source_tokens, fertility, PAD)
        states = self.network.decode(tokens, mask, memory, copied=True)
        return self.network.words(states), mask, self.fertility(memory.states)


def fenced(tokens: Int[Tensor, "rows time"], mask: Bool[Tensor, "rows time"]) -> tuple[Tensor, Tensor]:
    """The tokens between two <eos>, so that there is a gap before the first and behind the last too.   [rows time+2]"""
    length = mask.sum(1, keepdim=True)
    wider = torch.cat([torch.full_like(length, EOS), tokens, torch.full_like(length, PAD)], 1).scatter(1, length + 1, EOS)
    return wider, torch.arange(wider.shape[1], device=mask.device) < length + 2


def gaps(states: Float[Tensor, "rows places embed"]) -> Float[Tensor, "rows gap both"]:
    """The two places that each gap lies between."""
    return torch.cat([states[:, :-1], states[:, 1:]], -1)


class InsertionTransformer(nn.Module):
    """Reads a part of the target, and says what belongs before each of its words and behind the last; <eos> is nothing.

    logits of gap g = W_words (W [h_g, h_{g+1}] + b), from what is known of the places on both sides.   -> [batch time+1 vocab]
    network: a `ParallelTransformer`.
    """

    def __init__(self, network: ParallelTransformer):
        super().__init__()
        self.network, self.gap = network, nn.Linear(2 * network.embed_dim, network.embed_dim)

    def forward(
        self, source_tokens: Tensor, source_mask: Tensor, target_tokens: Tensor, target_mask: Tensor
    ) -> Float[Tensor, "batch gap vocab"]:
        return self.missing(target_tokens, target_mask, self.network.encode(source_tokens, source_mask))

    def missing(self, tokens: Tensor, mask: Tensor, memory: Memory) -> Float[Tensor, "rows gap vocab"]:
        return self.network.words(self.gap(gaps(self.network.decode(*fenced(tokens, mask), memory))))


class LevenshteinTransformer(nn.Module):
    """Edits a draft: says which words go, how many new ones come into each gap, and which they are.

    wrong: logit of every word, [rows time];   missing: logits of 0 to `most` words of every gap, [rows time+1 most+1];
    words: logits of the words of places, [rows time vocab].   network: a `ParallelTransformer`.
    """

    def __init__(self, network: ParallelTransformer, most: int = 16):
        super().__init__()
        self.network, self.deletion = network, nn.Linear(network.embed_dim, 1)
        self.insertion = nn.Linear(2 * network.embed_dim, most + 1)

    def wrong(self, tokens: Tensor, mask: Tensor, memory: Memory) -> Float[Tensor, "rows time"]:
        return self.deletion(self.network.decode(*fenced(tokens, mask), memory)[:, 1:-1]).squeeze(2)

    def missing(self, tokens: Tensor, mask: Tensor, memory: Memory) -> Float[Tensor, "rows gap count"]:
        return self.insertion(gaps(self.network.decode(*fenced(tokens, mask), memory)))

    def words(self, tokens: Tensor, mask: Tensor, memory: Memory) -> Float[Tensor, "rows time vocab"]:
        return self.network.words(self.network.decode(*fenced(tokens, mask), memory)[:, 1:-1])


class Kermit(nn.Module):
    """Source and target side by side in one stack of blocks, parts of either: a joint model of both, so it goes both ways.

    source_tokens, source_mask: [batch read], target_tokens, target_mask: [batch time] -> logits of what belongs into the gaps
    of the source, [batch read+1 source_vocab_size], and of the target, [batch time+1 target_vocab_size]; <eos> is nothing.
    With all of the source and none of the target it translates, the other way round it translates back.
    ValueError if num_heads does not divide embed_dim.
    """

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
    ):
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim={embed_dim}: expected a multiple of num_heads={num_heads}")
        self.embed_dim, self.dropout = embed_dim, nn.Dropout(dropout)
        self.embedding = nn.ModuleList(nn.Embedding(size, embed_dim) for size in (source_vocab_size, target_vocab_size))
        self.side = nn.Embedding(2, embed_dim)
        arguments = (embed_dim, num_heads, hidden_dim or 4 * embed_dim, dropout, norm_first)
        self.blocks = nn.ModuleList(Block(*arguments, crosses=False) for _ in range(num_layers))
        self.norm = nn.LayerNorm(embed_dim) if norm_first else nn.Identity()
        self.gap = nn.Linear(2 * embed_dim, embed_dim)
        for weight in self.parameters():
            if weight.ndim == 2:
                nn.init.xavier_uniform_(weight)
        for embedding in [*self.embedding, self.side]:
            nn.init.normal_(embedding.weight, std=embed_dim**-0.5)  # type: ignore[arg-type]

    def forward(
        self, source_tokens: Tensor, source_mask: Tensor, target_tokens: Tensor, target_mask: Tensor
    ) -> tuple[Float[Tensor, "batch source_gap source_vocab"], Float[Tensor, "batch gap vocab"]]:
        parts, masks = [], []
        for side, given in enumerate(((source_tokens, source_mask), (target_tokens, target_mask))):
            tokens, mask = fenced(*given)
            x = sqrt(self.embed_dim) * (self.embedding[side](tokens) + self.side.weight[side])
            parts.append(self.dropout(x + sinusoidal(0, tokens.shape[1], self.embed_dim, x)))
            masks.append(mask)
        x, seen = torch.cat(parts, 1), torch.cat(masks, 1)[:, None, None]
        for block in self.blocks:
            x = block.think(block.attend(x, seen))  # type: ignore[operator]
        sides = self.norm(x).split([part.shape[1] for part in parts], 1)
        source, target = (linear(self.gap(gaps(states)), embedding.weight)  # type: ignore[arg-type]
                          for states, embedding in zip(sides, self.embedding, strict=True))  # fmt: skip
        return source, target

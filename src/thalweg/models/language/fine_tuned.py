"""An encoder of language and a linear head: what was learned from much text is taught a task with little.

Of a text (or a pair of texts): a class, or a number.   Of every token: a label; two labels, start and end, cut an answer out.
Of a text another text: a decoder that has learned nothing before writes it, and looks at what the encoder has read.
Devlin et al. 2018, arXiv:1810.04805.   D2L 15.6, LEE BERT
"""

from math import sqrt

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from thalweg.layers.cross_attention import BeamCache, Block
from thalweg.layers.dropout import ByteDropout
from thalweg.layers.layer_mix import LayerMix
from thalweg.layers.position import sinusoidal
from thalweg.models.language.bert import BERT
from thalweg.models.sequence.transformer import Memory


class Reading(nn.Module):
    """What an encoder makes of each token: its last layer, or a mix of all. tokens, mask, segment -> [batch time embed]

    weighted: the mix, whose weights are learned: some tasks need less than the last layer has made of it.
    frozen: the encoder stays as it is, and drops nothing out; only what is above learns.
    """

    def __init__(self, backbone: BERT, weighted: bool, frozen: bool):
        super().__init__()
        self.backbone, self.frozen = backbone, frozen
        self.mix = LayerMix(len(backbone.blocks) + 1) if weighted else None
        if frozen:
            backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> "Reading":
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, tokens: Tensor, mask: Tensor | None, segment: Tensor | None = None) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            layers = self.backbone.layers(tokens, mask, segment)
        return layers[-1] if self.mix is None else self.mix(layers)


class OfText(nn.Module):
    """tokens, mask, segment [batch time] -> [batch output]: of a text, or of a pair of texts in two segments.

    logits = W x + b;   x: pool "mean", the mean of the vectors of the tokens; "first", the encoder's `pooled` of the first.
    weighted, frozen: see `Reading`.   ValueError for another pool.
    """

    def __init__(
        self,
        backbone: BERT,
        num_outputs: int,
        pool: str = "mean",
        weighted: bool = False,
        frozen: bool = False,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.reading = Reading(backbone, weighted, frozen)
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(backbone.embedding.embedding_dim, num_outputs)
        if pool not in ("mean", "first"):
            raise ValueError(f"pool={pool!r}: expected mean or first")
        self.pool = pool
        if pool == "mean":
            backbone.pooler.requires_grad_(False)  # it has no say

    def forward(
        self,
        tokens: Int[Tensor, "batch time"],
        mask: Bool[Tensor, "batch time"],
        segment: Int[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch output"]:
        x = self.reading(tokens, mask, segment)
        if self.pool == "first":
            return self.head(self.dropout(self.reading.backbone.pooled(x)))
        real = mask[..., None]
        return self.head(self.dropout((x * real).sum(1) / real.sum(1)))


class OfTokens(nn.Module):
    """tokens, mask, segment [batch time] -> [batch time output]: logits = W x_t + b at every token.

    hidden_dim: of a perceptron in place of that, logits = W_2 gelu(W_1 x_t + b_1) + b_2; where one judgement is all that is
    asked, a linear head would leave of the last layer one direction alone.   weighted, frozen: see `Reading`.
    """

    def __init__(self, backbone: BERT, num_outputs: int, hidden_dim: int | None = None, weighted: bool = False,
                 frozen: bool = False, dropout: float = 0.1):  # fmt: skip
        super().__init__()
        self.reading, embed_dim = Reading(backbone, weighted, frozen), backbone.embedding.embedding_dim
        hidden = [] if hidden_dim is None else [nn.Linear(embed_dim, hidden_dim), nn.GELU()]
        self.dropout, last = nn.Dropout(dropout), nn.Linear(hidden_dim or embed_dim, num_outputs)
        self.head = nn.Sequential(*hidden, last) if hidden else last
        backbone.pooler.requires_grad_(False)

    def forward(
        self,
        tokens: Int[Tensor, "batch time"],
        mask: Bool[Tensor, "batch time"],
        segment: Int[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time output"]:
        return self.head(self.dropout(self.reading(tokens, mask, segment)))


class OfWords(nn.Module):
    """Logits of the labels of every word, by the first piece of each: a `Tagger` whose letters are pieces of words.

    letters: the pieces of each word [batch time piece], 0 where there is none; they are read as one text, begin pieces end, or,
    where that is longer than the encoder reads, as several, one after the other.
    tokens: words [batch time], which are not read.   begin, end: tokens around the text.   weighted, frozen: see `Reading`.
    """

    def __init__(
        self,
        backbone: BERT,
        num_labels: int,
        begin: int,
        end: int,
        weighted: bool = False,
        frozen: bool = False,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.reading = Reading(backbone, weighted, frozen)
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(backbone.embedding.embedding_dim, num_labels)
        backbone.pooler.requires_grad_(False)
        self.begin, self.end = begin, end

    def forward(
        self, tokens: Int[Tensor, "batch time"], letters: Int[Tensor, "batch time piece"], mask: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time label"]:
        real = ((letters != 0) & mask[..., None]).flatten(1)
        place, count = real.cumsum(1) - 1, real.sum(1, keepdim=True)
        longest = max(1, int(count.max()))
        size = min(longest, self.reading.backbone.position.num_embeddings - 2)
        windows = -(-longest // size)
        text = letters.new_zeros(len(letters), windows * size + 1)  # what is not real goes to the end, and is cut off there
        text = text.scatter(1, place.where(real, windows * size), letters.flatten(1))[:, :-1].reshape(-1, size)
        held = (count - size * torch.arange(windows, device=text.device)).clamp(0, size).reshape(-1, 1)  # pieces of a window
        text = pad(text, (1, 1)).scatter(1, held + 1, self.end)
        text[:, 0] = self.begin
        x = self.reading(text, torch.arange(size + 2, device=text.device) <= held + 1)[:, 1:-1].reshape(
            len(letters), windows * size, -1
        )
        first = place.unflatten(1, letters.shape[1:])[..., 0].clamp(0, windows * size - 1)
        return self.head(self.dropout(x.gather(1, first[..., None].expand(-1, -1, x.shape[2]))))


class IntoText(nn.Module):
    """source_tokens, source_mask [batch read], target_tokens [batch time] -> logits of what follows each [batch time vocab]

    The encoder reads; num_layers blocks of a decoder as wide as it write, x + f(norm(x)), logits by their own embedding: an
    encoder-decoder of which half is pre-trained.   vocab_size: of the targets, whose tokens need not be the encoder's.
    weighted, frozen: see `Reading`.   LEE BERT's task-specific decoder
    """

    def __init__(
        self,
        backbone: BERT,
        vocab_size: int,
        num_layers: int = 2,
        weighted: bool = False,
        frozen: bool = False,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.reading, self.dropout = Reading(backbone, weighted, frozen), ByteDropout(dropout)
        embed_dim, block = backbone.embedding.embedding_dim, backbone.blocks[0]
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.blocks = nn.ModuleList(
            Block(embed_dim, block.attention.num_heads, block.mlp.up.out_features, dropout, norm_first=True, crosses=True)  # type: ignore[union-attr,arg-type]
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(embed_dim)
        nn.init.normal_(self.embedding.weight, std=embed_dim**-0.5)
        backbone.pooler.requires_grad_(False)

    def forward(
        self,
        source_tokens: Int[Tensor, "batch read"],
        source_mask: Bool[Tensor, "batch read"],
        target_tokens: Int[Tensor, "batch time"],
    ) -> Float[Tensor, "batch time vocab"]:
        return self.decode(target_tokens, self.encode(source_tokens, source_mask))

    def encode(self, source_tokens: Int[Tensor, "batch read"], source_mask: Bool[Tensor, "batch read"]) -> Memory:
        """What each layer of the decoder looks at."""
        x = self.reading(source_tokens, source_mask)
        return Memory([block.cross.read(x) for block in self.blocks], source_mask[:, None, None])  # type: ignore[union-attr,operator]

    def decode(
        self, target_tokens: Int[Tensor, "rows time"], memory: Memory, cache: BeamCache | None = None
    ) -> Float[Tensor, "rows time vocab"]:
        x, bias = sqrt(self.embedding.embedding_dim) * self.embedding(target_tokens), None
        x = self.dropout(x + sinusoidal(0 if cache is None else cache.length, x.shape[1], x.shape[2], x))
        if cache is not None:  # the targets of a source stand side by side, as if they were its times
            x, bias = x.view(len(memory.mask), -1, x.shape[2]), cache.extend(target_tokens.shape[1])
        layers = [None] * len(self.blocks) if cache is None else cache.layers
        for block, read, kept in zip(self.blocks, memory.read, layers, strict=True):
            x = block.think(block.look(block.attend(x, None, bias, cache is None, kept), *read, memory.mask))  # type: ignore[operator]
        return linear(self.norm(x), self.embedding.weight).view(*target_tokens.shape, -1)

    def new_cache(self, memory: Memory, copies: int, time: int) -> BeamCache:
        """Room for keys and values of up to `time` places of so many targets of each source."""
        batch, heads, _, dim = memory.read[0][0].shape
        return BeamCache(len(self.blocks), batch, copies, heads, time, dim, memory.read[0][0])

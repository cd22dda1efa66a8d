"""An encoder of language and a linear head: what was learned from much text is taught a task with little.

Of a text (or a pair of texts): a class, or a number.   Of every token: a label; two labels, start and end, cut an answer out.
Devlin et al. 2018, arXiv:1810.04805.   D2L 15.6, LEE BERT
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from thalweg.models.language.bert import BERT


class LayerMixture(nn.Module):
    """A mean of what all layers say, with weights that are learned: some tasks need less than the last layer has made of it.

    y = gamma sum_l softmax(weight)_l x_l.   layers: [layer] of [batch time embed] -> [batch time embed]
    Peters et al. 2018, arXiv:1802.05365.   LEE BERT
    """

    def __init__(self, num_layers: int):
        super().__init__()
        self.weight, self.gamma = nn.Parameter(torch.zeros(num_layers)), nn.Parameter(torch.ones(()))

    def shares(self) -> Float[Tensor, " layer"]:
        """The weight of each layer, the embedding first; they sum to 1."""
        return self.weight.softmax(0)

    def forward(self, layers: list[Tensor]) -> Tensor:
        mixed = layers[0] * self.shares()[0]
        for share, x in zip(self.shares()[1:], layers[1:], strict=True):
            mixed = mixed + share * x
        return self.gamma * mixed


class Headed(nn.Module):
    """What the heads below have in common: the vectors of the tokens.

    weighted: a mixture of all layers in place of the last.   frozen: the encoder stays as it is, only what is above learns.
    """

    def __init__(self, backbone: BERT, num_outputs: int, weighted: bool, frozen: bool, dropout: float):
        super().__init__()
        self.backbone, self.frozen = backbone, frozen
        self.mixture = LayerMixture(len(backbone.blocks) + 1) if weighted else None
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(backbone.embedding.embedding_dim, num_outputs)
        if frozen:
            backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> "Headed":
        """A frozen encoder drops nothing out either."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def read(self, tokens: Tensor, mask: Tensor | None, segment: Tensor | None = None) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            layers = self.backbone.layers(tokens, mask, segment)
        return layers[-1] if self.mixture is None else self.mixture(layers)


class OfText(Headed):
    """tokens, mask, segment [batch time] -> [batch output]: of a text, or of a pair of texts in two segments.

    logits = W x + b;   x: pool "mean", the mean of the vectors of the tokens; "first", the encoder's `pooled` of the first.
    weighted, frozen: see `Headed`.   ValueError for another pool.
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
        super().__init__(backbone, num_outputs, weighted, frozen, dropout)
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
        x = self.read(tokens, mask, segment)
        if self.pool == "first":
            return self.head(self.dropout(self.backbone.pooled(x)))
        real = mask[..., None]
        return self.head(self.dropout((x * real).sum(1) / real.sum(1)))


class OfTokens(Headed):
    """tokens, mask, segment [batch time] -> [batch time output]: logits = W x_t + b at every token.

    weighted, frozen: see `Headed`.
    """

    def __init__(self, backbone: BERT, num_outputs: int, weighted: bool = False, frozen: bool = False, dropout: float = 0.1):
        super().__init__(backbone, num_outputs, weighted, frozen, dropout)
        backbone.pooler.requires_grad_(False)

    def forward(
        self,
        tokens: Int[Tensor, "batch time"],
        mask: Bool[Tensor, "batch time"],
        segment: Int[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time output"]:
        return self.head(self.dropout(self.read(tokens, mask, segment)))


class OfWords(Headed):
    """Logits of the labels of every word, by the first piece of each: a `Tagger` whose letters are pieces of words.

    letters: the pieces of each word [batch time piece], 0 where there is none; they are read as one text, begin pieces end.
    tokens: words [batch time], which are not read.   begin, end: tokens around the text.   weighted, frozen: see `Headed`.
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
        super().__init__(backbone, num_labels, weighted, frozen, dropout)
        backbone.pooler.requires_grad_(False)
        self.begin, self.end = begin, end

    def forward(
        self, tokens: Int[Tensor, "batch time"], letters: Int[Tensor, "batch time piece"], mask: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time label"]:
        real = ((letters != 0) & mask[..., None]).flatten(1)
        place, count = real.cumsum(1), real.sum(1, keepdim=True)
        length = int(count.max()) + 2
        text = letters.new_zeros(len(letters), length + 1)  # what is not real goes behind the end, and is cut off there
        text.scatter_(1, place.where(real, length), letters.flatten(1))
        text = text[:, :length].scatter(1, count + 1, self.end)
        text[:, 0] = self.begin
        x = self.read(text, torch.arange(length, device=text.device) <= count + 1)
        first = place.unflatten(1, letters.shape[1:])[..., 0].clamp(max=length - 1)
        return self.head(self.dropout(x.gather(1, first[..., None].expand(-1, -1, x.shape[2]))))

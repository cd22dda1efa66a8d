"""What stands on an encoder while it is pre-trained: hidden tokens, and whether two texts belong together, are told by it.

Devlin et al. 2018, arXiv:1810.04805; the boundary: Joshi et al. 2019, arXiv:1907.10529.   D2L 14.8, LEE BERT
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from thalweg.data.masking import borders, permutation_sight
from thalweg.models.language.bert import BERT


class TokenHead(nn.Module):
    """logits = E norm(gelu(W x)) + b, E the embedding that the encoder reads by.   [... embed] -> [... vocab]"""

    def __init__(self, vocab_size: int, embed_dim: int):
        super().__init__()
        self.dense, self.norm = nn.Linear(embed_dim, embed_dim), nn.LayerNorm(embed_dim)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return linear(self.norm(gelu(self.dense(x))), embedding, self.bias)


class SpanBoundary(nn.Module):
    """What a hidden token may be by the two tokens around its span alone, and by its place in the span.

    y = norm(gelu(W_2 norm(gelu(W_1 [x_left, x_right, position_n])))), n its number in the span.
    longest: numbers that are told apart; what is further in counts as the last.
    """

    def __init__(self, embed_dim: int, longest: int = 20):
        super().__init__()
        self.position = nn.Embedding(longest, embed_dim)
        self.first, self.second = nn.Linear(3 * embed_dim, embed_dim), nn.Linear(embed_dim, embed_dim)
        self.first_norm, self.second_norm = nn.LayerNorm(embed_dim), nn.LayerNorm(embed_dim)

    def forward(
        self, x: Float[Tensor, "batch time embed"], hidden: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "chosen embed"]:
        """x: the vectors of all places.   hidden: which are to be told, in whose order the answer is."""
        row = hidden.nonzero()[:, 0]
        left, right, number = (part[hidden] for part in borders(hidden))
        place = self.position(number.clamp(max=self.position.num_embeddings - 1))
        y = self.first_norm(gelu(self.first(torch.cat([x[row, left], x[row, right], place], -1))))
        return self.second_norm(gelu(self.second(y)))


class MaskedEncoder(nn.Module):
    """An encoder, and heads for what is hidden.

    pairs: also for whether a second text follows.   boundary: see `SpanBoundary`.
    query: the token in whose place every token is asked for by a stream of its own, as in XLNet: two streams of vectors go
    through the same blocks. Content: a token, which reads what its mask shows, and itself. Query: a place without its token,
    which reads the same contents but its own; by it the token is told. So nothing that is read is a mask, and hidden tokens
    help to tell each other, each those whose turn is later (`permutation_sight`).   Yang et al. 2019, arXiv:1906.08237;
    Elsewhere: there a place is told by its distance, and a segment before is remembered; here by its number, and none is.
    """

    def __init__(self, backbone: BERT, pairs: bool = False, boundary: bool = False, query: int | None = None):
        super().__init__()
        vocab_size, embed_dim = backbone.embedding.weight.shape
        self.backbone, self.token_head, self.query = backbone, TokenHead(vocab_size, embed_dim), query
        self.pair_head = nn.Linear(embed_dim, 2) if pairs else None
        self.boundary = SpanBoundary(embed_dim) if boundary else None
        if not pairs:
            backbone.pooler.requires_grad_(False)  # it has no say

    def read(self, tokens: Tensor, mask: Tensor, segment: Tensor, hidden: Tensor) -> Tensor:
        """The vectors by which tokens are told."""
        if self.query is None:
            return self.backbone(tokens, mask, segment)
        if mask.ndim == 2:  # the turns are from left to right
            mask = permutation_sight(hidden.cumsum(1).where(hidden, -1), mask)
        time = tokens.shape[1]
        own = torch.eye(time, dtype=torch.bool, device=tokens.device)
        seen = torch.cat([torch.cat([mask | own, mask & ~own], 1), mask.new_zeros(len(mask), 2 * time, time)], 2)
        asked = self.backbone.embedded(torch.full_like(tokens, self.query), segment)
        x = torch.cat([self.backbone.embedded(tokens, segment), asked], 1)
        for block in self.backbone.blocks:
            x = block(x, seen[:, None])
        return x[:, time:]

    def forward(
        self,
        tokens: Int[Tensor, "batch time"],
        mask: Bool[Tensor, "..."],
        segment: Int[Tensor, "batch time"],
        hidden: Bool[Tensor, "batch time"],
    ) -> dict[str, Tensor]:
        """tokens: logits of the hidden tokens [chosen vocab]; boundary: the same by the boundary; pair [batch 2]."""
        x, embedding = self.read(tokens, mask, segment, hidden), self.backbone.embedding.weight
        said = {"tokens": self.token_head(x[hidden], embedding)}
        if self.boundary is not None:
            said["boundary"] = self.token_head(self.boundary(x, hidden), embedding)
        if self.pair_head is not None:
            said["pair"] = self.pair_head(self.backbone.pooled(x))
        return said

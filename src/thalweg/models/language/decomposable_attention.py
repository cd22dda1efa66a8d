"""Decomposable attention: two sentences are compared word by aligned word; no order, no recurrence, few parameters.

a, b: words of the premise and of the hypothesis, project(embedding(.));   e_ij = attend(a_i) . attend(b_j)
attend      beta_i = sum_j softmax_j(e_ij) b_j,   alpha_j = sum_i softmax_i(e_ij) a_i: what of the other each word is about
compare     v_i = compare([a_i, beta_i]),   w_j = compare([b_j, alpha_j])
aggregate   logits = head(aggregate([sum_i v_i, sum_j w_j]))
attend sees each word by itself, m + n times and not m n times as if it saw pairs: their table is one product.
attend, compare and aggregate are two layers each with relu.
Parikh, Täckström, Das, Uszkoreit 2016, "A decomposable attention model for natural language inference", arXiv:1606.01933.
D2L 15.5
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


def _mlp(in_features: int, hidden_dim: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(in_features, hidden_dim), nn.ReLU(),
                         nn.Dropout(dropout), nn.Linear(hidden_dim, hidden_dim), nn.ReLU())  # fmt: skip


class DecomposableAttention(nn.Module):
    """source_tokens, source_mask [batch read], target_tokens, target_mask [batch time] -> logits [batch class]

    source: the premise; target: the hypothesis.   hidden_dim: of projected words and of all layers.
    """

    def __init__(
        self, vocab_size: int, num_classes: int = 3, embed_dim: int = 100, hidden_dim: int = 200, dropout: float = 0.2
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.project = nn.Linear(embed_dim, hidden_dim, bias=False)
        self.attend = _mlp(hidden_dim, hidden_dim, dropout)
        self.compare, self.aggregate = (_mlp(2 * hidden_dim, hidden_dim, dropout) for _ in range(2))
        self.head = nn.Linear(hidden_dim, num_classes)

    def agreement(self, a: Tensor, b: Tensor) -> Tensor:
        """e.   [batch read hidden], [batch time hidden] -> [batch read time]"""
        return self.attend(a) @ self.attend(b).mT

    def alignment(
        self, source_tokens: Tensor, source_mask: Tensor, target_tokens: Tensor, target_mask: Tensor
    ) -> Float[Tensor, "batch time read"]:
        """The softmax over the premise of which alpha is made: where in it each word of the hypothesis has its like."""
        a, b = (self.project(self.embedding(tokens)) for tokens in (source_tokens, target_tokens))
        return self.agreement(a, b).masked_fill(~source_mask[..., None], -torch.inf).softmax(1).mT

    def forward(
        self,
        source_tokens: Int[Tensor, "batch read"],
        source_mask: Bool[Tensor, "batch read"],
        target_tokens: Int[Tensor, "batch time"],
        target_mask: Bool[Tensor, "batch time"],
    ) -> Float[Tensor, "batch class"]:
        a, b = (self.project(self.embedding(tokens)) for tokens in (source_tokens, target_tokens))
        e = self.agreement(a, b)
        beta = e.masked_fill(~target_mask[:, None], -torch.inf).softmax(2) @ b
        alpha = e.masked_fill(~source_mask[..., None], -torch.inf).softmax(1).mT @ a
        v = (self.compare(torch.cat([a, beta], -1)) * source_mask[..., None]).sum(1)
        w = (self.compare(torch.cat([b, alpha], -1)) * target_mask[..., None]).sum(1)
        return self.head(self.aggregate(torch.cat([v, w], -1)))

"""Neural n-gram models: the next word from the vectors of the few before it, so that like contexts foretell like words.

NNLM  p(w | w_1 ... w_{n-1}) = softmax(U tanh(sum_i H_i e_{w_i} + b) + d)_w           two vectors a word: e read, U_w told
LBL   p(w | w_1 ... w_{n-1}) = softmax(E (sum_i C_i e_{w_i}) + d)_w                    no tanh, and one vector a word
hierarchical LBL: the same, where a word is told by the turns on its way down a tree, log V of them instead of V words
Bengio, Ducharme, Vincent, Jauvin 2003, "A neural probabilistic language model"; Mnih, Hinton 2007, "Three new graphical models
for statistical language modelling"; Mnih, Hinton 2009, "A scalable hierarchical distributed language model".   LEE: LM
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from thalweg.layers.softmax import FullSoftmax, HierarchicalSoftmax


class NNLM(nn.Module):
    """order: words of an n-gram, the foretold one among them.   tokens [batch time] -> log-probabilities of the next word at
    each place [batch time vocab]; before the first word stands nothing, a vector of zeros.

    counts: how often each word occurs, for a tree in place of the sum over all words.
    cache: the vectors of the last order - 2 words, [1 batch dim order-2]; it is changed to those after the last token.
    """

    def __init__(self, vocab_size: int, order: int = 5, embed_dim: int = 100, hidden_dim: int = 200, dropout: float = 0.0,
                 counts: Sequence[int] | None = None):  # fmt: skip
        super().__init__()
        if order < 2 or (counts and len(counts) != vocab_size):
            raise ValueError(
                f"order={order}, {len(counts or ())} counts: expected at least 2, and vocab_size={vocab_size} counts"
            )
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        nn.init.normal_(self.embedding.weight, std=0.1)  # a word that is hardly ever learned from is no loud noise
        self.context = nn.Conv1d(embed_dim, hidden_dim, order - 1)
        self.dropout = nn.Dropout(dropout)
        self.head = HierarchicalSoftmax(hidden_dim, counts) if counts else FullSoftmax(hidden_dim, vocab_size)

    def states(self, tokens: Int[Tensor, "batch time"], cache: list[Tensor] | None = None) -> Float[Tensor, "batch time dim"]:
        """What is known of the next word at each place."""
        return self.dropout(self.summed(tokens, cache).tanh())

    def summed(self, tokens: Tensor, cache: list[Tensor] | None) -> Tensor:
        """The sum over the words before, each by the matrix of its distance.   [batch time dim]"""
        cache = cache or self.new_cache(len(tokens), 1)
        x = torch.cat([cache[0][0], self.dropout(self.embedding(tokens)).mT], -1)
        cache[0] = x[None, ..., x.shape[-1] - cache[0].shape[-1] :]
        return self.context(x).mT

    def forward(
        self, tokens: Int[Tensor, "batch time"], cache: list[Tensor] | None = None
    ) -> Float[Tensor, "batch time vocab"]:
        return self.head.log_prob(self.states(tokens, cache))

    def surprise(
        self, tokens: Int[Tensor, "batch time"], target: Int[Tensor, "batch time"], cache: list[Tensor] | None = None
    ) -> Float[Tensor, "batch time"]:
        """-log p of the target at each place, without the others where a tree is there."""
        x = self.states(tokens, cache)
        if isinstance(self.head, HierarchicalSoftmax):
            return -self.head(x, target).float()
        return cross_entropy(self.head(x).float().flatten(0, 1), target.flatten(), reduction="none").view_as(target)

    def new_cache(self, batch: int, time: int) -> list[Tensor]:
        """Nothing is read yet."""
        weight = self.embedding.weight
        return [weight.new_zeros(1, batch, weight.shape[1], self.context.kernel_size[0] - 1)]


class LBL(NNLM):
    """As NNLM; with counts it is the hierarchical one, whose tree is Huffman's (the paper grows one by likeness)."""

    def __init__(self, vocab_size: int, order: int = 5, embed_dim: int = 100, dropout: float = 0.0,
                 counts: Sequence[int] | None = None):  # fmt: skip
        super().__init__(vocab_size, order, embed_dim, embed_dim, dropout, counts)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.context = nn.Conv1d(embed_dim, embed_dim, order - 1, bias=False)
        if isinstance(self.head, FullSoftmax):
            self.head.weight = self.embedding.weight

    def states(self, tokens: Int[Tensor, "batch time"], cache: list[Tensor] | None = None) -> Float[Tensor, "batch time dim"]:
        """The vector that is expected next at each place."""
        return self.dropout(self.summed(tokens, cache))

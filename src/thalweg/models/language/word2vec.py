"""Word2vec: words that stand among the same words get vectors that point the same way.   D2L 14.1-14.4, 14.6

A word u has a vector v_u where it is given, and another where it is told from others.
skip-gram: each word around, o, from the one in the middle, c:   p(o | v_c)
cbow:      the one in the middle from those around:              p(c | 1/n sum_o v_o)
objective, how p is learned: "softmax" over all words; "negative" sampling of a few others; "hierarchical", a way down a tree;
"contrastive" estimation, where skip-gram is the ivLBL and cbow the vLBL of Mnih and Kavukcuoglu (of one position).
With subwords v_c is put together from the pieces of the word, which is fastText.

Mikolov, Chen, Corrado, Dean 2013, arXiv:1301.3781; Mikolov et al. 2013, arXiv:1310.4546; Bojanowski et al. 2016,
arXiv:1607.04606; Mnih, Kavukcuoglu 2013, "Learning word embeddings efficiently with noise-contrastive estimation".
"""

from collections.abc import Sequence

import numpy
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from thalweg.layers.softmax import FullSoftmax, HierarchicalSoftmax, NegativeSampling
from thalweg.layers.subword_embedding import SubwordEmbedding
from thalweg.vocabulary import Batch

METHODS = ("skip-gram", "cbow")
OBJECTIVES = ("softmax", "negative", "hierarchical", "contrastive")


class Word2Vec(nn.Module):
    """counts: how often each word occurs.   negatives: drawn for a true word.   subwords: the words, if pieces are to count.

    batch: tokens, the words in the middle [batch]; context, those around [batch place], -1 where there is none.
    ValueError for another method or objective.
    """

    def __init__(
        self,
        counts: Sequence[int],
        embed_dim: int = 100,
        method: str = "skip-gram",
        objective: str = "negative",
        negatives: int = 5,
        subwords: str | None = None,
        buckets: int = 50_000,
    ):
        super().__init__()
        if method not in METHODS or objective not in OBJECTIVES:
            raise ValueError(f"method={method!r}, objective={objective!r}: expected one of {', '.join(METHODS)}, and one of "
                             f"{', '.join(OBJECTIVES)}")  # fmt: skip
        self.method, self.objective = method, objective
        self.embedding: nn.Embedding | SubwordEmbedding
        if subwords is None:
            self.embedding = nn.Embedding(len(counts), embed_dim)
            nn.init.uniform_(self.embedding.weight, -0.5 / embed_dim, 0.5 / embed_dim)
        else:
            self.embedding = SubwordEmbedding(subwords, embed_dim, buckets)
        self.head: FullSoftmax | HierarchicalSoftmax | NegativeSampling
        if objective == "softmax":
            self.head = FullSoftmax(embed_dim, len(counts), bias=False)
            nn.init.zeros_(self.head.weight)
        elif objective == "hierarchical":
            self.head = HierarchicalSoftmax(embed_dim, counts)
        else:
            self.head = NegativeSampling(embed_dim, counts, negatives, contrastive=objective == "contrastive")

    def pairs(self, batch: Batch) -> tuple[Float[Tensor, "pair dim"], Int[Tensor, " pair"]]:
        """What is known, a vector each, and the word that it shall tell."""
        tokens, context = batch["tokens"], batch["context"]
        real = context >= 0
        if self.method == "skip-gram":
            return self.embedding(tokens)[real.nonzero()[:, 0]], context[real]
        told = real.any(1)
        around = self.embedding(context[told].clamp(min=0)) * real[told, :, None]
        return around.sum(1) / real[told].sum(1, keepdim=True), tokens[told]

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor | int]:
        """The sum over the pairs and their number."""
        return self.head.loss(*self.pairs(batch))

    def vectors(self) -> Float[Tensor, "word dim"]:
        """The vectors v of all words."""
        return self.embedding(torch.arange(self.vocab_size, device=next(self.parameters()).device))

    @property
    def vocab_size(self) -> int:
        return len(self.embedding.pieces) if isinstance(self.embedding, SubwordEmbedding) else self.embedding.num_embeddings

    @torch.no_grad()
    def descend(self, batch: Batch, rate: float, state: int) -> None:
        """A step of gradient descent for each pair, from where the one before it has led; compiled, on a processor alone.

        state: decides which words are drawn.   ImportError without numba, which `pip install 'thalweg[fast]'` brings.
        """
        from thalweg.layers.pair_by_pair import descend

        bag, weight, target = (part.numpy() for part in self.bags(batch))
        path, turn = numpy.empty((1, 0), numpy.int32), numpy.empty((1, 0), numpy.int8)
        urn, negatives = numpy.zeros(1, numpy.int32), 0
        if isinstance(self.head, HierarchicalSoftmax):
            outputs, path, turn = self.head.nodes.weight, self.head.path.numpy(), self.head.turn.numpy()
        elif isinstance(self.head, NegativeSampling) and not self.head.contrastive:
            outputs, urn, negatives = self.head.words.weight, self.head.urn.numpy(), self.head.negatives
        else:
            raise ValueError(f"objective={self.objective!r}: pair by pair go negative and hierarchical")
        inputs = self.embedding.weight.numpy()
        descend(inputs, outputs.numpy(), bag, weight, target, urn, path, turn, negatives, inputs.dtype.type(rate),
                numpy.uint64(state))  # fmt: skip

    def bags(self, batch: Batch) -> tuple[Int[Tensor, "row piece"], Float[Tensor, "row piece"], Int[Tensor, "row target"]]:
        """The rows of the embedding's weight that make up what is known, their shares, and the words to tell, -1 for none."""
        tokens, context = batch["tokens"], batch["context"]
        known = tokens[:, None] if self.method == "skip-gram" else context
        real, rows = known >= 0, known.clamp(min=0)
        share = real / real.sum(1, keepdim=True).clamp(min=1).to(self.embedding.weight)
        if isinstance(self.embedding, SubwordEmbedding):
            rows, parts = self.embedding.parts(rows)
            rows, share = rows.flatten(1), (share[..., None] * parts).flatten(1)
        target = context if self.method == "skip-gram" else tokens[:, None].where(real.any(1, keepdim=True), -1)
        return rows.int(), share, target.int()

"""Which of many texts answers a question: by how probable a language model of the text finds it, or by BM25.

c(w, d): how often the word w is in the text d, |d| words long;   p(w): the share of w in all texts together
dirichlet        log p(q|d) = sum_{w in q} log (c(w, d) + mu p(w)) / (|d| + mu): as if mu words of all texts were in each
jelinek-mercer   log p(q|d) = sum_{w in q} log ((1 - share) c(w, d) / |d| + share p(w))
bm25             sum_{w in q} log(1 + (N - n_w + 1/2) / (n_w + 1/2)) c (k + 1) / (c + k (1 - b + b |d| / mean |d|)), N texts,
                 of which n_w hold w
Smoothing makes rare words count more, as the logarithm in BM25 does: what ranks is the words that question and text share.
Ponte, Croft 1998; Zhai, Lafferty 2001, "A study of smoothing methods for language models applied to ad hoc information
retrieval"; Robertson et al. 1994, "Okapi at TREC-3".   D2L 1.1, LEE: Language Model
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

SCORES = ("dirichlet", "jelinek-mercer", "bm25")


class Ranking:
    """Texts that are ranked by questions.   texts: tokens of each, numbers below vocab_size

    ValueError if a text is empty, or there is none.
    """

    def __init__(self, texts: Sequence[Tensor], vocab_size: int):
        if not texts or min(map(len, texts)) < 1:
            raise ValueError(f"texts: expected at least one, none of them empty; there are {len(texts)}")
        self.counts = torch.stack([text.bincount(minlength=vocab_size) for text in texts]).double()  # [text word]
        self.length = self.counts.sum(1, keepdim=True)
        self.share = self.counts.sum(0) / self.length.sum()

    def scores(
        self, question: Int[Tensor, " time"], by: str = "dirichlet", *, mu: float = 500.0, share: float = 0.5, k: float = 1.2,
        b: float = 0.75,
    ) -> Float[Tensor, " text"]:  # fmt: skip
        """How well each text answers; words that no text has do not count.   ValueError for another score than those above"""
        if by not in SCORES:
            raise ValueError(f"by={by!r}: expected one of {', '.join(SCORES)}")
        words = question[self.share[question] > 0]
        times, common = self.counts[:, words], self.share[words]
        if by == "dirichlet":
            return ((times + mu * common) / (self.length + mu)).log().sum(1)
        if by == "jelinek-mercer":
            return ((1 - share) * times / self.length + share * common).log().sum(1)
        holding = (self.counts[:, words] > 0).double().sum(0)
        rare = (1 + (len(self.counts) - holding + 0.5) / (holding + 0.5)).log()
        return (rare * times * (k + 1) / (times + k * (1 - b + b * self.length / self.length.mean()))).sum(1)

    def key_terms(self, text: int, count: int) -> list[int]:
        """The words that a text says more often than all texts do: of the largest p(w|d) log p(w|d) / p(w), the largest first.

        What each adds to the Kullback-Leibler divergence of the text from all.   Tomokiyo, Hurst 2003.   LEE: RNN
        """
        own = self.counts[text] / self.length[text]
        return torch.where(own > 0, own * (own / self.share).log(), 0.0).topk(count).indices.tolist()

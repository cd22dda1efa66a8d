"""N-gram models: the next word by the few before it, counted. What was never seen must have a share all the same.

c(h w): how often the word w followed the words h;  V: words;  h': h without its first;  d: discount;  N(h): words that follow h
laplace      p(w|h) = (c(h w) + a) / (c(h) + a V)
backoff      p(w|h) = (c(h w) - d) / c(h) where it was seen, else b(h) p(w|h'), b(h) such that all sum to 1
kneser-ney   p(w|h) = max(c(h w) - d, 0) / c(h) + d N(h) / c(h) p(w|h'), where in p(w|h') a count is not how often a pair
             was seen but after how many different words: "francisco" is frequent, and follows one word alone
Both end at p(w) interpolated with 1 / V.   Kneser, Ney 1995; Chen, Goodman 1999.   D2L 8.3, LEE: Language Model
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

SMOOTHINGS = ("laplace", "backoff", "kneser-ney")


class Counts(NamedTuple):
    """n-grams as sorted numbers, and how often each is; their histories, how often each, and with how many different words."""

    gram: Tensor
    times: Tensor
    history: Tensor
    total: Tensor
    different: Tensor


def _found(table: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """Where in a sorted table what is asked stands, and whether it does."""
    place = torch.searchsorted(table, asked).clamp(max=len(table) - 1)
    return place, table[place] == asked


class NGram:
    """order: words of an n-gram, the predicted one among them.   smoothing: see above.   ValueError if it is another.

    tokens are numbers below vocab_size; vocab_size^order must be below 2^63.
    """

    def __init__(self, order: int, vocab_size: int, smoothing: str = "kneser-ney", discount: float = 0.75, added: float = 1.0):
        if smoothing not in SMOOTHINGS or order < 1 or vocab_size**order >= 2**63:
            raise ValueError(f"order={order}, vocab_size={vocab_size}, smoothing={smoothing!r}: expected at least 1, a power "
                             f"below 2^63, and one of {', '.join(SMOOTHINGS)}")  # fmt: skip
        self.order, self.vocab_size, self.smoothing = order, vocab_size, smoothing
        self.discount, self.added = discount, added
        self.counts: list[Counts] = []
        self.left: list[Tensor] = []  # backoff: 1 - sum of the shorter model's p of the words seen after each history

    def fit(self, tokens: Int[Tensor, " time"]) -> "NGram":
        """Counts the n-grams of a text."""
        self.counts, self.left = [], []
        for n in range(1, self.order + 1):
            grams = self.numbers(tokens.unfold(0, n, 1))
            if self.smoothing == "kneser-ney" and n < self.order:
                grams = self.numbers(tokens.unfold(0, n + 1, 1)).unique() % self.vocab_size**n  # a longer one less its first
            gram, times = grams.unique(return_counts=True)
            history, place = (gram // self.vocab_size).unique(return_inverse=True)
            zeros = torch.zeros_like(history)
            total, different = zeros.index_add(0, place, times), zeros.index_add(0, place, torch.ones_like(times))
            if self.smoothing == "backoff" and n > 1:
                words = torch.stack([gram // self.vocab_size**k % self.vocab_size for k in range(n - 2, -1, -1)], 1)
                seen = torch.zeros(len(history), dtype=torch.float64).index_add(0, place, self.probability(words))
                self.left.append(1 - seen)
            self.counts.append(Counts(gram, times, history, total, different))
        return self

    def numbers(self, windows: Int[Tensor, "gram word"]) -> Int[Tensor, " gram"]:
        """n-grams as numbers whose digits are the words."""
        number = torch.zeros(len(windows), dtype=torch.long)
        for word in windows.unbind(1):
            number = number * self.vocab_size + word
        return number

    def probability(self, windows: Int[Tensor, "gram word"]) -> Float[Tensor, " gram"]:
        """p of the last word of each after the others, of which the last order - 1 count; float64."""
        windows = windows[:, -self.order :]
        n = windows.shape[1]
        if n == 0:
            return torch.full((len(windows),), 1 / self.vocab_size, dtype=torch.float64)
        table = self.counts[n - 1]
        gram = self.numbers(windows)
        (where, seen), (context, known) = _found(table.gram, gram), _found(table.history, gram // self.vocab_size)
        times = torch.where(seen, table.times[where], 0).double()
        total = torch.where(known, table.total[context], 0).double()
        if self.smoothing == "laplace":
            return (times + self.added) / (total + self.added * self.vocab_size)
        shorter = self.probability(windows[:, 1:])
        rest = self.discount * table.different[context] / total.clamp(min=1)
        own = (times - self.discount).clamp(min=0) / total.clamp(min=1)
        if self.smoothing == "backoff" and n > 1:
            smoothed = torch.where(seen, own, rest * shorter / self.left[n - 2][context])
        else:
            smoothed = own + rest * shorter
        return torch.where(known, smoothed, shorter)

    def surprise(self, tokens: Int[Tensor, " time"]) -> Float[Tensor, " time"]:
        """- log p of every word of a text, in nats; the first ones have fewer before them."""
        first = [self.probability(tokens[None, :n]) for n in range(1, min(self.order, len(tokens) + 1))]
        return -torch.cat([*first, self.probability(tokens.unfold(0, self.order, 1))]).log()

    def generate(self, tokens: Int[Tensor, " time"], length: int, seed: int = 0) -> Int[Tensor, " longer"]:
        """The text with `length` words added, each drawn after the ones before it."""
        draw = torch.Generator().manual_seed(seed)
        for _ in range(length):
            context = tokens[max(0, len(tokens) - self.order + 1) :].expand(self.vocab_size, -1)
            following = self.probability(torch.cat([context, torch.arange(self.vocab_size)[:, None]], 1))
            tokens = torch.cat([tokens, torch.multinomial(following, 1, generator=draw)])
        return tokens

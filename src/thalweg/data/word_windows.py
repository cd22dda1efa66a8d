"""Words and those around them: what word vectors are learned from.   D2L 14.3, 14.5"""

from collections.abc import Sequence

import numpy
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from torch import Tensor

from thalweg.data.streams import Stream, generator
from thalweg.vocabulary import Batch


def kept_share(counts: Sequence[int], threshold: float) -> Float[Tensor, " word"]:
    """Sub-sampling: the share in which each word is kept, so that "the" does not take the time of all others.   D2L 14.3

    min(1, sqrt(threshold / f_w)), f_w its share of the text; all where threshold is 0.
    Mikolov, Sutskever, Chen, Corrado, Dean 2013, arXiv:1310.4546.
    """
    if threshold < 0:
        raise ValueError(f"threshold={threshold}: expected at least 0")
    count = torch.tensor(counts, dtype=torch.float64)
    return (threshold * count.sum() / count).sqrt().clamp(max=1) if threshold else torch.ones(len(counts), dtype=torch.float64)


class WordWindows(Stream):
    """The words of a text, in their order, each with those around it; the frequent ones are thinned out anew in each pass.

    A word sees as far as a number drawn from 1 to `window`, over what was thinned out: near words count more often.
    tokens: [time], counts: how often each word occurs; batch_size: words of the text, before thinning.
    -> tokens [batch], context [batch 2 window], int32, -1 where there is none.   ValueError for a window below 1
    """

    def __init__(self, tokens: Int[Tensor, " time"], counts: Sequence[int], window: int = 5, batch_size: int = 10_000,
                 threshold: float = 1e-3):  # fmt: skip
        super().__init__(len(tokens), batch_size, shuffle=False)
        if window < 1:
            raise ValueError(f"window={window}: expected at least 1")
        self.tokens, self.window, self.share = tokens.int(), window, kept_share(counts, threshold)
        self.offset = torch.tensor([*range(-window, 0), *range(1, window + 1)], dtype=torch.int32)
        self._epoch, self._thinned = -1, (torch.empty(0),) * 3

    def thinned(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """The words that a pass keeps, how far each sees, and how many were kept before each batch."""
        if self._epoch != epoch:
            draw = generator(self.seed, epoch, 4)
            kept = torch.rand(self.size, generator=draw) < self.share.float()[self.tokens]
            words = self.tokens[kept]
            reach = torch.randint(1, self.window + 1, words.shape, generator=draw, dtype=torch.int32)
            bounds = torch.tensor([0, *(int(part.sum()) for part in kept.tensor_split(len(self)))]).cumsum(0)
            self._epoch, self._thinned = epoch, (words, reach, bounds)
        return self._thinned

    def batch(self, number: int) -> Batch:
        epoch, position = divmod(number, len(self))
        words, reach, bounds = self.thinned(epoch)
        first, last = bounds[position : position + 2].tolist()
        place = torch.arange(first, last, dtype=torch.int32)[:, None] + self.offset
        seen = (self.offset.abs() <= reach[first:last, None]) & (place >= 0) & (place < len(words))
        context = words[place.clamp(0, max(len(words) - 1, 0))].where(seen, -1)
        return {"tokens": words[first:last], "context": context}


def cooccurrence(
    tokens: Int[Tensor, " time"], vocab_size: int, window: int = 10
) -> tuple[Int[Tensor, "cell 2"], Float[Tensor, " cell"]]:
    """How often words stand near each other: each pair at most `window` apart counts 1 / distance, for both of its orders.

    The cells that are not zero, row and column of each, and their values X.   D2L 14.5
    Pennington, Socher, Manning 2014, doi:10.3115/v1/D14-1162.
    """
    words, table = tokens.long().numpy(), None
    for distance in range(1, min(window, len(words) - 1) + 1):
        pairs = coo_array((numpy.full(len(words) - distance, 1.0 / distance), (words[:-distance], words[distance:])),
                          shape=(vocab_size, vocab_size)).tocsr()  # fmt: skip
        table = pairs if table is None else table + pairs
    if table is None:
        raise ValueError(f"tokens: a text of {len(words)}, window={window}: expected two words and a window of at least 1")
    both = (table + table.T).tocoo()
    return torch.from_numpy(numpy.stack(both.coords, 1)).long(), torch.from_numpy(both.data).float()

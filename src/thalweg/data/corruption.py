"""Sentences broken for a model to restore: what sequence-to-sequence models are pre-trained on.   LEE BERT

A corruption is a function of a text's tokens and a generator: (what is read, what is to be written), neither with its end.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from thalweg.data.pairs import BOS, EOS, PAD, Pairs
from thalweg.data.streams import generator, padded
from thalweg.vocabulary import Batch

Tokens = Tensor  # [time]
Corruption = Literal["mask", "delete", "infill", "permute", "rotate", "t5", "mass"]
SENTINELS = 30  # T5's marks in a text at most


class Marks(NamedTuple):
    """The tokens that stand for what is not there: one mask, and T5's numbered ones; and that of a full stop."""

    mask: int
    sentinels: tuple[int, ...]
    stop: int


def mask(tokens: Tokens, marks: Marks, random: Generator, share: float = 0.15) -> tuple[Tokens, Tokens]:
    """Some tokens are masks: BART's token masking.   Lewis et al. 2019, arXiv:1910.13461"""
    hidden = _drawn(len(tokens), share, random)
    return torch.where(hidden, marks.mask, tokens), tokens


def delete(tokens: Tokens, marks: Marks, random: Generator, share: float = 0.15) -> tuple[Tokens, Tokens]:
    """Some tokens are gone, and nothing says where: BART's token deletion."""
    return tokens[~_drawn(len(tokens), share, random)], tokens


def infill(tokens: Tokens, marks: Marks, random: Generator, share: float = 0.3, mean: float = 3.0) -> tuple[Tokens, Tokens]:
    """Each of some spans is one mask, whatever its length, which may be none: BART's text infilling.

    Lengths are of a Poisson distribution.   share: of the tokens that are hidden in all.
    """
    spans = _spans(len(tokens), share, lambda: int(torch.poisson(torch.tensor(mean), random)), random)
    return _spliced(tokens, spans, [marks.mask] * len(spans)), tokens


def permute(tokens: Tokens, marks: Marks, random: Generator) -> tuple[Tokens, Tokens]:
    """The sentences of a text in another order: BART's sentence permutation."""
    ends = (tokens == marks.stop).nonzero().flatten() + 1
    parts = [part for part in tokens.tensor_split(ends.tolist()) if len(part)]
    order = torch.randperm(len(parts), generator=random).tolist()
    return torch.cat([parts[place] for place in order]) if parts else tokens, tokens


def rotate(tokens: Tokens, marks: Marks, random: Generator) -> tuple[Tokens, Tokens]:
    """The text begins anywhere, and its beginning is at its end: BART's document rotation."""
    return tokens.roll(-int(torch.randint(max(1, len(tokens)), (), generator=random))), tokens


def t5(tokens: Tokens, marks: Marks, random: Generator, share: float = 0.15, mean: int = 3) -> tuple[Tokens, Tokens]:
    """Spans are numbered marks, and to be written are the marks, each with its span, and a last mark.

    "a b c d e" may become "a <0> d <1>" and "<0> b c <1> e <2>".   Raffel et al. 2019, arXiv:1910.10683
    """
    spans = _spans(len(tokens), share, lambda: 1 + int(torch.randint(2 * mean - 1, (), generator=random)), random)
    spans = [span for span in spans if span[1] > span[0]][: len(marks.sentinels) - 1]
    read = _spliced(tokens, spans, list(marks.sentinels[: len(spans)]))
    written = [part for number, (start, end) in enumerate(spans)
               for part in (tokens.new_tensor([marks.sentinels[number]]), tokens[start:end])]  # fmt: skip
    return read, torch.cat([*written, tokens.new_tensor([marks.sentinels[len(spans)]])])


def mass(tokens: Tokens, marks: Marks, random: Generator, share: float = 0.5) -> tuple[Tokens, Tokens]:
    """One long fragment is masks, as many as it has tokens, and it alone is to be written.

    Song et al. 2019, arXiv:1905.02450.
    """
    length = max(1, round(share * len(tokens))) if len(tokens) else 0
    start = int(torch.randint(len(tokens) - length + 1, (), generator=random))
    read = tokens.clone()
    read[start : start + length] = marks.mask
    return read, tokens[start : start + length]


CORRUPTIONS: dict[str, Callable[[Tokens, Marks, Generator], tuple[Tokens, Tokens]]] = {
    "mask": mask, "delete": delete, "infill": infill, "permute": permute, "rotate": rotate, "t5": t5, "mass": mass,
}  # fmt: skip


def _drawn(count: int, share: float, random: Generator) -> Tensor:
    """So many places, to the share of the whole."""
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[torch.randperm(count, generator=random)[: round(share * count)]] = True
    return chosen


def _spans(count: int, share: float, length: Callable[[], int], random: Generator) -> list[tuple[int, int]]:
    """Spans that do not meet, in their order, until the share of the places is in one; those of no length lie between two."""
    taken, wanted, spans = torch.zeros(count + 2, dtype=torch.bool), round(share * count), list[tuple[int, int]]()
    for _ in range(10 * count):
        if wanted <= 0:
            break
        size = min(length(), wanted)
        start = int(torch.randint(count - size + 1, (), generator=random))
        if not taken[start : start + size + 2].any():  # nor is what is beside it
            taken[start + 1 : start + size + 1] = True
            spans.append((start, start + size))
            wanted -= size
            if not size:
                taken[start : start + 2] = True
    return sorted(spans)


def _spliced(tokens: Tokens, spans: Sequence[tuple[int, int]], marks: Sequence[int]) -> Tokens:
    """The tokens with one mark in place of each span."""
    parts, at = list[Tensor](), 0
    for (start, end), mark in zip(spans, marks, strict=True):
        parts += [tokens[at:start], tokens.new_tensor([mark])]
        at = end
    return torch.cat([*parts, tokens[at:]])


class Corrupted(Pairs):
    """Texts broken anew in each pass: batches of pairs, what is read and what is to be written, see `Pairs`.

    texts: tokens of each, without an end.   corruptions: names of CORRUPTIONS, of which each text meets one.
    Every draw is a function of the seed and of the batch's number.   ValueError for another corruption.
    """

    def __init__(self, texts: Sequence[Tensor], marks: Marks, corruptions: Sequence[str], batch_size: int, *,
                 shuffle: bool = False):  # fmt: skip
        if unknown := [name for name in corruptions if name not in CORRUPTIONS] or not corruptions:
            raise ValueError(f"corruptions={list(corruptions)}: {unknown}, expected some of {', '.join(CORRUPTIONS)}")
        ended = [torch.cat([text, torch.tensor([EOS])]) for text in texts]
        super().__init__(ended, ended, batch_size, shuffle=shuffle)
        self.texts, self.marks, self.corruptions = texts, marks, tuple(corruptions)

    def batch(self, number: int) -> Batch:
        random, read, written = generator(self.seed, number, 1), list[Tensor](), list[Tensor]()
        begin, end = torch.tensor([BOS]), torch.tensor([EOS])
        for index in self.indices(number).tolist():
            name = self.corruptions[int(torch.randint(len(self.corruptions), (), generator=random))]
            broken, whole = CORRUPTIONS[name](self.texts[index], self.marks, random)
            read.append(torch.cat([broken, end]))
            written.append(torch.cat([begin, whole, end]))
        return padded({"source_tokens": read, "target_tokens": written}, PAD)

"""Several tasks in one form: a text that begins with what is to be done becomes a text.   LEE BERT"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.data.classified import sst2
from thalweg.data.inference import snli
from thalweg.data.pairs import Pairs, tatoeba_fra_eng
from thalweg.data.subwords import Subwords


class Assignment(NamedTuple):
    """What is read, which begins with the name of its task, what is to be written, and the number of the task."""

    source: str
    target: str
    task: int


class Kind(NamedTuple):
    """A task: what its texts begin with, and what may be written; any text, if that is empty."""

    name: str
    answers: tuple[str, ...] = ()


KINDS = (
    Kind("translate English to French"),
    Kind("sentiment", ("negative", "positive")),
    Kind("entail", ("entailment", "neutral", "contradiction")),
)


def assignments(limit: int | None = None, measured: int | None = None) -> tuple[list[Assignment], ...]:
    """Short sentences to translate, film reviews to judge and pairs of sentences to compare: train, validation, test.

    limit: of each task to learn from, measured: of each for validation, and for tests, at most; all if None. They are taken
    at even distances, since some corpora lie in an order, and a limit keeps the largest from having all the say.
    Raffel et al. 2019, arXiv:1910.10683, have larger tasks of these and further kinds.
    """
    pairs, reviews, inferences = tatoeba_fra_eng(longest=8), sst2(), snli()
    parts = []
    for part in ("train", "valid", "test"):
        texts = [
            getattr(pairs, part),
            [(one.text, one.label) for one in getattr(reviews, part)],
            [(f"premise: {one.text} hypothesis: {one.second}", one.label) for one in getattr(inferences, part)],
        ]
        most = limit if part == "train" else measured
        parts.append([Assignment(f"{kind.name}: {source}", target, number) for number, kind in enumerate(KINDS)
                      for source, target in _spread(texts[number], most)])  # fmt: skip
    return tuple(parts)


def _spread(texts: list[tuple[str, str]], most: int | None) -> list[tuple[str, str]]:
    """So many of them at most, at even distances."""
    count = len(texts) if most is None else min(most, len(texts))
    return [texts[place * len(texts) // count] for place in range(count)]


class Assignments(Pairs):
    """Batches of pairs, see `Pairs`, and the number of each one's task [batch].

    longest: sub-words of a source at most; what is beyond is not read.
    """

    def __init__(
        self,
        assignments: Sequence[Assignment],
        subwords: Subwords,
        batch_size: int,
        *,
        longest: int = 96,
        shuffle: bool = False,
    ):
        source: list[Tensor] = [subwords.encode(one.source) for one in assignments]
        read = [text if len(text) <= longest else torch.cat([text[: longest - 1], text[-1:]]) for text in source]
        super().__init__(read, [subwords.encode(one.target) for one in assignments], batch_size, shuffle=shuffle)
        self.fixed = {"task": torch.tensor([one.task for one in assignments])}

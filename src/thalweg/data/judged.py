"""Texts, or pairs of texts, that people have judged: by a class, or by a number.   D2L 15.1, 15.4"""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.data.sources import fetch
from thalweg.data.streams import Padded, generator
from thalweg.data.wordpieces import WordPieces


class Judged(NamedTuple):
    """A text, the text that is judged beside it if there is one, and the number of its class or its score."""

    first: str
    second: str | None
    judgement: float


@dataclass(frozen=True)
class JudgedTexts:
    """Texts in three parts, and the names of the classes; none where they have scores."""

    train: list[Judged]
    valid: list[Judged]
    test: list[Judged]
    classes: tuple[str, ...]


def parted(text: str) -> tuple[str, str | None]:
    """The two texts of one: what is before a tab or before " || ", and what is behind it."""
    first, mark, second = text.partition("\t" if "\t" in text else " || ")
    return first, second if mark else None


def judged_texts(texts: Sequence[Judged], pieces: WordPieces, longest: int, batch_size: int, *, score: bool = False,
                 shuffle: bool = False) -> Padded:  # fmt: skip
    """Batches of tokens, mask, segment [batch time] and label [batch], or target [batch 1] where they have scores."""
    second = None if texts[0].second is None else [text.second or "" for text in texts]
    encodings = pieces.encode([text.first for text in texts], second, longest)
    ragged: dict[str, list[Tensor]] = {
        "tokens": [torch.tensor(one.ids) for one in encodings],
        "segment": [torch.tensor(one.type_ids) for one in encodings],
    }
    judgement = torch.tensor([text.judgement for text in texts])
    fixed = {"target": judgement[:, None]} if score else {"label": judgement.long()}
    return Padded(ragged, fixed, batch_size, padding=pieces.pad, shuffle=shuffle)


def apart(texts: Sequence[Judged], share: float) -> tuple[list[Judged], list[Judged]]:
    """A share of the texts for validation, and the rest; all that have the same first text are in the same part."""
    firsts = sorted({text.first for text in texts})
    order = torch.randperm(len(firsts), generator=generator(0)).tolist()
    chosen = {firsts[place] for place in order[: round(share * len(firsts))]}
    return [text for text in texts if text.first in chosen], [text for text in texts if text.first not in chosen]


def snli_agreement() -> JudgedTexts:
    """2,566 pairs of SNLI with a score: how far the first sentence entails the second, as the mean of what five people said.

    1 entailment, 0.5 neither, 0 contradiction. A tenth of the premises is for validation, a quarter for tests.
    Bowman, Angeli, Potts, Manning 2015, arXiv:1508.05326.
    """
    value = {"entailment": 1.0, "neutral": 0.5, "contradiction": 0.0}
    url = "https://nlp.stanford.edu/projects/snli/snli_1.0.zip"
    sha256 = "e78e896c4630db816dd116b92357806826247e7900da13302ea5757b47724194"
    texts = []
    content = gzip.decompress(fetch("snli/snli_1.0/snli_1.0_dev_subset.jsonl.gz", url, sha256)).decode()
    for row in map(json.loads, content.rstrip("\n").split("\n")):
        votes = [value[label] for label in row["annotator_labels"] if label in value]
        texts.append(Judged(row["sentence1"], row["sentence2"], sum(votes) / len(votes)))
    test, rest = apart(texts, 0.25)
    valid, train = apart(rest, 0.1)
    return JudgedTexts(train, valid, test, ())

"""Texts, or pairs of texts, that people have judged: by a class, or by a number.   D2L 15.1, 15.4"""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.data.sources import fetch
from thalweg.data.streams import generator
from thalweg.data.wordpieces import Texts, WordPieces


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
                 shuffle: bool = False) -> Texts:  # fmt: skip
    """Batches of tokens, mask, segment [batch time] and label [batch], or target [batch 1] where they have scores."""
    second = None if texts[0].second is None else [text.second or "" for text in texts]
    encodings = pieces.encode([text.first for text in texts], second, longest)
    ragged: dict[str, list[Tensor]] = {
        "tokens": [torch.tensor(one.ids) for one in encodings],
        "segment": [torch.tensor(one.type_ids) for one in encodings],
    }
    judgement = torch.tensor([text.judgement for text in texts])
    fixed = {"target": judgement[:, None]} if score else {"label": judgement.long()}
    return Texts(ragged, fixed, batch_size, padding=pieces.pad, shuffle=shuffle)


def apart(texts: Sequence[Judged], share: float) -> tuple[list[Judged], list[Judged]]:
    """A share of the texts for validation, and the rest; all that have the same first text are in the same part."""
    firsts = sorted({text.first for text in texts})
    order = torch.randperm(len(firsts), generator=generator(0)).tolist()
    chosen = {firsts[place] for place in order[: round(share * len(firsts))]}
    return [text for text in texts if text.first in chosen], [text for text in texts if text.first not in chosen]


def _lines(name: str, url: str, sha256: str) -> list[str]:
    return gzip.decompress(fetch(name, url, sha256)).decode().rstrip("\n").split("\n")


SNLI_CLASSES = ("entailment", "neutral", "contradiction")
SNLI = {
    "dev": "ee7a697d4d32ac968de46a63bffec6470473e96fe8a8c90bfdfec7ee4f333b9f",
    "test": "e07a780b04cb1af9de009a9dab7113c117dce437504459084a40979b0aa2af00",
}


def snli() -> JudgedTexts:
    """Pairs of sentences: does the first entail the second, contradict it, or neither?   Bowman et al. 2015, arXiv:1508.05326

    In lower case. Of the official parts, dev is learned from, less a tenth of its premises for validation: 9,842 pairs; the
    test is whole, 9,824.
    """
    parts = []
    for part, sha256 in SNLI.items():
        url = f"https://raw.githubusercontent.com/chenxingphh/rmib/master/data/snli/{part}.txt"
        rows = (line.split("\t") for line in _lines(f"snli/tsv/{part}.txt.gz", url, sha256))
        parts.append([Judged(first, second, int(label)) for first, second, label in rows])
    valid, train = apart(parts[0], 0.1)
    return JudgedTexts(train, valid, parts[1], SNLI_CLASSES)


def snli_agreement() -> JudgedTexts:
    """2,566 pairs of SNLI with a score: how far the first sentence entails the second, as the mean of what five people said.

    1 entailment, 0.5 neither, 0 contradiction. A tenth of the premises is for validation, a quarter for tests.
    """
    value = {"entailment": 1.0, "neutral": 0.5, "contradiction": 0.0}
    url = "https://nlp.stanford.edu/projects/snli/snli_1.0.zip"
    sha256 = "e78e896c4630db816dd116b92357806826247e7900da13302ea5757b47724194"
    texts = []
    for line in _lines("snli/snli_1.0/snli_1.0_dev_subset.jsonl.gz", url, sha256):
        row = json.loads(line)
        votes = [value[label] for label in row["annotator_labels"] if label in value]
        texts.append(Judged(row["sentence1"], row["sentence2"], sum(votes) / len(votes)))
    test, rest = apart(texts, 0.25)
    valid, train = apart(rest, 0.1)
    return JudgedTexts(train, valid, test, ())

"""Texts, or pairs of texts, that people have judged: by a class, or by a number.   D2L 15.1, 15.4"""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from thalweg.data.classified import ClassifiedTexts
from thalweg.data.folders import Faults
from thalweg.data.labelled import english_web_treebank
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
    faults: Faults = field(default_factory=Faults)


def by_number(texts: ClassifiedTexts) -> JudgedTexts:
    """The texts, the judgement of each the number of its class."""
    train, valid, test = ([Judged(one.text, one.second, texts.classes.index(one.label)) for one in part]
                          for part in (texts.train, texts.valid, texts.test))  # fmt: skip
    return JudgedTexts(train, valid, test, texts.classes, texts.faults)


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


def disordered(words: Sequence[str], random: Generator) -> list[str]:
    """The words with two of them in each other's place, the last excepted, which may be a full stop; the two are different.

    ValueError if all words but the last are the same.
    """
    if len({*words[:-1]}) < 2:
        raise ValueError(f"words={list(words)}: expected two different ones before the last")
    while True:
        one, other = torch.randperm(len(words) - 1, generator=random)[:2].tolist()
        if words[one] != words[other]:
            changed = [*words]
            changed[one], changed[other] = words[other], words[one]
            return changed


def word_order() -> JudgedTexts:
    """Sentences of the English Web Treebank in lower case, in every second of which two words have changed places.

    Which ones, and which words, is fixed; of sentences of the same words there is one, in one part. They have 5 to 30 words.
    Warstadt, Singh, Bowman 2018, arXiv:1805.12471, have people's judgements of acceptability.
    """
    corpus, random, parts, seen = english_web_treebank(), generator(0), [], set[tuple[str, ...]]()
    for part in (corpus.train, corpus.valid, corpus.test):
        plain = [" ".join(one.words).lower().split() for one in part]
        fresh = {bag: words for words in plain if (bag := tuple(sorted(words))) not in seen}
        seen |= fresh.keys()
        kept = [words for words in fresh.values() if 5 <= len(words) <= 30 and len({*words[:-1]}) > 1]
        order = torch.randperm(len(kept), generator=random).tolist()
        parts.append([Judged(" ".join(words if place % 2 else disordered(words, random)), None, place % 2)
                      for words, place in zip(kept, order, strict=True)])  # fmt: skip
    return JudgedTexts(parts[0], parts[1], parts[2], ("disordered", "acceptable"))


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

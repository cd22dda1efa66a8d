"""Pairs of sentences: does the second follow from the first, contradict it, or neither?   D2L 15.4"""

import gzip
import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from zipfile import ZipFile

import torch

from thalweg.data.sources import MissingData, find
from thalweg.data.streams import generator

RELATIONS = ("entailment", "neutral", "contradiction")


class Premise(NamedTuple):
    """A premise, a hypothesis, and how the second stands to the first."""

    premise: str
    hypothesis: str
    label: str


class Inferences(NamedTuple):
    """Pairs in three parts, no premise in two of them, and how many were left out, by reason."""

    train: list[Premise]
    valid: list[Premise]
    test: list[Premise]
    left_out: dict[str, int]


def snli() -> Inferences:
    """Captions of photographs, and what people wrote that must, may or cannot be true then.

    Bowman, Angeli, Potts, Manning 2015, arXiv:1508.05326

    The official snli/snli_1.0.zip: 549,367 pairs to train on, and 9,842 and 9,824. Where it is not, the last two from
    snli/tsv/dev.txt.gz and test.txt.gz, in lower case: nine tenths of the premises of the first are to train on.
    Pairs on which the annotators did not agree, marked -, are left out.
    """
    if path := find("snli/snli_1.0.zip"):
        with ZipFile(path) as archive:
            parts = [archive.read(f"snli_1.0/snli_1.0_{part}.jsonl").decode().splitlines() for part in ("train", "dev", "test")]
        train, valid, test = ([_record(line) for line in part] for part in parts)
        count = sum(one.label == "-" for part in (train, valid, test) for one in part)
        train, valid, test = ([one for one in part if one.label != "-"] for part in (train, valid, test))
        return Inferences(train, valid, test, {"without agreement": count} if count else {})
    names = [f"snli/tsv/{part}.txt.gz" for part in ("dev", "test")]
    paths = [find(name) for name in names]
    if None in paths:
        raise MissingData(f"snli/snli_1.0.zip is neither in THALWEG_DATA nor in the cache, nor are {' and '.join(names)}: "
                          "https://nlp.stanford.edu/projects/snli/snli_1.0.zip")  # fmt: skip
    dev, test = (list(_rows(gzip.decompress(path.read_bytes()).decode().splitlines())) for path in paths if path)
    premises = sorted({one.premise for one in dev})
    drawn = torch.randperm(len(premises), generator=generator(0))[: len(premises) // 10]
    held = {premises[place] for place in drawn.tolist()}
    train, valid = ([one for one in dev if (one.premise in held) is apart] for apart in (False, True))
    return Inferences(train, valid, test, {})


def _record(line: str) -> Premise:
    record = json.loads(line)
    return Premise(record["sentence1"], record["sentence2"], record["gold_label"])


def _rows(lines: Iterable[str]) -> Iterator[Premise]:
    for line in lines:
        premise, hypothesis, label = line.split("\t")
        yield Premise(premise, hypothesis, RELATIONS[int(label)])

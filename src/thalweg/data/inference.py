"""Pairs of sentences: does the second follow from the first, contradict it, or neither?   D2L 15.4"""

import gzip
import json
from zipfile import ZipFile

import torch

from thalweg.data.classified import ClassifiedTexts, Text
from thalweg.data.folders import Faults
from thalweg.data.sources import MissingData, find
from thalweg.data.streams import generator

RELATIONS = ("entailment", "neutral", "contradiction")


def snli() -> ClassifiedTexts:
    """Captions of photographs, and what people wrote that must, may or cannot be true then: text and second.

    Bowman, Angeli, Potts, Manning 2015, arXiv:1508.05326

    The official snli/snli_1.0.zip: 549,367 pairs to train on, and 9,842 and 9,824. Where it is not, the last two from
    snli/tsv/dev.txt.gz and test.txt.gz, in lower case: nine tenths of the premises of the first are to train on.
    Pairs on which the annotators did not agree, marked -, are left out.
    """
    if path := find("snli/snli_1.0.zip"):
        faults, parts = Faults(), []
        with ZipFile(path) as archive:
            for part in ("train", "dev", "test"):
                lines = archive.read(f"snli_1.0/snli_1.0_{part}.jsonl").decode().splitlines()
                parts.append([_record(line, f"{part} {number}") for number, line in enumerate(lines, 1)])
        for one in (one for part in parts for one in part if one.label == "-"):
            faults["pairs without agreement, left out"].append(one.place)
        train, valid, test = ([one for one in part if one.label != "-"] for part in parts)
        return ClassifiedTexts(train, valid, test, RELATIONS, faults)
    names = [f"snli/tsv/{part}.txt.gz" for part in ("dev", "test")]
    paths = [find(name) for name in names]
    if None in paths:
        raise MissingData(f"snli/snli_1.0.zip is neither in THALWEG_DATA nor in the cache, nor are {' and '.join(names)}: "
                          "https://nlp.stanford.edu/projects/snli/snli_1.0.zip")  # fmt: skip
    dev, test = ([_row(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()] for path in paths if path)
    premises = sorted({one.text for one in dev})
    drawn = torch.randperm(len(premises), generator=generator(0))[: len(premises) // 10]
    held = {premises[place] for place in drawn.tolist()}
    train, valid = ([one for one in dev if (one.text in held) is apart] for apart in (False, True))
    return ClassifiedTexts(train, valid, test, RELATIONS)


def _record(line: str, place: str) -> Text:
    record = json.loads(line)
    return Text(record["sentence1"], record["gold_label"], place, record["sentence2"])


def _row(line: str) -> Text:
    premise, hypothesis, label = line.split("\t")
    return Text(premise, RELATIONS[int(label)], second=hypothesis)

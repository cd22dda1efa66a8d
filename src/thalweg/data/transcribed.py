"""A folder of images with what is written on each becomes streams of batches.

    FOLDER/AB12CDE.png  FOLDER/XY77ZZZ_2.jpg ...     named by what is on them; what follows an underscore does not count
    FOLDER/labels.csv  FOLDER/1.png ...              or a CSV file of two columns, with a header: file, text

Names of folders may say the part (train, valid, test); what a person has not split is split by us.
"""

import csv
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch

from thalweg.data.folders import MEMORY, Faults, ahead, divided, image_files, part_of, streams
from thalweg.data.images import UnreadableImage, read_image, upright_extent
from thalweg.data.plates import symbols
from thalweg.data.streams import Augment, Splits
from thalweg.vocabulary import Batch


class Transcribed(NamedTuple):
    """An image file, its part, what is on it, and how many times as wide as high it is."""

    path: Path
    part: str
    text: str
    aspect: float


class TranscribedImages:
    """What lies in a folder of images with their texts.

    alphabet: the symbols of the training texts, sorted.   longest: symbols of a text, with a blank between equal ones.
    aspect: the typical width by height.   faults: what was wrong, and where.
    ValueError if there is no such folder, or fewer than three images with a text.
    """

    def __init__(self, folder: Path):
        self.folder, self.faults = Path(folder), Faults()
        if not self.folder.is_dir():
            raise ValueError(f"data={folder}: {'a file, expected a folder' if self.folder.exists() else 'no such folder'}")
        lists = sorted(path for path in self.folder.glob("*.csv"))
        given = list(self._listed(lists[0]) if lists else self._named())
        found = []
        for (path, text), aspect in zip(given, ahead(_aspect, [path for path, _ in given], 100), strict=True):
            if isinstance(aspect, str):
                self.faults["images that cannot be read, left out"].append(f"{self._name(path)} ({aspect})")
            else:
                found.append(Transcribed(path, part_of(path.parent.relative_to(self.folder)), text, aspect))
        if len(found) < 3:
            raise ValueError(f"data={folder}: {len(found)} images with a text, expected at least three, named by what is on "
                             f"them or listed in a CSV file of file and text; {self.report()}")  # fmt: skip
        examples = divided(found, self.folder)
        self.alphabet = "".join(sorted({symbol for each in examples if each.part == "train" for symbol in each.text}))
        self.examples = []
        for each in examples:
            if strange := sorted(set(each.text) - set(self.alphabet)):
                self.faults[f"texts with {' '.join(strange)}, which no training text has, left out"].append(
                    self._name(each.path)
                )
            else:
                self.examples.append(each)
        self.longest = max(len(each.text) + _repeats(each.text) for each in self.examples)
        self.aspect = statistics.median(each.aspect for each in self.examples)

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.folder))

    def _named(self) -> Iterator[tuple[Path, str]]:
        for paths in image_files(self.folder).values():
            for path in paths:
                if text := path.stem.partition("_")[0].strip():
                    yield path, text
                else:
                    self.faults["images whose name says no text, left out"].append(self._name(path))

    def _listed(self, table: Path) -> Iterator[tuple[Path, str]]:
        with open(table, newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, skipinitialspace=True)
            next(lines, None)
            seen = Counter[Path]()
            for row in lines:
                where = f"{table.name}, line {lines.line_num}"
                path = (self.folder / row[0].strip()).resolve() if row else self.folder
                if len(row) != 2 or not row[1].strip():
                    self.faults["lines without a file and a text, left out"].append(where)
                elif not path.is_file() or self.folder.resolve() not in path.parents:
                    self.faults["lines whose file is not in the folder, left out"].append(f"{where} ({row[0]})")
                elif seen[path]:
                    self.faults["lines whose file another line has, left out"].append(f"{where} ({row[0]})")
                else:
                    yield self.folder / path.relative_to(self.folder.resolve()), row[1].strip()
                seen[path] += 1

    def report(self) -> str:
        """One line on what was wrong; empty if nothing was."""
        return "; ".join(self.faults.lines())

    def streams(self, size: Sequence[int], batch_size: int, *, augment: Sequence[Augment] = (), memory: int = MEMORY) -> Splits:
        """Streams of training, validation and test images at size [height width]: image, and tokens as `Reading` takes them.

        As of `thalweg.data.folders.streams`; the test stream is None where a person split the data without one.
        """
        longest = max(len(each.text) for each in self.examples)

        def read(example: Transcribed, content: bytes) -> Batch:
            tokens = symbols([example.text], self.alphabet)[0]
            return {"image": read_image(content, size), "tokens": torch.cat([tokens, tokens.new_zeros(longest - len(tokens))])}

        splits, self.examples, skipped, same = streams(self.examples, read, batch_size, augment=augment, memory=memory)
        self.faults.after(self.folder, skipped, same)
        if splits.train is None or splits.valid is None:
            raise ValueError(f"data={self.folder}: no image is left to train on or to validate on; {self.report()}")
        return splits


def _aspect(path: Path) -> float | str:
    try:
        height, width = upright_extent(path)
    except (OSError, UnreadableImage) as error:
        return getattr(error, "reason", str(error))
    return width / height


def _repeats(text: str) -> int:
    """Symbols that follow their like."""
    return sum(one == other for one, other in pairwise(text))

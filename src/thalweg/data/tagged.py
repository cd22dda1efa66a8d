"""A folder of images with any number of labels on each becomes streams of batches.

    FOLDER/labels.csv  FOLDER/any/1.jpg ...    a line an image: its file, and labels with spaces, commas or | between
                                               or, where the header has a column a label, 1 for each that it has, 0 for others

The file is named by its path in the folder, by its name, or by that without its ending, as competitions do. Names of folders
may say the part (train, valid, test); what a person has not split is split by us. What is wrong is left out and reported.
"""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import torch

from thalweg.data.folders import MEMORY, Faults, Picture, ahead, divided, header, image_files, look, part_of, streams
from thalweg.data.images import read_image
from thalweg.data.streams import Augment, Splits
from thalweg.vocabulary import Batch

HAS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False, "": False}  # what a column says
Line = tuple[str, list[str]]  # where it stands, and its fields


class TaggedFolder:
    """What lies in a folder of images and a list of their labels.

    classes: the labels of the training images, sorted, or in the order of their columns.   pictures: the images, by part.
    faults: what was wrong, and where.   channels, extent: as of `thalweg.data.folders.ImageFolder`.
    ValueError if there is no such folder or list, or fewer than three images, or no label to train on.
    """

    def __init__(self, folder: Path):
        self.folder, self.faults = Path(folder), Faults()
        if not self.folder.is_dir():
            raise ValueError(f"data={folder}: {'a file, expected a folder' if self.folder.exists() else 'no such folder'}")
        images = image_files(self.folder)
        tagged, known = self._read(images)
        found = list[Picture]()
        for (path, labels), seen in zip(tagged.items(), ahead(header, tagged, 100), strict=True):
            if isinstance(seen, str):
                self.faults["images that cannot be read, left out"].append(f"{self._name(path)} ({seen})")
            else:
                part = part_of(path.parent.relative_to(self.folder))
                found.append(Picture(path, part, frozenset(labels), *seen))
        for path in sorted({path for alike in images.values() for path in alike} - tagged.keys()):
            self.faults["images without a line, left out"].append(self._name(path))
        if len(found) < 3:
            raise ValueError(f"data={folder}: {len(found)} images with a line, expected at least three; {self.report()}")
        self.pictures = divided(found, self.folder)
        counts = self._counts()
        self.classes = tuple(label for label in known if counts[label])
        for label in known:
            if not counts[label]:
                self.faults["labels without an image to train on, left out"].append(label)
        if not self.classes:
            raise ValueError(f"data={folder}: no label of an image to train on; {self.report()}")
        self.channels, self.extent = look(self.pictures)

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.folder))

    def _counts(self) -> Counter[str]:
        """How many training images have each label."""
        return Counter(label for picture in self.pictures if picture.part == "train" for label in picture.label)

    def _read(self, images: dict[str, list[Path]]) -> tuple[dict[Path, set[str]], list[str]]:
        """The labels of every image that has a line, and all labels."""
        table = self._table()
        with open(table, newline="", encoding="utf-8-sig", errors="replace") as file:
            first = file.readline()
            file.seek(0)
            rows = csv.reader(file, delimiter=next((mark for mark in ",;\t" if mark in first), ","), skipinitialspace=True)
            try:
                lines = [(f"{table.name}, line {rows.line_num}", [field.strip() for field in row]) for row in rows if any(row)]
            except csv.Error as error:
                raise ValueError(f"{table}, line {rows.line_num}: not a CSV file that can be read: {error}") from error
        names = [] if not lines or self._path(lines[0][1][0], images) else lines.pop(0)[1]
        columns = [place for place in range(1, len(names)) if len(names) > 2 and _says(place, lines)]
        labelled = self._by_column(lines, names, columns) if columns else self._by_list(lines, names)
        tagged = dict[Path, set[str]]()
        for (where, fields), labels in labelled:
            path = self._path(fields[0], images)
            if path is None:
                self.faults["lines whose file is not in the folder, or there more than once, left out"].append(
                    f"{where} ({fields[0]})"
                )
            elif path in tagged:
                self.faults["further lines of an image, whose labels it has as well"].append(f"{where} ({fields[0]})")
                tagged[path] |= labels
            else:
                tagged[path] = labels
        known = {label for labels in tagged.values() for label in labels}
        return tagged, list(dict.fromkeys(names[place] for place in columns)) or sorted(known)

    def _table(self) -> Path:
        """The list: labels.csv, else train.csv, as of competitions, else the only CSV file."""
        lists = sorted(self.folder.glob("*.csv"))
        named = [path for name in ("labels.csv", "train.csv") for path in lists if path.name.lower() == name]
        if not named and len(lists) != 1:
            raise ValueError(f"data={self.folder}: expected labels.csv, a line an image: its file, then its labels; found "
                             f"{', '.join(path.name for path in lists) or 'no CSV file'}")  # fmt: skip
        return (named or lists)[0]

    def _path(self, given: str, images: dict[str, list[Path]]) -> Path | None:
        """The one image of that name: its path in the folder, or the end of that, with or without the file's ending."""
        wanted = PurePosixPath(given.replace("\\", "/"))
        near = {path: path.relative_to(self.folder) for stem in (wanted.name, wanted.stem) for path in images.get(stem, ())}
        if exact := [path for path, inside in near.items() if inside == Path(wanted)]:
            return exact[0]
        ends = [path for path, inside in near.items()
                if any(f"/{name.as_posix()}".endswith(f"/{wanted}") for name in (inside, inside.with_suffix("")))]  # fmt: skip
        return ends[0] if len(ends) == 1 else None

    def _by_column(
        self, lines: Sequence[Line], names: Sequence[str], columns: Sequence[int]
    ) -> Iterator[tuple[Line, set[str]]]:
        """The labels of each line that says 1 or 0 in every column of a label."""
        for place in range(1, len(names)):
            if place not in columns:
                self.faults["columns of something else than 0 and 1, left out"].append(names[place])
        for where, fields in lines:
            if len(fields) != len(names):
                self.faults["lines of another length than the header, left out"].append(where)
            elif any(fields[place].lower() not in HAS for place in columns):
                self.faults["lines with something else than 0 and 1, left out"].append(where)
            else:
                yield (where, fields), {names[place] for place in columns if HAS[fields[place].lower()]}

    def _by_list(self, lines: Sequence[Line], names: Sequence[str]) -> Iterator[tuple[Line, set[str]]]:
        """The labels of each line, which stand together; further columns of the header are left out."""
        for name in names[2:]:
            self.faults["columns after that of the labels, left out"].append(name)
        said = [fields[1] if 2 < len(fields) == len(names) else ",".join(fields[1:]) for _, fields in lines]
        mark = next((mark for mark in "|,;" if any(mark in labels for labels in said)), None)
        for line, labels in zip(lines, said, strict=True):
            yield line, {label.strip() for label in labels.split(mark)} - {""}

    def report(self) -> str:
        """One line on what was wrong; empty if nothing was."""
        return "; ".join(self.faults.lines())

    def frequency(self) -> list[float]:
        """The share of the training images that have each label, as if there were one more with it and one without."""
        counts, total = self._counts(), sum(picture.part == "train" for picture in self.pictures)
        return [(counts[label] + 1) / (total + 2) for label in self.classes]

    def streams(self, size: Sequence[int], batch_size: int, *, augment: Sequence[Augment] = (), memory: int = MEMORY) -> Splits:
        """Streams of training, validation and test images at size [height width]: image, and label [batch class], 1 or 0.

        As of `thalweg.data.folders.streams`; the test stream is None where a person split the data without one.
        ValueError if no image is left to train on or to validate on.
        """

        def read(picture: Picture, content: bytes) -> Batch:
            label = torch.tensor([float(name in picture.label) for name in self.classes])
            return {"image": read_image(content, size)[: self.channels], "label": label}

        splits, self.pictures, skipped, same = streams(self.pictures, read, batch_size, augment=augment, memory=memory)
        self.faults.after(self.folder, skipped, same)
        for alike in same:
            if len({picture.label for picture in alike}) > 1:
                names = " = ".join(self._name(picture.path) for picture in alike[:3])
                self.faults["images that are the same and have other labels"].append(names)
        if splits.train is None or splits.valid is None:
            raise ValueError(f"data={self.folder}: no image is left to train on or to validate on; {self.report()}")
        return replace(splits, classes=self.classes)


def _says(place: int, lines: Sequence[Line]) -> bool:
    """Whether a column is of a label: half of its fields or more are 0 or 1."""
    held = [fields[place].lower() for _, fields in lines if len(fields) > place and fields[place]]
    return bool(held) and 2 * sum(field in HAS for field in held) >= len(held)

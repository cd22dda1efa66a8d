"""Sentences whose words have labels: parts of speech, names.   D2L 15.6, LEE: Sequence Labelling"""

import gzip
import hashlib
import lzma
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.data.folders import Faults
from thalweg.data.own_text import decoded, foreign
from thalweg.data.pairs import PAD, UNK, Words
from thalweg.data.sources import MissingData, find
from thalweg.data.streams import Padded
from thalweg.data.text import Characters
from thalweg.data.wordpieces import WordPieces

LETTERS = 16  # of a word that are read: the first and the last half of so many, where it has more


class Sentence(NamedTuple):
    """The words of a sentence and the label of each."""

    words: tuple[str, ...]
    labels: tuple[str, ...]


class Labelled(NamedTuple):
    """Sentences in three parts, the labels, sorted, and how many lines were left out, by reason."""

    train: list[Sentence]
    valid: list[Sentence]
    test: list[Sentence]
    classes: tuple[str, ...]
    left_out: Mapping[str, int]


def read_conll(lines: Iterable[str], word: int, label: int) -> tuple[list[Sentence], dict[str, list[int]]]:
    """The sentences of a file of CoNLL's form: a word a line, columns with tabs between, an empty line between sentences.

    word, label: columns.   Lines that begin with # count as none, nor do those whose first column is no whole number where
    the word is not in the first (CoNLL-U: spans 3-4 and words left out 3.1).   The numbers of lines left out, by reason.
    """
    sentences, now, left_out = list[Sentence](), list[tuple[str, str]](), dict[str, list[int]]()
    for number, line in enumerate([*lines, ""], 1):
        columns = line.rstrip("\n").split("\t")
        if not line.strip():
            if now:
                words, labels = zip(*now, strict=True)
                sentences.append(Sentence(words, labels))
            now = []
        elif line.startswith("#") and len(columns) == 1:
            continue
        elif len(columns) <= max(word, label) or not columns[word].strip() or not columns[label].strip():
            left_out.setdefault("without a word and a label", []).append(number)
        elif not word or columns[0].isdigit():
            now.append((columns[word], columns[label]))
    return sentences, left_out


def _parts(files: Sequence[str], origin: str, word: int, label: int) -> Labelled:
    """Training, validation and test sentences of three files, compressed by gzip or xz."""
    parts, left_out = [], Counter[str]()
    for name in files:
        if (path := find(name)) is None:
            raise MissingData(f"{name} is neither in THALWEG_DATA nor in the cache: {origin}")
        try:
            text = (lzma if path.suffix == ".xz" else gzip).decompress(path.read_bytes()).decode()
        except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        sentences, bad = read_conll(text.split("\n"), word, label)
        parts.append(sentences)
        left_out.update({reason: len(numbers) for reason, numbers in bad.items()})
    classes = sorted({label for part in parts for sentence in part for label in sentence.labels})
    train, valid, test = parts
    return Labelled(train, valid, test, tuple(classes), left_out)


def _ends(lines: Sequence[str], faults: Faults) -> Iterator[str]:
    """The first and the last column of each line, with a tab between; comments are # alone.

    Before a sentence "# id = 7" is one, though it may have as many columns as a word; unless two columns are all there are.
    """
    rows = [line.strip().split("\t") if "\t" in line else line.split() for line in lines]
    counts = Counter(len(row) for row, line in zip(rows, lines, strict=True) if row and not line.startswith("#"))
    usual, begin = counts.most_common(1)[0][0] if counts else 0, True
    for number, (row, line) in enumerate(zip(rows, lines, strict=True), 1):
        alike = len(row) == usual
        if line.startswith("#") and (not alike or (begin and row[0] == "#" and usual > 2)):
            if alike:
                faults["taken for comments"].append(f"line {number}")
            yield "#"
        else:
            begin = not line.strip()
            yield f"{row[0]}\t{row[-1]}" if len(row) > 1 else line


def own_sentences(path: Path) -> Labelled:
    """A person's own sentences: a word a line, an empty line between sentences; their labels are learned.

    CoNLL-U, ten columns with tabs between, gives words and their universal parts of speech; any other file the first column
    and the last, with tabs or blanks between. 70 % of the different sentences are to train on, 15 % and 15 % for the rest.
    In UTF-8, or UTF-16 with its mark; lines that are not, or hold no word and label, are left out, and the first named.
    ValueError if there is no such file, or if it has fewer than 20 different sentences or fewer than two labels.
    """
    if not path.is_file():
        raise ValueError(f"data={path}: {'a folder, expected a file' if path.exists() else 'no such file'}")
    lines = re.split(r"\r\n|\r|\n", decoded(path.read_bytes()))
    faults = Faults()
    for number, line in enumerate(lines):
        if foreign(line):
            faults["not in UTF-8"].append(f"line {number + 1}")
            lines[number] = "#"
    tabs = Counter(line.count("\t") for line in lines if line.strip() and not line.startswith("#"))
    if tabs[9] > tabs.total() / 2:
        sentences, left_out = read_conll(lines, word=1, label=3)
    else:
        sentences, left_out = read_conll(_ends(lines, faults), word=0, label=1)
    for reason, numbers in left_out.items():
        faults[reason] += [f"line {number}" for number in numbers]
    different = sorted(dict.fromkeys(sentences), key=lambda one: hashlib.sha256("\n".join(one.words).encode()).digest())
    classes = tuple(sorted({label for sentence in different for label in sentence.labels}))
    if len(different) < 20 or len(classes) < 2:
        said = "; ".join(faults.lines())
        raise ValueError(f"data={path}: {len(different)} different sentences with {len(classes)} labels, expected at least "
                         f"20 and 2{'; ' + said if said else ''}")  # fmt: skip
    if len(different) < len(sentences):
        faults["repeated sentences"] = [""] * (len(sentences) - len(different))
    cut = round(0.15 * len(different))
    told = {f"{reason} ({', '.join(places[:3])}{' ...' * (len(places) > 3)})" if places[0] else reason: len(places)
            for reason, places in faults.items()}  # fmt: skip
    return Labelled(different[2 * cut :], different[:cut], different[cut : 2 * cut], classes, told)


def by_lexicon(train: Sequence[Sentence], sentences: Sequence[Sentence]) -> list[tuple[str, ...]]:
    """For every word the label that it most often has in `train`, for unknown words the most frequent of all.

    What whoever looks at the neighbours of a word must exceed.   D2L 9.4, 15.6
    """
    counts = defaultdict[str, Counter[str]](Counter)
    for sentence in train:
        for word, label in zip(sentence.words, sentence.labels, strict=True):
            counts[word.lower()][label] += 1
    best = {word: count.most_common(1)[0][0] for word, count in counts.items()}
    ((usual, _),) = sum(counts.values(), Counter()).most_common(1)
    return [tuple(best.get(word.lower(), usual) for word in sentence.words) for sentence in sentences]


def english_web_treebank() -> Labelled:
    """16,622 English sentences from the web, with the universal part of speech of each word.   Silveira et al. 2014"""
    files = [f"ud-english-ewt/en_ewt-ud-{part}.conllu.xz" for part in ("train", "dev", "test")]
    return _parts(files, "github.com/UniversalDependencies/UD_English-EWT", word=1, label=3)


def wnut17() -> Labelled:
    """5,690 English sentences of social media, with names that are rare: persons, places, groups, works, products.

    Labels are O, or B-kind where a name begins and I-kind where it goes on.   Derczynski et al. 2017
    """
    files = [f"wnut17-ner/{part}" for part in ("wnut17train.conll.gz", "emerging.dev.conll.gz", "emerging.test.annotated.gz")]
    return _parts(files, "github.com/leondz/emerging_entities_17", word=0, label=1)


PLACES = ("taipei", "tokyo", "paris", "new york", "san francisco", "rome", "hong kong", "berlin", "lima", "cairo", "oslo")
MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november")
POLITE = ("", "please", "i would like to", "could you help me", "my wife and i will", "next time we", "well we")


def journeys(count: int = 3000, seed: int = 0) -> Labelled:
    """Sentences about journeys as people type them, with origin, destination and time: the slots of an assistant.

    The words of a place do not say which it is, and either may come first.   LEE: RNN, "arrive Taipei on November 2nd"
    """
    draw = random.Random(seed)

    def slot(kind: str, words: str) -> list[tuple[str, str]]:
        return [(word, f"{'I' if place else 'B'}-{kind}") for place, word in enumerate(words.split())]

    def plain(*choices: str) -> list[tuple[str, str]]:
        return [(word, "O") for word in draw.choice(choices).split()]

    def sentence() -> Sentence:
        origin, destination = draw.sample(PLACES, 2)
        parts = [plain("leave", "depart from", "start in", "from") + slot("origin", origin),
                 plain("arrive in", "go to", "reach", "to", "arrive") + slot("destination", destination)]  # fmt: skip
        draw.shuffle(parts)
        day = f"{draw.choice(MONTHS)} {draw.randint(1, 28)}th" if draw.random() < 0.7 else draw.choice(("tomorrow", "tonight"))
        parts = parts[: draw.randint(1, 2)]
        parts.insert(draw.randint(0, len(parts)), plain("on", "", "before", "not before") + slot("time", day))
        words = [*plain(*POLITE), *parts[0]]
        for part in parts[1:]:
            words += plain("and", "", "then") + part
        said, labels = zip(*words, strict=True)
        return Sentence(said, labels)

    different = list(dict.fromkeys(sentence() for _ in range(count)))
    sixth = len(different) // 6
    classes = sorted({label for one in different for label in one.labels})
    return Labelled(different[2 * sixth :], different[:sixth], different[sixth : 2 * sixth], tuple(classes), {})


class Letters:
    """Tokenisers of words, and of the letters of each: what a `Tagger` reads.

    words: those that are known, see `Words`.   alphabet: the letters that are known; token 0 is padding, 1 the unknown letter.
    """

    def __init__(self, words: str, alphabet: str):
        self.words, self.characters = Words(words), Characters(alphabet)

    def encode(self, words: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens [time] and letters [time letter]."""
        tokens = torch.tensor([self.words.number.get(word.lower(), UNK) for word in words])
        shown = [word if len(word) <= LETTERS else word[: LETTERS // 2] + word[-LETTERS // 2 :] for word in words]
        letters = torch.zeros(len(words), LETTERS, dtype=torch.long)
        for row, word in zip(letters, shown, strict=True):
            row[: len(word)] = torch.tensor([2 + self.characters.number.get(letter, -1) for letter in word])
        return tokens, letters


class WordsInPieces:
    """Tokenisers of words, and of the pieces of each, as an encoder reads them.   tokenizer: see `WordPieces`

    ValueError if its padding is not token 0.
    """

    def __init__(self, tokenizer: str):
        self.pieces = WordPieces(tokenizer)
        if self.pieces.pad != PAD:
            raise ValueError(f"tokenizer: its [PAD] is token {self.pieces.pad}, expected {PAD}")

    def encode(self, words: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The first piece of each word [time], and its first pieces [time letter]; the unknown one of a word without any."""
        encodings = self.pieces.tokenizer.encode_batch_fast([*words], add_special_tokens=False)
        tokens = [one.ids[:LETTERS] or [self.pieces.unk] for one in encodings]
        letters = torch.tensor([row + [PAD] * (LETTERS - len(row)) for row in tokens])
        return letters[:, 0], letters


class LabelledSentences(Padded):
    """Batches of tokens, mask, label [batch time] and letters [batch time letter], padded to the longest sentence."""

    def __init__(
        self,
        sentences: Sequence[Sentence],
        reader: Letters | WordsInPieces,
        classes: Sequence[str],
        batch_size: int,
        *,
        shuffle: bool = False,
    ):
        number = {label: place for place, label in enumerate(classes)}
        read = [reader.encode(sentence.words) for sentence in sentences]
        label = [torch.tensor([number[label] for label in sentence.labels]) for sentence in sentences]
        ragged = {"tokens": [tokens for tokens, _ in read], "letters": [letters for _, letters in read], "label": label}
        super().__init__(ragged, {}, batch_size, padding=PAD, shuffle=shuffle)

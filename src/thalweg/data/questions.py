"""Questions whose answers stand in a text, in the form of SQuAD: a person's own, or those of XQuAD.   D2L 15.6

{"data": [{"paragraphs": [{"context": "...", "qas": [{"id": "...", "question": "...",
                                                      "answers": [{"text": "...", "answer_start": 17}]}]}]}]}
"""

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from thalweg.data.folders import Faults
from thalweg.data.sources import fetch
from thalweg.data.streams import Padded, generator
from thalweg.data.wordpieces import WordPieces


class Question(NamedTuple):
    """A question, a text, and the answer, which begins at that character of the text."""

    question: str
    context: str
    answer: str
    start: int


@dataclass(frozen=True)
class Questions:
    """Questions in three parts, no text in two of them, and what was wrong with the data."""

    train: list[Question]
    valid: list[Question]
    test: list[Question]
    faults: Faults = field(default_factory=Faults)


def read_squad(content: str, faults: Faults) -> list[Question]:
    """The questions of a file in SQuAD's form; those that cannot be used are left out, and named in `faults`.

    Where there are several answers, the first that stands where it says.   ValueError if it is no such file.
    """
    try:
        articles = json.loads(content)["data"]
        assert isinstance(articles, list)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise ValueError('expected an object with a list "data" in JSON, as SQuAD has it') from error
    found = list[Question]()
    for a, article in enumerate(articles):
        for p, paragraph in enumerate(_listed(article, "paragraphs", f"article {a + 1}", faults)):
            place = f"article {a + 1}, paragraph {p + 1}"
            context = paragraph.get("context") if isinstance(paragraph, dict) else None
            if not isinstance(context, str) or not context.strip():
                faults["paragraphs without a context, left out"].append(place)
                continue
            for q, asked in enumerate(_listed(paragraph, "qas", place, faults)):
                found += _question(context, asked, f"{place}, question {q + 1}", faults)
    return found


def _listed(holder: Any, name: str, place: str, faults: Faults) -> list[Any]:
    held = holder.get(name) if isinstance(holder, dict) else None
    if not isinstance(held, list):
        faults[f"without a list of {name}, left out"].append(place)
        return []
    return held


def _question(context: str, asked: Any, place: str, faults: Faults) -> Iterator[Question]:
    question = asked.get("question") if isinstance(asked, dict) else None
    answers = asked.get("answers") if isinstance(asked, dict) else None
    if not isinstance(question, str) or not question.strip():
        faults["questions without a text, left out"].append(place)
        return
    pairs = list[tuple[str, int]]()
    for one in answers or ():
        text, start = (one.get("text"), one.get("answer_start")) if isinstance(one, dict) else (None, None)
        if isinstance(text, str) and text.strip() and isinstance(start, int):
            pairs.append((text.strip(), start + len(text) - len(text.lstrip())))
    right = [(text, start) for text, start in pairs if start >= 0 and context[start : start + len(text)] == text]
    if right:
        yield Question(question.strip(), context, *right[0])
    elif pairs:
        faults["questions whose answer does not stand where it says, left out"].append(place)
    else:
        faults["questions without an answer, left out"].append(place)


def apart(questions: Sequence[Question], faults: Faults) -> Questions:
    """Questions in three parts, fixed by their texts: those of a tenth of the texts for validation, of a fifth for tests.

    ValueError if they are of fewer than five texts.
    """
    contexts = sorted({question.context for question in questions})
    if len(contexts) < 5:
        said = "; ".join(faults.lines())
        raise ValueError(f"questions on {len(contexts)} texts, expected at least 5{'; ' + said if said else ''}")
    places = torch.randperm(len(contexts), generator=generator(0)).tolist()
    number = {contexts[place]: number for number, place in enumerate(places)}
    tested, validated = len(contexts) // 5, max(1, len(contexts) // 10)
    train, valid, test = list[Question](), list[Question](), list[Question]()
    for question in questions:
        at = number[question.context]
        (test if at < tested else valid if at < tested + validated else train).append(question)
    return Questions(train, valid, test, faults)


def own_questions(path: Path) -> Questions:
    """The questions of a person's own file in SQuAD's form.   ValueError if it cannot be read or is none."""
    faults = Faults()
    try:
        return apart(read_squad(path.read_bytes().decode("utf-8-sig"), faults), faults)
    except (OSError, ValueError) as error:
        raise ValueError(f"data={path}: {error}") from error


def xquad() -> Questions:
    """1,190 questions on 240 paragraphs of Wikipedia.   Artetxe, Ruder, Yogatama 2019, arXiv:1910.11856"""
    url = "https://raw.githubusercontent.com/google-deepmind/xquad/master/xquad.en.json"
    sha256, faults = "afb6bdcf1cf7eed9cfa02756c0a688c21ee798c9d67cb0f2fee9d318aa5dd746", Faults()
    return apart(read_squad(gzip.decompress(fetch("xquad/xquad.en.json.gz", url, sha256)).decode(), faults), faults)


class Window(NamedTuple):
    """[CLS] question [SEP] some of the text [SEP] as tokens, and the characters of the text that each is, (0, 0) if none."""

    tokens: Tensor
    segment: Tensor
    characters: list[tuple[int, int]]


def windows(question: str, context: str, pieces: WordPieces, longest: int) -> list[Window]:
    """A question beside a text, which is cut where it is too long into windows that overlap by half.

    A question of more than half of `longest` tokens is cut off there.
    """
    asked = pieces.tokenizer.encode(question, add_special_tokens=False).ids[: longest // 2]
    read = pieces.tokenizer.encode(context, add_special_tokens=False)
    room, found, start = longest - len(asked) - 3, [], 0
    while True:
        end = start + room
        text = read.ids[start:end]
        tokens = [pieces.cls, *asked, pieces.sep, *text, pieces.sep]
        before = len(asked) + 2
        characters = [(0, 0)] * before + read.offsets[start:end] + [(0, 0)]
        found.append(Window(torch.tensor(tokens), torch.tensor([0] * before + [1] * (len(text) + 1)), characters))
        if end >= len(read.ids):
            return found
        start += max(1, room // 2)


def located(window: Window, start: int, end: int) -> tuple[int, int] | None:
    """The first and the last token of characters start to end of the text, or None if the window does not hold them all."""
    inside = [place for place, (one, other) in enumerate(window.characters) if one < end and other > start and other > one]
    if not inside or window.characters[inside[0]][0] > start or window.characters[inside[-1]][1] < end:
        return None
    return inside[0], inside[-1]


def question_batches(questions: Sequence[Question], pieces: WordPieces, longest: int, batch_size: int, *,
                     shuffle: bool = False) -> Padded:  # fmt: skip
    """Batches of tokens, mask, segment [batch time], and the place of the answer, start, end [batch].

    Of a text that is too long the window with most of the text before and behind the answer; -1 if none holds it whole.
    """
    chosen, places = list[Window](), list[tuple[int, int]]()
    for question in questions:
        cut = windows(question.question, question.context, pieces, longest)
        held = [(located(one, question.start, question.start + len(question.answer)), one) for one in cut]
        whole = [(place, one) for place, one in held if place is not None]
        middle = max(whole, key=lambda pair: min(pair[0][0], len(pair[1].tokens) - pair[0][1]), default=((-1, -1), cut[0]))
        places.append(middle[0])
        chosen.append(middle[1])
    ragged = {"tokens": [one.tokens for one in chosen], "segment": [one.segment for one in chosen]}
    start, end = torch.tensor(places).T
    return Padded(ragged, {"start": start, "end": end}, batch_size, padding=pieces.pad, shuffle=shuffle)

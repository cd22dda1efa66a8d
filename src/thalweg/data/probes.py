"""Questions with answers to choose from, or one to write, put to a language model as texts to go on with: zero to few shots.

FILE.jsonl   {"question": "The capital of France is", "answers": ["Rome", "Paris"], "right": 1} a line
facts, questions, agreement, sst2   what the world knows; question and answer; grammar; whether a film review is good
translation   descriptions of photographs, and of four French ones the translation
headlines   news, which are to be said in few words; as with any file of one answer a question, that answer is to be written
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from thalweg.data.classified import POLARITY, sst2
from thalweg.data.folders import Faults
from thalweg.data.headlines import headlines
from thalweg.data.own_text import objects
from thalweg.data.pairs import multi30k

CLOZE = ("facts", "questions", "agreement")  # files that the package carries
BUILT = ("sst2", "translation", "headlines")  # made of data sets
BEFORE, BEHIND = "News: ", "\nHeadline:"  # a story


class Probe(NamedTuple):
    """A question, its answers, and the place of the right one among them; one answer alone is to be written, not chosen."""

    question: str
    answers: list[str]
    right: int


def probes(source: str) -> list[Probe]:
    """Questions by the name of a set or a file, as the head of this file shows.

    ValueError, with the line, if one is no question with different answers, or if there is none; or if some are to be
    chosen and others to be written.
    """
    if source == "sst2":
        return _reviews(200)
    if source == "translation":
        return _translations(100)
    if source == "headlines":
        return [Probe(f"{BEFORE}{text}{BEHIND}", [title], 0) for text, title in headlines().test]
    path = Path(__file__).parent / "cloze" / f"{source}.jsonl" if source in CLOZE else Path(source)
    if not path.is_file():
        raise ValueError(f"{source}: no such file, and none of {', '.join((*CLOZE, *BUILT))}")
    faults, found = Faults(), list[Probe]()
    for place, told in objects(path, faults):
        question, answers, right = (told.get(name) for name in Probe._fields)
        if not isinstance(question, str) or not question.strip():
            raise ValueError(f'{path}, {place}: expected a text as "question", and not {question!r}')
        if (
            not isinstance(answers, list)
            or not answers
            or not all(isinstance(one, str) and one.strip() for one in answers)
            or len(set(answers)) < len(answers)
        ):
            raise ValueError(f'{path}, {place}: expected different texts as "answers", and not {answers!r:.200}')
        if not isinstance(right, int) or isinstance(right, bool) or not 0 <= right < len(answers):
            raise ValueError(f'{path}, {place}: expected 0 to {len(answers) - 1} as "right", and not {right!r}')
        found.append(Probe(question, answers, right))
    if faults or not found:
        raise ValueError(f"{path}: expected a question a line; {'; '.join(faults.lines()) or 'it holds none'}")
    if len({len(one.answers) > 1 for one in found}) > 1:
        raise ValueError(f"{path}: some questions have one answer, to be written, and others several, to choose from")
    return found


def _reviews(count: int) -> list[Probe]:
    """Sentences of film reviews of SST-2's development set, as many of each kind."""
    texts = sst2().valid
    chosen = [text for label in POLARITY for text in [one for one in texts if one.label == label][: count // len(POLARITY)]]
    return [Probe(f"Review: {one.text}\nSentiment:", [*POLARITY], POLARITY.index(one.label)) for one in chosen]


def _translations(count: int) -> list[Probe]:
    """English descriptions of photographs and, of four French ones of like length, the translation."""
    pairs = sorted(multi30k("en", "fr", words=False).valid[:count], key=lambda pair: (len(pair[1]), pair))
    fours = [[french for _, french in pairs[place : place + 4]] for place in range(0, count, 4)]
    return [Probe(f"English: {english}\nFrench:", fours[place // 4], place % 4) for place, (english, _) in enumerate(pairs)]


def shown(question: str, answer: str) -> str:
    """The question and an answer behind it, with a blank between."""
    return question + ("" if question[-1].isspace() else " ") + answer


def prompted(asked: Sequence[Probe], number: int, shots: int, seed: int) -> str:
    """The text that an answer of one of the questions is to follow: others with their right answers, then the question.

    Which are shown, and in what order, is drawn for each question anew, by the seed; two texts are a blank line apart.
    ValueError unless 0 <= shots < the number of questions.   Brown et al. 2020, arXiv:2005.14165.
    """
    if not 0 <= shots < len(asked):
        raise ValueError(f"shots={shots}: expected 0 to {len(asked) - 1}, since the examples are the other questions")
    others = [one for place, one in enumerate(asked) if place != number]
    examples = random.Random(f"{seed} {number}").sample(others, shots)
    return "\n\n".join([*(shown(one.question, one.answers[one.right]) for one in examples), asked[number].question])

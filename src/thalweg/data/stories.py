"""Made stories of a few words, and questions that two of their sentences answer together."""

import random
import re
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.vocabulary import Batch

PEOPLE, THINGS = ("mary", "john", "anna", "paul"), ("apple", "book", "key")
ROOMS = ("kitchen", "garden", "hall", "cellar", "attic")
WORDS = ("where", "is", "who", "has", "the", "took", "went", "to", *PEOPLE, *THINGS, *ROOMS)
LONGEST = 5  # words of a sentence


class Story(NamedTuple):
    """facts: the sentences in their order; support: the places of those that answer the question together."""

    facts: list[str]
    question: str
    answer: str
    support: tuple[int, int]


def stories(count: int, least: int, most: int, seed: int) -> list[Story]:
    """So many stories of `least` to `most` sentences: "mary took the apple", "mary went to the hall"; where is the apple?

    A thing is where the one is who took it: in the room where that person went last. Two questions in three are simpler, one
    sentence suffices for them, and `support` has it twice: where is a person, and who has a thing.
    ValueError for less than two sentences or least above most.   After the second task of Weston et al. 2015, arXiv:1502.05698.
    """
    if not 2 <= least <= most:
        raise ValueError(f"least={least}, most={most}: expected at least 2, and no more than the most")
    draw, made = random.Random(seed), list[Story]()
    while len(made) < count:
        free, holder, room, facts = [*THINGS], dict[str, int](), dict[str, int](), list[str]()
        for place in range(draw.randint(least, most)):
            person = draw.choice(PEOPLE)
            if free and draw.random() < 0.3:
                thing = free.pop(draw.randrange(len(free)))
                holder[thing] = place
                facts.append(f"{person} took the {thing}")
            else:
                room[person] = place
                facts.append(f"{person} went to the {draw.choice(ROOMS)}")
        kind = len(made) % 3
        taker = {thing: facts[place].split()[0] for thing, place in holder.items()}
        known = {
            0: [(f"where is the {thing}", facts[room[who]].split()[-1], (holder[thing], room[who]))
                for thing, who in taker.items() if who in room],
            1: [(f"who has the {thing}", who, (holder[thing],) * 2) for thing, who in taker.items()],
            2: [(f"where is {who}", facts[went].split()[-1], (went, went)) for who, went in room.items()],
        }[kind]  # fmt: skip
        if known:
            made.append(Story(facts, *draw.choice(known)))
    return made


def encode(facts: list[str], question: str) -> tuple[Tensor, Tensor]:
    """Tokens of the words, from 1: [sentence LONGEST] and [LONGEST].   ValueError, naming them, for words that are unknown."""
    number = {word: place for place, word in enumerate(WORDS, 1)}
    rows = torch.zeros(1 + len(facts), LONGEST, dtype=torch.long)
    for row, sentence in zip(rows, [question, *facts], strict=True):
        words = re.findall(r"\w+", sentence.lower())
        if not 0 < len(words) <= LONGEST or any(word not in number for word in words):
            raise ValueError(f"{sentence!r}: expected 1 to {LONGEST} words of {', '.join(WORDS)}")
        row[: len(words)] = torch.tensor([number[word] for word in words])
    return rows[1:], rows[0]


def story_tensors(told: list[Story], most: int) -> Batch:
    """tokens [story most LONGEST], 0: none; question [story LONGEST]; label [story], the token of the answer; support
    [story 2], the sentences that give it."""
    tokens, question = torch.zeros(len(told), most, LONGEST, dtype=torch.long), []
    for row, story in zip(tokens, told, strict=True):
        facts, asked = encode(story.facts, story.question)
        row[: len(facts)] = facts
        question.append(asked)
    label = torch.tensor([1 + WORDS.index(story.answer) for story in told])
    return {"tokens": tokens, "question": torch.stack(question), "label": label,
            "support": torch.tensor([story.support for story in told])}  # fmt: skip

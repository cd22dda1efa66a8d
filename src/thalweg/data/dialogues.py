"""Two lines of a conversation: what is said, and an answer that takes up the names just heard.   LEE Transformer"""

import random

from thalweg.data.pairs import Corpus, Pair

SAID = (
    ("hi , i am {0} .", "nice to meet you , {0} !"),
    ("my name is {0} .", "welcome , {0} !"),
    ("people call me {0} , who are you ?", "i am a machine , {0} ."),
    ("this is {0} and that is {1} .", "hello {0} , hello {1} !"),
    ("{0} , do you know {1} ?", "no , {0} , who is {1} ?"),
    ("{0} saw {1} today .", "where was {1} , {0} ?"),
)


def introductions(count: int = 4000, held_out: int = 300, seed: int = 0) -> Corpus:
    """Introductions and their answers, with names that nobody had before: no name is in two dialogues."""
    draw = random.Random(seed)
    names: set[str] = set()

    def name() -> str:
        while (
            made := "".join(draw.choice("bdfgklmnprstvz") + draw.choice("aeiou") for _ in range(draw.randint(2, 4)))
        ) in names:
            pass
        names.add(made)
        return made

    pairs: list[Pair] = []
    for _ in range(count):
        said, answer = draw.choice(SAID)
        pair = name(), name()
        pairs.append((said.format(*pair), answer.format(*pair)))
    return Corpus(pairs[2 * held_out :], pairs[held_out : 2 * held_out], pairs[:held_out], {})

"""Made questions whose answers nobody can know but from the examples before them: a map from signs to answers a text.

a 3 f 7 a 3 c 0 f ...   letters are the signs, a figure behind each is its answer, in every text another.   LBDL 7.1
"""

import string

import torch

from thalweg.data.streams import Stream, generator
from thalweg.vocabulary import Batch

EVERY = 5  # of the maps, one in so many is for tests: those whose answers add up to a multiple of it


def words(signs: int, answers: int) -> str:
    """The words of such texts, in the order of their tokens.   ValueError unless there are 2 to 26 and 2 to 10."""
    if not (2 <= signs <= 26 and 2 <= answers <= 10):
        raise ValueError(f"signs={signs}, answers={answers}: expected 2 to 26, and 2 to 10")
    return " ".join(["<unk>", *string.ascii_lowercase[:signs], *string.digits[:answers]])


def maps(count: int, shots: int, signs: int, answers: int, seed: int, *, held_out: bool) -> Batch:
    """So many texts of shots + 1 pairs each, sign and answer: of all but the last pair it is an example.

    Every text has a map of its own, one of answers ** signs; no map that is held out is ever one that is not.
    tokens [count 2(shots+1)], mask, True where an answer stands.
    """
    draw = generator(seed)
    table = torch.randint(answers, (count, signs), generator=draw)
    while (wrong := (table.sum(1) % EVERY == 0) != held_out).any():
        table[wrong] = torch.randint(answers, (int(wrong.sum()), signs), generator=draw)
    sign = torch.randint(signs, (count, shots + 1), generator=draw)
    tokens = torch.stack([1 + sign, 1 + signs + table.gather(1, sign)], 2).flatten(1)
    return {"tokens": tokens, "mask": (torch.arange(tokens.shape[1]) % 2 == 1).expand_as(tokens)}


def best(shots: int, signs: int, answers: int) -> float:
    """The share of answers that can be right after so many examples: of signs that were shown all, of others a guess."""
    unseen = (1 - 1 / signs) ** shots
    return 1 - unseen + unseen / answers


class Maps(Stream):
    """Batches of `maps` that are not held out, in each pass others.   size: texts of a pass"""

    def __init__(self, size: int, shots: int, signs: int, answers: int, batch_size: int):
        super().__init__(size, batch_size, shuffle=True)
        self.shots, self.signs, self.answers = shots, signs, answers

    def batch(self, number: int) -> Batch:
        seed = int(torch.randint(2**31, (), generator=generator(self.seed, number)))
        return maps(len(self.indices(number)), self.shots, self.signs, self.answers, seed, held_out=False)

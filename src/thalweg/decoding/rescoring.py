"""What was said, of phrases that sound alike: a language model knows which of them people say.

score = heard + weight log p(words): of "recognize speech" and "wreck a nice beach" the sound is nearly the same, the words are
not as probable.   D2L 8.3, LEE: Language Model
"""

from collections.abc import Callable, Sequence
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

# sets of English words that sound the same
HOMOPHONES = tuple(tuple(words.split()) for words in (
    "to two too", "there their", "no know", "new knew", "by buy", "one won", "for four", "right write", "our hour", "in inn",
    "would wood", "sea see", "son sun", "here hear", "week weak", "whole hole", "through threw", "sale sail", "some sum",
))  # fmt: skip


def sounding_alike(words: Sequence[str], most: int = 64) -> list[list[str]]:
    """All sentences that sound like one, itself first; only the first `most` of them."""
    alike = {word: [word, *(other for other in group if other != word)] for group in HOMOPHONES for word in group}
    ways = product(*(alike.get(word, [word]) for word in words))
    return [list(way) for _, way in zip(range(most), ways, strict=False)]


def rescored(
    heard: Float[Tensor, " candidate"], candidates: Sequence[Tensor], surprise: Callable[[Tensor], Tensor], weight: float = 1.0
) -> Float[Tensor, " candidate"]:
    """heard + weight log p of each candidate.

    heard: log-probabilities of the sound.   candidates: tokens of each.   surprise: - log p of every token of a text, in nats.
    ValueError unless there are as many of both.
    """
    if len(heard) != len(candidates):
        raise ValueError(f"heard: {len(heard)} scores for {len(candidates)} candidates")
    return heard - weight * torch.stack([surprise(tokens).sum() for tokens in candidates]).to(heard)

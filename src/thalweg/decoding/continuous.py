"""Texts that are written side by side, though each comes and goes at a time of its own: continuous batching.

A pass through a large model is hardly slower for a few texts than for one, since its time is that of reading the weights. So
every step writes a token of each text that is there; a text joins and leaves between two steps, and is read a piece a step, so
that nobody waits for long. Yu et al. 2022, "Orca"; pieces: Agrawal et al. 2023, arXiv:2308.16369.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from thalweg.decoding.sampling import Choose, Rule
from thalweg.layers.attention import KeyValueCache
from thalweg.vocabulary import LanguageModel

PIECE = 256  # tokens of a prompt that are read between two steps


@dataclass
class Place:
    """A row of the cache: the text in it, how much of that has been read, and who writes it, if anyone does."""

    tokens: list[int] = field(default_factory=list)
    read: int = 0
    choose: Choose | None = None
    rules: Sequence[Rule] = ()


class ContinuousBatch:
    """At most `places` texts at a time, each of at most `context` tokens.

    A place that is free still holds what was read there, so that a text which begins in the same way (the next turn of a
    conversation) is read from where it differs.   TypeError if the model keeps no `KeyValueCache` a layer.
    """

    def __init__(self, model: LanguageModel, *, places: int, context: int):
        if places < 1:
            raise ValueError(f"places={places}: expected at least 1")
        self.model, self.context, self.room = model, context, min(context, 2 * PIECE)
        self.cache = model.new_cache(places, self.room)
        if not isinstance(self.cache, list) or not all(isinstance(layer, KeyValueCache) for layer in self.cache):
            raise TypeError(f"model: {type(model).__name__} keeps no KeyValueCache a layer, so its texts cannot come and go")
        _clear(self.cache)
        self.places = [Place() for _ in range(places)]
        self.device = self.cache[0].key.device

    def free(self) -> int:
        """How many texts may join."""
        return sum(place.choose is None for place in self.places)

    def check(self, tokens: Sequence[int]) -> None:
        """ValueError if a text is empty or leaves no room in the context."""
        if not 0 < len(tokens) < self.context:
            raise ValueError(f"prompt: {len(tokens)} tokens, expected 1 to {self.context - 1} for context={self.context}")

    def join(self, tokens: Sequence[int], choose: Choose, rules: Sequence[Rule] = ()) -> int:
        """The number of the place that the text gets.

        choose, rules: see `decoding.sampling`; of this text alone.   ValueError if no place is free, or if the text is empty or
        leaves no room in the context.
        """
        self.check(tokens)
        same = [alike(place.tokens[: place.read], tokens) if place.choose is None else -1 for place in self.places]
        if max(same) < 0:
            raise ValueError(f"places: all {len(same)} are taken")
        number = same.index(max(same))
        self.places[number] = Place(list(tokens), min(same[number], len(tokens) - 1), choose, rules)
        return number

    def leave(self, number: int) -> None:
        """The text in this place is not gone on with."""
        self.places[number].choose = None

    @torch.inference_mode()
    def step(self) -> dict[int, int]:
        """Reads a piece of one prompt, and writes a token of every text that has been read: place to token.

        A text that fills the context is written no further: it is to leave.
        """
        for number, place in enumerate(self.places):
            if place.choose and (left := len(place.tokens) - 1 - place.read) > 0:
                self._read(number, place, min(left, PIECE))
                break
        writing = {n: p for n, p in enumerate(self.places)
                   if p.choose and p.read == len(p.tokens) - 1 and len(p.tokens) < self.context}  # fmt: skip
        if not writing:
            return {}
        logits = self._alone(*next(iter(writing.items()))) if len(writing) == 1 else self._together(writing)
        return {number: self._write(place, row) for (number, place), row in zip(writing.items(), logits, strict=True)}

    def _read(self, number: int, place: Place, count: int) -> None:
        self._enlarge(place.read + count)
        piece = torch.tensor([place.tokens[place.read : place.read + count]], device=self.device)
        reads: Any = getattr(self.model, "features", self.model)  # without the logits, where the model has a way
        reads(piece, [layer.row(number, place.read) for layer in self.cache])
        place.read += count

    def _alone(self, number: int, place: Place) -> Tensor:
        self._enlarge(len(place.tokens))
        token = torch.tensor([place.tokens[-1:]], device=self.device)
        return self.model(token, [layer.row(number, place.read) for layer in self.cache])[:, -1]  # type: ignore[operator]

    def _together(self, writing: dict[int, Place]) -> Tensor:
        """Logits of each. Places between them that are free are computed too, which costs next to nothing; none reads it."""
        rows = self.places[: 1 + max(writing)]
        longest = max(len(place.tokens) for place in writing.values())
        self._enlarge(1 + max(place.read for place in rows))  # who is being read gets a key too, behind what has been read
        last = [[place.tokens[-1] if number in writing else 0] for number, place in enumerate(rows)]
        length = torch.tensor([place.read for place in rows], device=self.device)
        mask = torch.arange(longest, device=self.device) <= length[:, None]
        tokens = torch.tensor(last, device=self.device)
        cache = [layer.rows(length, mask[:, None, None]) for layer in self.cache]
        return self.model(tokens, cache)[list(writing), -1]  # type: ignore[operator]

    def _write(self, place: Place, logits: Tensor) -> int:
        logits, place.read = logits[None], len(place.tokens)
        if place.rules:
            tokens = torch.tensor([place.tokens], device=self.device)
            for rule in place.rules:
                logits = rule(logits, tokens)
        assert place.choose is not None
        place.tokens.append(int(place.choose(logits)))
        return place.tokens[-1]

    def _enlarge(self, time: int) -> None:
        """Room for so many tokens of each text; what has not been written there is zero, since nothing times nan is nan."""
        if time <= self.room:
            return
        before, kept, self.room = self.cache, self.room, min(self.context, max(2 * self.room, time))
        self.cache = self.model.new_cache(len(self.places), self.room)
        _clear(self.cache)
        for layer, old in zip(self.cache, before, strict=True):
            layer.key[:, :, :kept], layer.value[:, :, :kept] = old.key, old.value


def _clear(cache: list[KeyValueCache]) -> None:
    for layer in cache:
        layer.key.zero_()
        layer.value.zero_()


def alike(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two texts begin with in the same way."""
    return next((n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))

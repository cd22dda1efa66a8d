"""What is hidden of a text for an encoder to find again: tokens, words, names, spans; who may read whom.   D2L 14.8, LEE BERT

A unit is what is hidden together. `units` of tokens, words or names and `span_units` say to which each token belongs,
`choose_units` draws some of them, `corrupt` hides them. Every draw is by the generator that is given.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor

Masking = Literal["token", "whole-word", "entity", "span"]


def units(starts: Bool[Tensor, "batch time"], free: Bool[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
    """To which unit each token belongs, by the place of its first; -1 where nothing may be hidden.

    starts: where a token begins a unit: everywhere (Devlin et al. 2018), where a word begins (whole word masking, Cui et al.
    2019, arXiv:1906.08101), or where a name or another word begins (Sun et al. 2019, arXiv:1904.09223).   free: False for
    special tokens and padding; a unit never reaches over one.
    """
    fresh = starts | ~torch.cat([torch.zeros_like(free[:, :1]), free[:, :-1]], 1)
    place = torch.arange(free.shape[1], device=free.device).expand_as(free)
    return place.where(fresh, 0).cummax(1).values.where(free, -1)


def span_lengths(count: int, generator: Generator, p: float = 0.2, longest: int = 10) -> Int[Tensor, " count"]:
    """How many words each span has: P(n) = p (1 - p)^(n - 1) / (1 - (1 - p)^longest) for n = 1 ... longest.

    The mean of 0.2 and 10 is 3.8.   Joshi et al. 2019, arXiv:1907.10529.
    """
    chances = (1 - p) ** torch.arange(longest, dtype=torch.float64)
    return 1 + torch.multinomial(chances, count, replacement=True, generator=generator)


def span_units(
    starts: Bool[Tensor, "batch time"],
    free: Bool[Tensor, "batch time"],
    generator: Generator,
    p: float = 0.2,
    longest: int = 10,
) -> Int[Tensor, "batch time"]:
    """Texts laid out in spans of whole words, one after the other, whose lengths are drawn, see `span_lengths`.

    starts: where a word begins.   Drawn among these, a span lies anywhere with the same chance, and two never overlap.
    A span ends where its text does.
    """
    word = units(starts, free)
    begins = (word == torch.arange(word.shape[1], device=word.device)) & free
    number = begins.cumsum(1) - 1  # of the word, in its row
    ends = span_lengths(word.numel(), generator, p, longest).view_as(word).cumsum(1)
    span = torch.searchsorted(ends, number.clamp(min=0), right=True)
    before = torch.cat([torch.full_like(span[:, :1], -1), span[:, :-1]], 1)
    return units(begins & (span != before), free)


def choose_units(unit: Int[Tensor, "batch time"], share: float, generator: Generator) -> Bool[Tensor, "batch time"]:
    """Units drawn until `share` of the free tokens of a text are in one, at least one; the last may reach beyond.

    unit: see `units`.   -> True where a token is drawn
    """
    free = unit >= 0
    key = torch.rand(unit.shape, generator=generator).gather(1, unit.clamp(min=0)).masked_fill(~free, 2.0)
    before = (key[:, None] < key[:, :, None]).sum(2)  # tokens of units that were drawn earlier
    wanted = (share * free.sum(1, keepdim=True)).round().clamp(min=1)
    return free & (before < wanted)


def corrupt(
    tokens: Int[Tensor, "batch time"],
    chosen: Bool[Tensor, "batch time"],
    generator: Generator,
    *,
    mask_token: int,
    vocab_size: int,
    unit: Int[Tensor, "batch time"] | None = None,
) -> Int[Tensor, "batch time"]:
    """What is read in place of the chosen tokens: of 80 % a mask, of 10 % any token, of 10 % the token itself.

    So an encoder cannot trust a token because it is no mask.   unit: what happens to one token of a unit happens to all.
    Devlin et al. 2018, arXiv:1810.04805.
    """
    draw = torch.rand(tokens.shape, generator=generator)
    if unit is not None:
        draw = draw.gather(1, unit.clamp(min=0))
    other = torch.randint(vocab_size, tokens.shape, generator=generator)
    read = torch.where(chosen & (draw < 0.8), mask_token, tokens)
    return torch.where(chosen & (draw >= 0.8) & (draw < 0.9), other, read)


def borders(
    chosen: Bool[Tensor, "batch time"],
) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"], Int[Tensor, "batch time"]]:
    """The last place before, and the first behind, the run of chosen tokens that a token is in, and its number in it from 0.

    Places at the ends of a row are never chosen.
    """
    time = chosen.shape[1]
    place = torch.arange(time, device=chosen.device).expand_as(chosen)
    left = place.where(~chosen, 0).cummax(1).values
    right = place.where(~chosen, time - 1).flip(1).cummin(1).values.flip(1)
    return left, right, place - left - 1


Sight = Literal["both", "before", "sequence-to-sequence"]


def sight(kind: Sight, mask: Bool[Tensor, "batch time"], segment: Int[Tensor, "batch time"]) -> Bool[Tensor, "batch time time"]:
    """Who may read whom, so that one body is an encoder, a decoder, or both: [batch reader read].

    both: all read all;   before: each reads itself and what is before;   sequence-to-sequence: the first segment reads itself
    whole, the second reads the first and its own past. Padding is read by none.   Dong et al. 2019, arXiv:1905.03197.
    """
    past = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=mask.device).tril()
    if kind == "both":
        seen = torch.ones_like(past)[None]
    elif kind == "before":
        seen = past[None]
    else:
        seen = past | (segment == 0)[:, None]
    return seen & mask[:, None]


def permutation_sight(order: Int[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]) -> Bool[Tensor, "batch time time"]:
    """What whoever foretells a token may read, where hidden tokens are foretold one after the other in any order.

    order: when each hidden token's turn is, -1 of those that are not hidden: they are read by all, a hidden token by those
    whose turn is later.   [batch reader read], see `MaskedEncoder` for the two streams.   Yang et al. 2019, arXiv:1906.08237.
    """
    return ((order[:, None] < order[:, :, None]) | (order[:, None] < 0)) & mask[:, None]

"""Connectionist temporal classification: what is read from left to right by a network that is not told where symbols stand.

At each of T places a network gives every symbol a probability, and the blank, symbol 0, which says nothing. A path has one
symbol a place; its labelling is the path with repeats merged and then blanks taken out, B(a - a b b -) = a a b.

    p(y | x) = sum over all paths with B(path) = y of prod_t p_t(path_t)

torch.nn.functional.ctc_loss is - log p(y | x). Here are the labellings themselves: that of the best path, and the best
ones, whose probabilities the many paths to each share.
Graves, Fernandez, Gomez, Schmidhuber 2006, "Connectionist temporal classification".
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

Language = Callable[[Tensor, Tensor], Tensor]


def labelling(path: Int[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
    """What paths say: repeats merged, blanks taken out; behind the end stands 0."""
    said = path != 0
    said[:, 1:] &= path[:, 1:] != path[:, :-1]
    return torch.where(said, path, 0).gather(1, (~said).byte().argsort(dim=1, stable=True))


def best_path(
    logits: Float[Tensor, "batch time symbol"], mask: Bool[Tensor, "batch time"] | None = None
) -> Int[Tensor, "batch time"]:
    """The labelling of the most probable path, symbol by symbol; 0 behind the end.   mask: True where a place is real"""
    path = logits.argmax(-1)
    return labelling(path if mask is None else torch.where(mask, path, 0))


@torch.inference_mode()
def prefix_beam_search(
    logits: Float[Tensor, "batch time symbol"],
    mask: Bool[Tensor, "batch time"] | None = None,
    *,
    beam: int = 16,
    language: Language | None = None,
    weight: float = 0.5,
    bonus: float = 0.0,
) -> tuple[Int[Tensor, "batch beam time"], Float[Tensor, "batch beam"]]:
    """The most probable labellings found and the score of each, best first; behind the end of a labelling stands 0.

    score = log p(y | x) + weight log p_language(y) + bonus |y|,   log p(y | x) alone without a language model.

    A beginning y of a labelling has two probabilities, of the paths so far that end in a blank and in its last symbol l:

        b(y) = p(-) (b(y) + e(y)),   e(y) = p(l) (e(y) + b(y'))  if y' ends in l, else  p(l) (e(y) + b(y') + e(y')),

    y' being y without l; after each place the `beam` best are kept. With a beam as wide as there are beginnings the
    probabilities are exact, else they are at most too small.
    mask: True where a place is real.   language: of beginnings [row time] and their lengths [row], log p of the symbol that
    follows each, [row symbol].   bonus: for each symbol, since a language model by itself prefers short texts.
    ValueError if beam < 1.   Graves 2012, "Supervised sequence labelling", section 7.5; Hannun et al. 2014, arXiv:1408.2873.
    """
    if beam < 1:
        raise ValueError(f"beam={beam}: expected at least 1")
    chances = logits.float().log_softmax(-1) if logits.dtype != torch.float64 else logits.log_softmax(-1)
    batch, time, symbols = chances.shape
    tokens = torch.zeros(batch, beam, time, dtype=torch.long, device=chances.device)
    length = torch.zeros_like(tokens[..., 0])
    blank = chances.new_full((batch, beam), -torch.inf)  # log b; of the empty beginnings, all alike, one counts
    blank[:, 0] = 0
    label = torch.full_like(blank, -torch.inf)  # log e
    prior = torch.zeros_like(blank)  # what the score has besides log p(y | x)
    for t, chance in enumerate(chances.unbind(1)):
        total = torch.logaddexp(blank, label)
        last = tokens.gather(2, (length - 1).clamp(min=0)[..., None])[..., 0]
        ends = one_hot(last, symbols).bool()
        longer = torch.where(ends, blank[..., None], total[..., None]) + chance[:, None]  # [batch beam symbol]
        shorter = tokens.scatter(2, (length - 1).clamp(min=0)[..., None], 0)
        grows = (tokens[:, :, None] == shorter[:, None]).all(-1) & (length[:, :, None] + 1 == length[:, None])
        grows &= total[:, None].isfinite()  # what is not in the beam yet is nobody's end
        into = longer.gather(2, last[:, None].expand(-1, beam, -1)).where(grows, -torch.inf)
        stays_label = torch.logaddexp(label + chance.gather(1, last), into.amax(1))
        stays_blank = total + chance[:, :1]
        longer = longer.masked_fill((grows[..., None] & ends[:, None]).any(2), -torch.inf)  # counted just now
        longer[..., 0] = torch.logaddexp(stays_blank, stays_label)
        added = torch.zeros_like(longer)
        if language is not None:
            said = language(tokens.flatten(0, 1), length.flatten()).view_as(longer)
            added[..., 1:] = weight * said[..., 1:] + bonus
        place = (longer + prior[..., None] + added).flatten(1).topk(beam).indices
        best = longer.flatten(1).gather(1, place)
        parent, symbol = place // symbols, place % symbols
        same = symbol == 0
        after = (
            tokens.gather(1, parent[..., None].expand_as(tokens)).scatter_(2, length.gather(1, parent)[..., None],
                                                                           symbol[..., None]),
            length.gather(1, parent) + ~same,
            stays_blank.gather(1, parent).where(same, -torch.inf),
            torch.where(same, stays_label.gather(1, parent), best),
            prior.gather(1, parent) + added.flatten(1).gather(1, place),
        )  # fmt: skip
        if mask is None:
            tokens, length, blank, label, prior = after
        else:
            real, before = mask[:, t, None], (tokens, length, blank, label, prior)
            tokens, length, blank, label, prior = (
                torch.where(real[..., None] if new.ndim == 3 else real, new, old)
                for new, old in zip(after, before, strict=True)
            )
    score, order = (torch.logaddexp(blank, label) + prior).sort(1, descending=True)
    return tokens.gather(1, order[..., None].expand_as(tokens)), score

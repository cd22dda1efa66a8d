"""Which word of a sentence became which word of its translation: learned from pairs of sentences alone."""

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def ibm_model_1(
    source: Sequence[Tensor], target: Sequence[Tensor], iterations: int = 8, learned: int | None = None
) -> list[Int[Tensor, " time"]]:
    """For every word of a target the place of the source word that it comes from, for each pair of sentences.

    Every target word comes from one source word, whichever as likely before the words are seen: a_t = argmax_s p(y_t | x_s).
    Expectation-maximisation finds the table, from an even start: c_ts = p(y_t | x_s) / sum_s' p(y_t | x_s'), and p(y | x) = the
    sum of the c_ts of all places where x and y are, divided by the same for all y. All pairs of words that meet are one long
    list, so that a pass over a corpus is three sums.   source, target: tokens, a tensor a sentence.
    learned: how many of the pairs, the first, the table is found from; all if None.
    ValueError if there are not as many targets as sources, or if a sentence is empty.
    Brown, Della Pietra, Della Pietra, Mercer 1993.
    """
    if len(source) != len(target) or not source or min(map(len, [*source, *target])) < 1:
        raise ValueError(f"{len(source)} sources, {len(target)} targets: expected as many, none of them empty")
    reads, writes = (torch.tensor([len(sentence) for sentence in side]) for side in (source, target))
    # of every place of every target, one after the other: its sentence, and how many places of the source it meets
    sentence = torch.arange(len(target)).repeat_interleave(writes)
    met = reads[sentence]
    place = torch.arange(len(sentence)).repeat_interleave(met)  # of every meeting, the place of all targets
    first = (met.cumsum(0) - met).repeat_interleave(met)
    at = torch.arange(len(place)) - first  # of every meeting, the place in its source
    starts = (reads.cumsum(0) - reads)[sentence].repeat_interleave(met)
    read, written = torch.cat([*source])[starts + at], torch.cat([*target])[place]
    vocab = int(written.max()) + 1
    kinds, kind = torch.unique(read * vocab + written, return_inverse=True)
    giver = kinds // vocab
    table, tiny = torch.ones(len(kinds), dtype=torch.float64), 1e-300  # where nothing was learned, nothing is likely
    counts = (sentence < (len(source) if learned is None else learned))[place]
    for _ in range(iterations):
        likely = table[kind]
        total = torch.zeros(len(sentence), dtype=torch.float64).index_add(0, place, likely).clamp(min=tiny)
        table = torch.zeros_like(table).index_add(0, kind, likely / total[place] * counts)
        table = table / torch.zeros(int(giver.max()) + 1, dtype=torch.float64).index_add(0, giver, table).clamp(min=tiny)[giver]
    likely = table[kind]
    best = torch.zeros(len(sentence), dtype=torch.float64).scatter_reduce(0, place, likely, "amax")
    chosen = torch.where(likely == best[place], at, int(reads.max()))  # of equals the first
    found = torch.full((len(sentence),), int(reads.max())).scatter_reduce(0, place, chosen, "amin")
    return list(found.split(writes.tolist()))


def alignment_error(found: Collection[tuple[int, int]], sure: Collection[tuple[int, int]], possible: Collection = ()) -> float:
    """How much is wrong of the links between words that were found: 0 nothing, 1 all.

    1 - (|found & sure| + |found & (sure | possible)|) / (|found| + |sure|);   a link: the places of two words.
    sure: links that must be there; possible: further ones that may.   ValueError if nothing was found and nothing is sure.
    Och, Ney 2003, "A systematic comparison of various statistical alignment models".
    """
    links, wanted = {*found}, {*sure}
    if not links | wanted:
        raise ValueError("found, sure: expected a link in either")
    return 1 - (len(links & wanted) + len(links & (wanted | {*possible}))) / (len(links) + len(wanted))


def fertilities(aligned: Int[Tensor, "batch time"], mask: Bool[Tensor, "batch time"], read: int) -> Int[Tensor, "batch {read}"]:
    """How many words of the target come from each place of the source; they sum to the length of the target."""
    counts = torch.zeros(len(aligned), read, dtype=torch.long, device=aligned.device)
    return counts.scatter_add(1, aligned.masked_fill(~mask, 0), mask.long())

"""A translation written in a few passes over all of its places, instead of a place after the other.

words: (tokens, mask) [rows time] -> logits [rows time vocab] of the word at each place, as the model reads the others; a mask
is True where a place is real. A row is a target; those of a source stand side by side.   LEE NAT
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from thalweg.layers.rows import compact, interleaved, repeated
from thalweg.vocabulary import EncoderDecoder

Reader = Callable[[Tensor, Tensor], Tensor]


def ignore_after_end(tokens: Int[Tensor, "rows time"], eos: int, pad: int) -> Int[Tensor, "rows time"]:
    """The tokens before the first <eos>; what was written from there on is padding: a target as long as it says itself."""
    return tokens.masked_fill((tokens == eos).cumsum(1) > 0, pad)


def mask_predict(
    words: Reader, mask: Bool[Tensor, "rows time"], iterations: int, *, unwritten: int, pad: int
) -> tuple[Int[Tensor, "rows time"], Float[Tensor, "rows time"]]:
    """Writes all words, then hides the least sure and writes them again: tokens, and the log p that each was written with.

    Before pass i = 0, 1, ... floor(N (iterations - i) / iterations) of the N words of a row are hidden, the least probable; a
    word that stays keeps the probability that it was written with. One pass alone writes all at once.
    unwritten: token of a hidden place.   ValueError if iterations < 1.   Ghazvininejad et al. 2019, arXiv:1904.09324.
    """
    if iterations < 1:
        raise ValueError(f"iterations={iterations}: expected at least 1")
    length = mask.sum(1, keepdim=True)
    tokens = torch.full_like(mask, pad, dtype=torch.long)
    score = torch.zeros_like(mask, dtype=torch.float)
    for left in range(iterations, 0, -1):
        place = score.masked_fill(~mask, torch.inf).argsort(1).argsort(1)  # in the order of how sure it is
        hidden = mask & (place < length * left // iterations)
        best, word = words(tokens.masked_fill(hidden, unwritten), mask).float().log_softmax(-1).max(-1)
        tokens, score = torch.where(hidden, word, tokens), torch.where(hidden, best, score)
    return tokens, score


def refine(
    words: Reader, draft: Int[Tensor, "rows time"], mask: Bool[Tensor, "rows time"], iterations: int, *, pad: int
) -> tuple[Int[Tensor, "rows time"], Float[Tensor, "rows time"]]:
    """Writes every word anew, `iterations` times, from the draft before: tokens, and the log p of each in the last pass.

    ValueError if iterations < 1.   Lee, Mansimov, Cho 2018, arXiv:1802.06901.
    """
    if iterations < 1:
        raise ValueError(f"iterations={iterations}: expected at least 1")
    for _ in range(iterations):
        score, draft = words(draft, mask).float().log_softmax(-1).max(-1)
        draft = draft.masked_fill(~mask, pad)
    return draft, score.masked_fill(~mask, 0)


def rescore(
    teacher: EncoderDecoder,
    source_tokens: Int[Tensor, "batch read"],
    source_mask: Bool[Tensor, "batch read"],
    targets: Int[Tensor, "batch candidate time"],
    *,
    bos: int,
    eos: int,
    pad: int,
    length_penalty: float = 0.75,
) -> Float[Tensor, "batch candidate"]:
    """What a model that writes a word after the other says of finished targets, in one pass: the scores of `beam_search`.

    score = sum_t log p(y_t | y_1 ... y_{t-1}, x) / T^length_penalty, y_T = <eos>.   targets: without <bos> and <eos>.
    The judge of noisy parallel decoding (Gu et al. 2017, arXiv:1711.02281): many drafts are cheap, the best of them is good.
    """
    rows = targets.flatten(0, 1)
    ended = torch.cat([rows, torch.full_like(rows[:, :1], pad)], 1)
    ended = ended.scatter(1, (rows != pad).sum(1, keepdim=True), eos)
    read = torch.cat([torch.full_like(rows[:, :1], bos), ended[:, :-1]], 1)
    logits: Any = teacher.decode(read, teacher.encode(source_tokens, source_mask))
    real = ended != pad
    said = logits.float().log_softmax(-1).gather(2, ended[..., None]).squeeze(2).masked_fill(~real, 0).sum(1)
    return (said / real.sum(1) ** length_penalty).view(targets.shape[:2])


def collapse(path: Int[Tensor, "rows time"], mask: Bool[Tensor, "rows time"], *, blank: int, pad: int) -> Int[Tensor, "rows _"]:
    """The words that a path of CTC stands for: of equal neighbours one, then no blanks.   a a _ a b b -> a a b"""
    again = torch.zeros_like(mask)
    again[:, 1:] = path[:, 1:] == path[:, :-1]
    return compact(path, mask & ~again & (path != blank), pad)


def insert(
    slots: Reader, rows: int, iterations: int, *, longest: int, eos: int, pad: int, device: torch.device | None = None
) -> tuple[Int[Tensor, "rows _"], Int[Tensor, " rows"]]:
    """Writes targets from nothing: every pass puts a word into each gap where one is missing. Targets, and passes of each.

    slots: (tokens, mask) [rows time] -> logits [rows time+1 vocab] of what belongs before each token and behind the last, <eos>
    where nothing does. Each pass at most doubles a target and adds one: from the middle of every gap on, N words take
    log2(N + 1) passes, rounded up. A row that would grow above `longest` words stays as it is.
    Stern, Chan, Kiros, Uszkoreit 2019, arXiv:1902.03249.
    """
    tokens = torch.empty(rows, 0, dtype=torch.long, device=device)
    passes = torch.zeros(rows, dtype=torch.long, device=device)
    for _ in range(iterations):
        mask = tokens != pad
        length = mask.sum(1, keepdim=True)
        words = slots(tokens, mask).argmax(-1)
        place = torch.arange(words.shape[1], device=device)
        words = words.masked_fill((place > length) | (words == eos), pad)
        added = (words != pad).sum(1, keepdim=True)
        words = words.masked_fill(length + added > longest, pad)
        growing = (words != pad).any(1)
        if not growing.any():
            break
        passes += growing
        merged = interleaved(words, tokens)
        tokens = compact(merged, merged != pad, pad)
    return tokens, passes


def edit(
    wrong: Reader,
    missing: Reader,
    words: Reader,
    draft: Int[Tensor, "rows time"],
    iterations: int,
    *,
    longest: int,
    unwritten: int,
    pad: int,
) -> tuple[Int[Tensor, "rows _"], Int[Tensor, " rows"]]:
    """Takes words out of a draft, opens gaps and fills them, until nothing changes any more. Targets, and rounds of each.

    wrong: (tokens, mask) [rows time] -> logits [rows time] that a word goes;   missing: -> logits [rows time+1 count] of how
    many come before each word and behind the last;   words: -> logits [rows time vocab], read where `unwritten` stands.
    No gaps are opened in a row that would grow above `longest` words.   Gu, Wang, Zhao 2019, arXiv:1905.11006.
    """
    tokens, rounds = draft, torch.zeros(len(draft), dtype=torch.long, device=draft.device)
    for _ in range(iterations):
        before, mask = tokens, tokens != pad
        if tokens.shape[1]:
            mask = mask & (wrong(tokens, mask) <= 0)
            tokens = compact(tokens, mask, pad)
            mask = tokens != pad
        length = mask.sum(1, keepdim=True)
        count = missing(tokens, mask).argmax(-1)
        count = count.masked_fill(torch.arange(count.shape[1], device=count.device) > length, 0)
        count = count.masked_fill(length + count.sum(1, keepdim=True) > longest, 0)
        opened = interleaved(torch.full_like(count, unwritten), tokens)
        tokens, mask = repeated(opened, interleaved(count, mask.long()), pad)
        if not tokens.shape[1]:
            break
        tokens = torch.where(tokens == unwritten, words(tokens, mask).argmax(-1), tokens)
        time = max(before.shape[1], tokens.shape[1])
        changed = (torch.nn.functional.pad(before, (0, time - before.shape[1]), value=pad)
                   != torch.nn.functional.pad(tokens, (0, time - tokens.shape[1]), value=pad)).any(1)  # fmt: skip
        rounds += changed
        if not changed.any():
            break
    return tokens, rounds

"""The most probable target of a source, a token at a time: greedily, or with the best few beginnings side by side.   D2L 9.8"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils._pytree import tree_map

from thalweg.vocabulary import EncoderDecoder


class Beginnings(NamedTuple):
    """The best beginnings of targets: of which source [batch], tokens [batch beam time], log p, length, whether it ended."""

    source: Tensor
    tokens: Tensor
    total: Tensor
    length: Tensor
    ended: Tensor


@torch.inference_mode()
def beam_search(
    model: EncoderDecoder,
    source_tokens: Int[Tensor, "batch read"],
    source_mask: Bool[Tensor, "batch read"],
    *,
    bos: int,
    eos: int,
    pad: int,
    beam: int = 4,
    length: int = 50,
    length_penalty: float = 0.75,
    forbidden: Sequence[int] = (),
) -> tuple[Int[Tensor, "batch beam time"], Float[Tensor, "batch beam"]]:
    """The best targets found and their scores, best first.   score = sum_t log p(y_t | y_1 ... y_{t-1}, x) / T^length_penalty

    At every step each of the `beam` best beginnings is continued by every token, and the `beam` best of all these are kept;
    one that has ended competes with the others as it is. A beam of 1 is greedy search; one as wide as there are targets is
    exhaustive search, of which nothing is better and nothing slower. Sources all of whose targets have ended are put aside.
    length: tokens at most, <eos> among them; after it stands padding.   length_penalty: 0 prefers short targets, 1 does not.
    forbidden: tokens that are never written.
    ValueError if beam or length is below 1.   The length penalty is that of D2L 9.8; GNMT's (arXiv:1609.08144) is similar.
    """
    if beam < 1 or length < 1:
        raise ValueError(f"beam={beam}, length={length}: expected at least 1 each")
    batch, device = len(source_tokens), source_tokens.device
    memory = model.encode(source_tokens, source_mask)
    cache = model.new_cache(memory, beam, length)
    tokens = torch.full((batch, beam, 1 + length), pad, device=device)
    tokens[..., 0] = bos
    total = torch.full((batch, beam), -torch.inf, device=device)
    total[:, 0] = 0  # of the beginnings, all alike, one counts
    never = torch.tensor(forbidden, dtype=torch.long, device=device)
    found, aside = Beginnings(torch.arange(batch, device=device), tokens, total, torch.zeros_like(total), total.isinf()), []
    for place in range(1, length + 1):
        logits: Any = model.decode(found.tokens[..., place - 1].view(-1, 1), memory, cache)
        step = logits[:, -1].float().log_softmax(-1).index_fill_(-1, never, -torch.inf)
        parent, found = _continued(found, step, place, eos, pad, length_penalty)
        rows = parent + torch.arange(0, parent.numel(), beam, device=device)[:, None]
        finished = found.ended.all(1)
        count = int(finished.sum())
        if count == len(finished):
            break
        if 4 * count >= len(finished):  # not one by one: what is kept of the others is copied then
            aside.append(tree_map(lambda held, those=finished: held[those], found))
            found, rows, memory = tree_map(lambda held, those=~finished: held[those], (found, rows, memory))
        if beam > 1 or len(rows) < len(finished):
            cache.reorder(rows.flatten())
    source, tokens, total, lasted, _ = map(torch.cat, zip(*aside, found, strict=True))
    score, order = (total / lasted.clamp(min=1) ** length_penalty).sort(1, descending=True)
    tokens, back = tokens.gather(1, order[..., None].expand_as(tokens)), source.argsort()
    return tokens[back, :, 1 : place + 1], score[back]


def _continued(
    found: Beginnings, step: Tensor, place: int, eos: int, pad: int, length_penalty: float
) -> tuple[Int[Tensor, "batch beam"], Beginnings]:
    """The best beginnings that are a token longer, and which each of them is a continuation of.   step: log p, [rows vocab]"""
    source, tokens, total, lasted, ended = found
    beam = ended.shape[1]
    step, word = step.topk(min(beam, step.shape[-1]))  # the best of all are among the best of each
    step, word = step.unflatten(0, ended.shape), word.unflatten(0, ended.shape)
    step.masked_fill_(ended[..., None], -torch.inf)[..., 0].masked_fill_(ended, 0)  # what has ended goes on in one way,
    word.masked_fill_(ended[..., None], pad)  # with padding
    candidates, lasted = total[..., None] + step, lasted + ~ended
    score = candidates / lasted[..., None].clamp(min=1) ** length_penalty
    chosen = score.flatten(1).topk(beam).indices
    parent, word = chosen // step.shape[-1], word.flatten(1).gather(1, chosen)
    tokens = tokens.gather(1, parent[..., None].expand_as(tokens))
    tokens[..., place] = word
    total, lasted, ended = candidates.flatten(1).gather(1, chosen), lasted.gather(1, parent), ended.gather(1, parent)
    return parent, Beginnings(source, tokens, total, lasted, ended | (word == eos))


@torch.no_grad()
def sample_targets(
    model: EncoderDecoder,
    source_tokens: Int[Tensor, "batch read"],
    source_mask: Bool[Tensor, "batch read"],
    *,
    bos: int,
    eos: int,
    pad: int,
    length: int = 50,
    temperature: float = 1.0,
) -> Int[Tensor, "batch time"]:
    """A target of each source, drawn token by token from softmax(logits / temperature); padding after <eos>.

    length: tokens at most.   ValueError for a temperature that is not above 0
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature}: expected a number above 0")
    memory = model.encode(source_tokens, source_mask)
    cache = model.new_cache(memory, 1, length)
    last = torch.full((len(source_tokens), 1), bos, device=source_tokens.device)
    ended, drawn = torch.zeros_like(last, dtype=torch.bool), list[Tensor]()
    for _ in range(length):
        logits = model.decode(last, memory, cache)[:, -1].float() / temperature
        last = logits.softmax(-1).multinomial(1).masked_fill(ended, pad)
        drawn.append(last)
        ended = ended | (last == eos)
        if ended.all():
            break
    return torch.cat(drawn, 1)

"""The most probable target of a source, a token at a time: greedily, or with the best few beginnings side by side.   D2L 9.8"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from thalweg.vocabulary import EncoderDecoder


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
) -> tuple[Int[Tensor, "batch beam time"], Float[Tensor, "batch beam"]]:
    """The best targets found and their scores, best first.   score = sum_t log p(y_t | y_1 ... y_{t-1}, x) / T^length_penalty

    At every step each of the `beam` best beginnings is continued by every token, and the `beam` best of all these are kept;
    one that has ended competes with the others as it is. A beam of 1 is greedy search; one as wide as there are targets is
    exhaustive search, of which nothing is better and nothing slower.
    length: tokens at most, <eos> among them; after it stands padding.   length_penalty: 0 prefers short targets, 1 does not.
    ValueError if beam or length is below 1.   The length penalty is that of D2L 9.8; GNMT's (arXiv:1609.08144) is similar.
    """
    if beam < 1 or length < 1:
        raise ValueError(f"beam={beam}, length={length}: expected at least 1 each")
    batch, device = len(source_tokens), source_tokens.device
    memory = model.encode(source_tokens, source_mask)
    cache = model.new_cache(memory, beam, length)
    tokens = torch.full((batch, beam, 1), bos, device=device)
    total = torch.full((batch, beam), -torch.inf, device=device)  # log p; of the beginnings, all alike, one counts
    total[:, 0] = 0
    lasted = torch.zeros(batch, beam, device=device)
    ended = total.isinf()
    first = torch.arange(batch, device=device)[:, None] * beam
    for _ in range(length):
        logits: Any = model.decode(tokens[:, :, -1:].flatten(0, 1), memory, cache)
        step = logits[:, -1].float().log_softmax(-1).unflatten(0, (batch, beam))
        only = torch.full_like(step[0, 0], -torch.inf)
        only[pad] = 0  # what has ended goes on with padding alone
        candidates = total[..., None] + torch.where(ended[..., None], only, step)
        lasted = lasted + ~ended
        score = candidates / lasted[..., None].clamp(min=1) ** length_penalty
        chosen = score.flatten(1).topk(beam).indices
        parent, word = chosen // step.shape[-1], chosen % step.shape[-1]
        total = candidates.flatten(1).gather(1, chosen)
        lasted, ended = lasted.gather(1, parent), ended.gather(1, parent) | (word == eos)
        tokens = torch.cat([tokens.gather(1, parent[..., None].expand_as(tokens)), word[..., None]], -1)
        if beam > 1:
            cache[:] = [held.index_select(0, (first + parent).flatten()) for held in cache]
        if ended.all():
            break
    score, order = (total / lasted.clamp(min=1) ** length_penalty).sort(1, descending=True)
    return tokens.gather(1, order[..., None].expand_as(tokens))[..., 1:], score

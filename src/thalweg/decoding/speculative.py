"""Speculative decoding: a small model proposes tokens, a large one judges several at once; what is written is the large one's.

Of the draft's tokens x_i ~ q_i each is kept with probability min(1, p_i(x_i) / q_i(x_i)), until one is not; in its place comes
a token from max(0, p_i - q_i), scaled. So every token has the distribution p of the large model, which reads once for many.
Leviathan, Kalman, Matias 2022, arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from thalweg.decoding.sampling import cut_to
from thalweg.layers.attention import KeyValueCache
from thalweg.vocabulary import LanguageModel


class Written(NamedTuple):
    """tokens: the prompt and what was added.   accepted: share of proposals that were kept.   passes: of the large model"""

    tokens: Int[Tensor, " time"]
    accepted: float
    passes: int


def judged(
    p: Float[Tensor, "judged vocab"],
    q: Float[Tensor, "proposal vocab"],
    proposed: Int[Tensor, " proposal"],
    generator: Generator | None = None,
) -> Int[Tensor, " _"]:
    """The proposals that are kept, and one token more.   p, q: of the large model, a row more, and of the small one"""
    place = torch.arange(len(proposed), device=q.device)
    chance = torch.rand(len(proposed), generator=generator, device=q.device)
    refused = (chance * q[place, proposed] >= p[place, proposed]).nonzero()
    kept = int(refused[0]) if len(refused) else len(proposed)
    left = (p[kept] - q[kept]).clamp(min=0) if kept < len(proposed) else p[kept]
    wanted = left if left.any() else p[kept]  # nothing is left where the two differ by rounding alone
    return torch.cat([proposed[:kept], torch.multinomial(wanted, 1, generator=generator)])


@torch.inference_mode()
def speculative(
    model: LanguageModel,
    draft: LanguageModel,
    prompt: Int[Tensor, " time"],
    length: int,
    *,
    proposals: int = 4,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    generator: Generator | None = None,
) -> Written:
    """The prompt with `length` tokens added, as `model` would write it, in fewer of its passes.

    draft: a faster model of the same tokens.   proposals: tokens that it writes before they are judged.   The rest: see
    `sampling`.   Both must be able to read prompt and length, and keep a `KeyValueCache` a layer, which can forget.
    ValueError for an empty prompt, or length or proposals below 1.   TypeError for another cache.
    """
    if len(prompt) < 1 or length < 1 or proposals < 1:
        raise ValueError(f"prompt of {len(prompt)} tokens, length={length}, proposals={proposals}: expected at least 1 each")
    cut = cut_to(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    end, text = len(prompt) + length, prompt
    caches = [reader.new_cache(1, end) for reader in (model, draft)]
    if not all(isinstance(layer, KeyValueCache) for cache in caches for layer in cache):
        raise TypeError(f"cache: {type(caches[0][0]).__name__}, {type(caches[1][0]).__name__}: expected KeyValueCache")

    def expected(reader: LanguageModel, cache: list[KeyValueCache], tokens: Tensor, places: int) -> Tensor:
        logits = reader(tokens[None, cache[0].length :], cache)  # type: ignore[operator]
        return cut(logits[0, -places:]).softmax(-1)

    written = kept = passes = 0
    while len(text) < end:
        count, guess, q = min(proposals, end - len(text) - 1), text, []
        for _ in range(count):
            q.append(expected(draft, caches[1], guess, 1))
            guess = torch.cat([guess, torch.multinomial(q[-1][0], 1, generator=generator)])
        p = expected(model, caches[0], guess, count + 1)
        fresh = judged(p, torch.cat([p[:0], *q]), guess[len(text) :], generator)
        text = torch.cat([text, fresh])
        written, kept, passes = written + count, kept + len(fresh) - 1, passes + 1
        for layer in (*caches[0], *caches[1]):
            layer.length = min(layer.length, len(text) - 1)  # what was refused is forgotten
    return Written(text, kept / max(1, written), passes)

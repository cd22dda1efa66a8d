"""Text from a language model, a token at a time: the most probable one, or one drawn from its distribution.

p(x_1 ... x_T) = prod_t p(x_t | x_1 ... x_{t-1}): what was drawn is read before the next is drawn.   LBDL 3.2, D2L 9.8
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from thalweg.vocabulary import LanguageModel

Choose = Callable[[Tensor], Tensor]


def keep_top_k(logits: Float[Tensor, "batch vocab"], top_k: int) -> Float[Tensor, "batch vocab"]:
    """Leaves the top_k largest logits (all that equal the last of them) and makes the others -inf.   arXiv:1805.04833"""
    smallest = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
    return logits.masked_fill(logits < smallest, -torch.inf)


def keep_nucleus(logits: Float[Tensor, "batch vocab"], top_p: float) -> Float[Tensor, "batch vocab"]:
    """Leaves the fewest most probable tokens whose probabilities sum to at least top_p and makes the others -inf.

    Holtzman et al. 2019, arXiv:1904.09751.
    """
    probability, order = logits.softmax(-1).sort(-1, descending=True)
    before = probability.cumsum(-1) - probability  # of all that are more probable
    dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= top_p)
    return logits.masked_fill(dropped, -torch.inf)


def greedy(logits: Float[Tensor, "batch vocab"]) -> Int[Tensor, " batch"]:
    """The most probable token, the first of equals.   D2L 9.8"""
    return logits.argmax(-1)


def sampling(
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: Generator | None = None,
) -> Choose:
    """Draws tokens from softmax(logits / temperature), cut to the top_k most probable, then to the nucleus top_p.

    temperature: 1 is the model's own distribution, less is tamer, more is wilder, 0 is greedy.
    generator: on the device of the logits.   ValueError if temperature < 0, top_k < 1 or top_p is not in (0, 1].
    """
    if temperature < 0:
        raise ValueError(f"temperature={temperature}: expected at least 0")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k}: expected at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p}: expected a number in (0, 1]")
    if temperature == 0:
        return greedy

    def draw(logits: Tensor) -> Tensor:
        logits = logits.float() / temperature
        if top_k is not None:
            logits = keep_top_k(logits, top_k)
        if top_p is not None:
            logits = keep_nucleus(logits, top_p)
        return torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)

    return draw


def generate(
    model: LanguageModel, prompts: Sequence[Int[Tensor, " _"]], choose: Choose = greedy, *, context: int
) -> Iterator[Int[Tensor, " batch"]]:
    """Yields, without end, the next token of every text.

    A prompt longer than the shortest yields its own tokens until it is used up, so that all texts are read together.
    context: tokens that the model reads at most. When they are full, it goes on from the last half of them, read anew.
    ValueError if there is no prompt, or an empty one, or context < 2.
    """
    if not prompts or min(map(len, prompts)) < 1 or context < 2:
        raise ValueError(f"prompts of {[len(prompt) for prompt in prompts]} tokens, context={context}: expected texts of at "
                         "least one token, and a context of at least 2")  # fmt: skip
    return _generate(model, prompts, choose, context)


@torch.inference_mode()
def _generate(model: LanguageModel, prompts: Sequence[Tensor], choose: Choose, context: int) -> Iterator[Tensor]:
    place = min(map(len, prompts))
    read = torch.stack([prompt[:place] for prompt in prompts])[:, -context:]  # [batch time]
    unread, cache = read, model.new_cache(len(prompts), context)
    while True:
        chosen = choose(model(unread, cache)[:, -1])  # type: ignore[operator]
        for number, prompt in enumerate(prompts):
            if place < len(prompt):
                chosen[number] = prompt[place]
        yield chosen
        place, unread = place + 1, chosen[:, None]
        read = torch.cat([read, unread], 1)
        if read.shape[1] > context:
            unread = read = read[:, -(context // 2) :]
            cache = model.new_cache(len(prompts), context)


def complete(
    model: LanguageModel, prompts: Sequence[Int[Tensor, " _"]], length: int, choose: Choose = greedy, *, context: int
) -> list[Int[Tensor, " _"]]:
    """The prompts, each with `length` tokens added; see `generate`.   ValueError if length < 1."""
    if length < 1:
        raise ValueError(f"length={length}: expected at least 1")
    tokens, shortest = generate(model, prompts, choose, context=context), min(map(len, prompts))
    added = torch.stack([*islice(tokens, max(map(len, prompts)) - shortest + length)], 1)
    return [torch.cat([prompt[:shortest], row])[: len(prompt) + length] for prompt, row in zip(prompts, added, strict=True)]

"""Text from a language model, a token at a time: the most probable one, or one drawn from its distribution.

p(x_1 ... x_T) = prod_t p(x_t | x_1 ... x_{t-1}): what was drawn is read before the next is drawn.   LBDL 3.2, D2L 9.8
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from thalweg.vocabulary import LanguageModel

Choose = Callable[[Tensor], Tensor]  # logits [batch vocab] -> the next token of each text [batch]
Rule = Callable[[Tensor, Tensor], Tensor]  # logits, and the tokens read [batch time] -> logits


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


def keep_min_p(logits: Float[Tensor, "batch vocab"], min_p: float) -> Float[Tensor, "batch vocab"]:
    """Leaves tokens at least min_p times as probable as the most probable one: many where much may follow, few where little.

    Nguyen et al. 2024, arXiv:2407.01082.
    """
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(min_p), -torch.inf)


def repetition_penalty(penalty: float) -> Rule:
    """A rule that makes what was read less probable: its logits z become z / penalty above 0, z penalty below.

    1 changes nothing, 1.2 is usual.   ValueError if penalty <= 0.   Keskar et al. 2019, arXiv:1909.05858.
    """
    if penalty <= 0:
        raise ValueError(f"penalty={penalty}: expected a number above 0")

    def rule(logits: Tensor, tokens: Tensor) -> Tensor:
        said = logits.gather(1, tokens)
        return logits.scatter(1, tokens, torch.where(said > 0, said / penalty, said * penalty))

    return rule


def constrained(allowed: Callable[[list[int]], Collection[int]]) -> Rule:
    """A rule that leaves only tokens that may follow those read, as a grammar or a list of answers says.

    allowed: the tokens of a text -> those that may come next.   ValueError where that is none.
    """

    def rule(logits: Tensor, tokens: Tensor) -> Tensor:
        kept = torch.full_like(logits, -torch.inf)
        for row, text in enumerate(tokens.tolist()):
            following = torch.tensor(sorted(allowed(text)), dtype=torch.long, device=logits.device)
            if not len(following):
                raise ValueError(f"allowed: nothing may follow the tokens {text[-8:]}, expected one at least")
            kept[row, following] = logits[row, following]
        return kept

    return rule


def one_of(answers: Sequence[Sequence[int]], start: int, end: int) -> Rule:
    """A rule that leaves texts whose tokens from place `start` on are one of the answers, and then `end` again and again.

    start: the length of each prompt.   ValueError if there is no answer.
    """
    if not answers:
        raise ValueError("answers: none, expected one at least")
    whole = [[*answer, end] for answer in answers]

    def allowed(text: list[int]) -> set[int]:
        said = text[start:]
        return {answer[len(said)] for answer in whole if len(answer) > len(said) and answer[: len(said)] == said} or {end}

    return constrained(allowed)


def greedy(logits: Float[Tensor, "batch vocab"]) -> Int[Tensor, " batch"]:
    """The most probable token, the first of equals.   D2L 9.8"""
    return logits.argmax(-1)


def sampling(
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    generator: Generator | None = None,
) -> Choose:
    """Draws tokens from softmax(logits / temperature), cut to the top_k most probable, the nucleus top_p, and by min_p.

    temperature: 1 is the model's own distribution, less is tamer, more is wilder, 0 is greedy.
    generator: on the device of the logits.   ValueError if temperature < 0, top_k < 1, or top_p or min_p is not in (0, 1].
    """
    cut = cut_to(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    if temperature == 0:
        return greedy
    return lambda logits: torch.multinomial(cut(logits).softmax(-1), 1, generator=generator).squeeze(1)


def cut_to(
    *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None, min_p: float | None = None
) -> Callable[[Tensor], Tensor]:
    """logits -> the logits of the distribution that `sampling` draws from; at temperature 0 all but the first largest -inf."""
    if temperature < 0:
        raise ValueError(f"temperature={temperature}: expected at least 0")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k}: expected at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p}: expected a number in (0, 1]")
    if min_p is not None and not 0 < min_p <= 1:
        raise ValueError(f"min_p={min_p}: expected a number in (0, 1]")

    def cut(logits: Tensor) -> Tensor:
        if temperature == 0:
            return torch.full_like(logits, -torch.inf).scatter_(-1, greedy(logits)[..., None], 0.0)
        logits = logits.float()
        logits = (logits - logits.amax(-1, keepdim=True)) / temperature  # however small: the largest stays 0
        if top_k is not None:
            logits = keep_top_k(logits, top_k)
        if top_p is not None:
            logits = keep_nucleus(logits, top_p)
        return logits if min_p is None else keep_min_p(logits, min_p)

    return cut


def generate(
    model: LanguageModel,
    prompts: Sequence[Int[Tensor, " _"]],
    choose: Choose = greedy,
    *,
    context: int,
    rules: Sequence[Rule] = (),
) -> Iterator[Int[Tensor, " batch"]]:
    """Yields, without end, the next token of every text.

    A prompt longer than the shortest yields its own tokens until it is used up, so that all texts are read together.
    context: tokens that the model reads at most. When they are full, it goes on from the last half of them, read anew.
    rules: the logits that one after the other makes of the model's are what is chosen from, see `repetition_penalty`,
    `constrained` and `one_of`.
    ValueError if there is no prompt, or an empty one, or context < 2.
    """
    if not prompts or min(map(len, prompts)) < 1 or context < 2:
        raise ValueError(f"prompts of {[len(prompt) for prompt in prompts]} tokens, context={context}: expected texts of at "
                         "least one token, and a context of at least 2")  # fmt: skip
    return _generate(model, prompts, choose, context, rules)


@torch.inference_mode()
def _generate(
    model: LanguageModel, prompts: Sequence[Tensor], choose: Choose, context: int, rules: Sequence[Rule]
) -> Iterator[Tensor]:
    place = min(map(len, prompts))
    text = torch.stack([prompt[:place] for prompt in prompts])  # [batch time]
    unread, cache = text[:, -context:], model.new_cache(len(prompts), context)
    held = unread.shape[1]  # places in the cache, once the unread are read
    while True:
        logits = model(unread, cache)[:, -1]  # type: ignore[operator]
        own = torch.tensor([len(prompt) <= place for prompt in prompts], device=logits.device)  # who chooses by themselves
        for rule in rules:
            logits[own] = rule(logits[own], text[own])
        chosen = choose(logits)
        for number, prompt in enumerate(prompts):
            if place < len(prompt):
                chosen[number] = prompt[place]
        yield chosen
        place, unread, held = place + 1, chosen[:, None], held + 1
        text = torch.cat([text, unread], 1)
        if held > context:
            unread, held = text[:, -(context // 2) :], context // 2
            cache = model.new_cache(len(prompts), context)


def complete(
    model: LanguageModel,
    prompts: Sequence[Int[Tensor, " _"]],
    length: int,
    choose: Choose = greedy,
    *,
    context: int,
    rules: Sequence[Rule] = (),
) -> list[Int[Tensor, " _"]]:
    """The prompts, each with `length` tokens added; see `generate`.   ValueError if length < 1."""
    if length < 1:
        raise ValueError(f"length={length}: expected at least 1")
    tokens = generate(model, prompts, choose, context=context, rules=rules)
    shortest = min(map(len, prompts))
    added = torch.stack([*islice(tokens, max(map(len, prompts)) - shortest + length)], 1)
    return [torch.cat([prompt[:shortest], row])[: len(prompt) + length] for prompt, row in zip(prompts, added, strict=True)]

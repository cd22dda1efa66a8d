"""How probable a language model finds an answer to a prompt: what it knows, asked without any training.   LBDL 7.1"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from thalweg.decoding.continuous import alike
from thalweg.layers.attention import KeyValueCache
from thalweg.vocabulary import LanguageModel


@torch.inference_mode()
def log_likelihoods(model: LanguageModel, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> Float[Tensor, " answer"]:
    """log p(answer | prompt) = sum_t log p(y_t | prompt, y_1 ... y_{t-1}) of each answer, in nats.

    The prompt is read once, and the answers go on from there side by side.   prompt, answers: tokens, at least one each.
    ValueError for an empty one; TypeError if the model keeps no `KeyValueCache` a layer.
    """
    if not len(prompt) or not answers or not min(map(len, answers)):
        raise ValueError(f"prompt, answers: {len(prompt)} and {[*map(len, answers)]} tokens, expected at least one each")
    longest = max(map(len, answers))
    cache: Any = model.new_cache(1, len(prompt) - 1 + longest)
    if not isinstance(cache, list) or not all(isinstance(layer, KeyValueCache) for layer in cache):
        raise TypeError(f"model: {type(model).__name__} keeps no KeyValueCache a layer, so answers cannot share a prompt")
    device = cache[0].key.device
    if len(prompt) > 1:
        reads: Any = getattr(model, "features", model)  # without the logits, where the model has a way
        reads(torch.tensor([prompt[:-1]], device=device), cache)
    for layer in cache:
        layer.keep(torch.zeros(len(answers), dtype=torch.long, device=device))
    padded = torch.tensor([[*answer, *[0] * (longest - len(answer))] for answer in answers], device=device)
    read = torch.cat([torch.full_like(padded[:, :1], prompt[-1]), padded[:, :-1]], 1)
    logits = model(read, cache)  # type: ignore[operator]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    said = logits.log_softmax(-1).gather(2, padded[..., None])[..., 0]
    real = torch.arange(longest, device=device) < torch.tensor([*map(len, answers)], device=device)[:, None]
    return said.where(real, 0).sum(1)


class Choice(NamedTuple):
    """log p of each answer, and its number of tokens."""

    score: Float[Tensor, " answer"]
    length: list[int]

    def right(self, place: int, per_token: bool = False) -> bool:
        """Whether the answer at this place is more probable than every other; what is as probable is not."""
        score = self.score / torch.tensor(self.length, device=self.score.device) if per_token else self.score
        return bool((score[place] > torch.cat([score[:place], score[place + 1 :]])).all())


def choose(
    model: LanguageModel, encode: Callable[[str], Sequence[int]], prompt: str, texts: Sequence[str], context: int
) -> Choice:
    """How probable each of some texts is, which begin with the prompt, given the prompt.

    encode: a text to its tokens. What is given is the tokens that the prompt and all the texts begin with, since the last of a
    prompt's may be others before an answer.   context: tokens that the model reads at most.
    ValueError if a text is longer, or has no token that the prompt has not.
    """
    whole = [list(encode(text)) for text in texts]
    if (longest := max(map(len, whole))) - 1 > context:
        raise ValueError(f"prompt: {longest} tokens with an answer, expected at most {context + 1} for context={context}")
    given = min(alike(list(encode(prompt)), tokens) for tokens in whole)
    given = min(given, *(len(tokens) - 1 for tokens in whole))
    if given < 1:
        raise ValueError(f"prompt: {prompt!r:.60} and its answers {texts!r:.200} have no token in common")
    answers = [tokens[given:] for tokens in whole]
    return Choice(log_likelihoods(model, whole[0][:given], answers), [*map(len, answers)])

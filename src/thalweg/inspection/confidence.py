"""How sure a model is: its answers when dropout stays on, and how far they differ.   LBDL 4.5"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


@contextmanager
def dropping(model: nn.Module) -> Iterator[None]:
    """Inside, all of the model is in evaluation mode but its dropout.   ValueError if it has none that drops anything."""
    modes = {module: module.training for module in model.modules()}
    layers = [module for module in modes if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0]
    if not layers:
        raise ValueError(f"model: {type(model).__name__} has no dropout, so its answers are all the same")
    model.eval()
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def mc_dropout(model: nn.Module, *inputs: Any, samples: int = 30) -> Float[Tensor, "sample ..."]:
    """The answers of the networks that dropout makes of a model, as many as samples: a sample of what it holds possible.

    The mean over them is the prediction, the deviation its doubt.   ValueError for less than two, or no dropout.
    Gal, Ghahramani 2015, arXiv:1506.02142.
    """
    if samples < 2:
        raise ValueError(f"samples={samples}: expected at least 2, to have a deviation")
    with dropping(model):
        return torch.stack([model(*inputs) for _ in range(samples)])


@dataclass(frozen=True)
class Confidence:
    """mean, deviation: of the probability of each class [batch class].   entropy, disagreement: in nats [batch].

    entropy = H(mean): all doubt.   disagreement = H(mean) - mean H: the part that another model might not have, 0 where
    the samples agree. It grows where there were no data, the rest where the data contradict each other. What is far from
    all data may still be answered with certainty: noise on which a class happens to win by much.
    """

    mean: Tensor
    deviation: Tensor
    entropy: Tensor
    disagreement: Tensor


def confidence(logits: Float[Tensor, "sample batch class"]) -> Confidence:
    """How sure a classifier is, from sampled logits.   Houlsby et al. 2011, arXiv:1112.5745 (disagreement)."""
    probability = logits.double().softmax(-1)
    mean = probability.mean(0)
    entropy = torch.special.entr(mean).sum(-1)
    within = torch.special.entr(probability).sum(-1).mean(0)
    return Confidence(mean, probability.std(0), entropy, (entropy - within).clamp(min=0))

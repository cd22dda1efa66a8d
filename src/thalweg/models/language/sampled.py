"""Learning to foretell words of a large vocabulary from a few of them a step."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout

from thalweg.layers.attention import KeyValueCache
from thalweg.layers.softmax import sampled_softmax
from thalweg.models.language.rotary_gpt import RotaryGPT


class Sampled(nn.Module):
    """A GPT of many words, which in training tells the next word from some `samples` others alone, see `sampled_softmax`.

    counts: how often each word occurs; another is drawn by a chance in proportion to counts^0.75, at most 1, for all places of
    a batch together.
    dropout: share of what is known of the next word that is hidden in training.
    Outside training, and where all words are asked for, it is the network itself.   ValueError for a count of 0.
    """

    chance: Tensor

    def __init__(self, network: RotaryGPT, counts: Sequence[int], samples: int = 4096, dropout: float = 0.0):
        super().__init__()
        if len(counts) != len(network.told) or min(counts) < 1 or samples < 1:
            raise ValueError(f"counts: {len(counts)} of them from {min(counts)} on, samples={samples}: expected "
                             f"{len(network.told)} counts of at least 1, and 1 sample")  # fmt: skip
        self.network, self.dropout = network, dropout
        share = torch.tensor(counts, dtype=torch.float64) ** 0.75
        self.register_buffer("chance", (samples * share / share.sum()).clamp(max=1).float())

    def forward(
        self, tokens: Int[Tensor, "batch time"], cache: list[KeyValueCache] | None = None
    ) -> Float[Tensor, "batch time vocab"]:
        return self.network(tokens, cache)

    def surprise(
        self, tokens: Int[Tensor, "batch time"], target: Int[Tensor, "batch time"], cache: list[KeyValueCache] | None = None
    ) -> Float[Tensor, "batch time"]:
        """-log p of the target at each place; in training an estimate of it."""
        if not self.training:
            logits = self.network(tokens, cache)
            return cross_entropy(logits.flatten(0, 1).float(), target.flatten(), reduction="none").view_as(target)
        x = dropout(self.network.states(tokens, cache), self.dropout)
        drawn = (torch.rand_like(self.chance) < self.chance).nonzero().flatten()
        return sampled_softmax(x.flatten(0, 1), self.network.told, target.flatten(), drawn, self.chance).view_as(target)

    @property
    def told(self) -> Float[Tensor, "vocab embed"]:
        """See `RotaryGPT.told`."""
        return self.network.told

    def states(self, tokens: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time embed"]:
        """See `RotaryGPT.states`."""
        return self.network.states(tokens)

    def new_cache(self, batch: int, time: int) -> list[KeyValueCache]:
        """See `RotaryGPT.new_cache`."""
        return self.network.new_cache(batch, time)

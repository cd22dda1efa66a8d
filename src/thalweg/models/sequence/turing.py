"""A Neural Turing Machine: a network with a memory beside it, in which a head reads and a head writes where they are moved to.

At each step the controller hears x_t and what was read, and says for each head a key k, its strength b > 0, a gate g in
(0, 1), shifts s (of -1, 0, 1, sum 1) and a sharpness c >= 1; the address w, a distribution over the places of the memory M, is
    a = softmax_i(b cos(k, M_i))           what is like the key,
    a = g a + (1 - g) w_{t-1}              or the place where the head is,
    a = sum_j a_{i-j} s_j                  a step to the side,
    w = a^c / sum_i a_i^c                  and made sharp again.
Writing:  M_i = M_i (1 - w_i e) + w_i v with erase e in (0, 1) and added v;   reading:  r = sum_i w_i M_i.
Graves, Wayne, Danihelka 2014, arXiv:1410.5401; the memory starts as a constant: Collier, Beel 2018, arXiv:1807.08518.
LEE: Attention-based Model
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, pad, softplus

EMPTY = 1e-6  # what stands in the memory at the start


class Head(nn.Module):
    """Where a head is moved to.   hidden [batch hidden], memory [batch place width], before [batch place] -> [batch place]"""

    def __init__(self, hidden_dim: int, width: int, count: int = 0):
        super().__init__()
        self.sizes = (width, 1, 1, 3, 1, *((width,) * count))
        self.says = nn.Linear(hidden_dim, sum(self.sizes))

    def forward(self, hidden: Tensor, memory: Tensor, before: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The address, and what else the controller says for this head."""
        said = self.says(hidden).to(memory)  # an address in bf16 would be moved a little at each step
        key, strength, gate, shift, sharpness, *more = said.split(self.sizes, -1)
        return address(key.tanh(), softplus(strength), gate.sigmoid(), shift.softmax(-1), 1 + softplus(sharpness),
                       memory, before), more  # fmt: skip


def address(
    key: Float[Tensor, "batch width"],
    strength: Float[Tensor, "batch 1"],
    gate: Float[Tensor, "batch 1"],
    shift: Float[Tensor, "batch 3"],
    sharpness: Float[Tensor, "batch 1"],
    memory: Float[Tensor, "batch place width"],
    before: Float[Tensor, "batch place"],
) -> Float[Tensor, "batch place"]:
    """By content, else by where it was, then by a step to the side; places lie in a ring."""
    found = (strength * cosine_similarity(key[:, None], memory, -1, 1e-8)).softmax(-1)
    moved = pad(torch.lerp(before, found, gate), (1, 1), mode="circular").unfold(1, 3, 1)  # a_{i-1}, a_i, a_{i+1}
    score = (moved * shift.flip(-1)[:, None]).sum(-1).clamp(min=1e-12).log() * sharpness  # as logarithms a power stays finite
    return score.softmax(-1)


class State(NamedTuple):
    """What goes from one step to the next: memory, what was read, and where each head is."""

    memory: Tensor
    read: Tensor
    reader: Tensor
    writer: Tensor


class NeuralTuringMachine(nn.Module):
    """x: [batch time in_features] -> [batch time out_features], and where the heads were [batch 2 time place]: writer, reader

    places, width: of the memory, which has no parameter: it may have more places where longer sequences are to be kept.
    The controller has no state of its own, so that whatever is remembered is in the memory.
    """

    def __init__(self, in_features: int, out_features: int, hidden_dim: int = 100, places: int = 128, width: int = 20):
        super().__init__()
        self.places, self.width = places, width
        self.controller = nn.Sequential(nn.Linear(in_features + width, hidden_dim), nn.ReLU())
        self.writer, self.reader = Head(hidden_dim, width, 2), Head(hidden_dim, width)
        self.head = nn.Linear(hidden_dim + width, out_features)

    def start(self, batch: int) -> State:
        """An empty memory, both heads at its first place."""
        weight = self.head.weight
        first = pad(weight.new_ones(batch, 1), (0, self.places - 1))
        return State(
            weight.new_full((batch, self.places, self.width), EMPTY), weight.new_zeros(batch, self.width), first, first
        )

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Hears, writes, reads and answers.   x: [batch in] -> [batch out]"""
        hidden = self.controller(torch.cat([x, state.read], -1))
        writer, (erase, added) = self.writer(hidden, state.memory, state.writer)
        place = writer[..., None]
        memory = state.memory * (1 - place * erase.sigmoid()[:, None]) + place * added.tanh()[:, None]
        reader, _ = self.reader(hidden, memory, state.reader)
        read = (reader[:, None] @ memory)[:, 0]
        return self.head(torch.cat([hidden, read], -1)), State(memory, read, reader, writer)

    def forward(
        self, x: Float[Tensor, "batch time input"]
    ) -> tuple[Float[Tensor, "batch time output"], Float[Tensor, "batch 2 time place"]]:
        state, answers, heads = self.start(len(x)), [], []
        for now in x.unbind(1):
            answer, state = self.step(now, state)
            answers.append(answer)
            heads.append(torch.stack([state.writer, state.reader], 1))
        return torch.stack(answers, 1), torch.stack(heads, 2)

"""A GPT as it is built when it must learn fast: rotary positions, RMS norms without weights, squared rectifiers, no biases.

x = norm(embedding(tokens));  x += attention(norm(x)), x += mlp(norm(x)) in each block;  logits = head norm(x).
In attention, queries and keys are normalised and then turned by an angle that grows with their place, so that a score
depends on what they are and how far apart they stand.   mlp(x) = W_down relu(W_up x)^2.
Rotary positions: Su et al. 2021, arXiv:2104.09864. Squared rectifiers: So et al. 2021, "Primer", arXiv:2109.08668.
Normalised queries and keys: Henry et al. 2020, arXiv:2010.04245.   LBDL 5.3
"""

from math import sqrt

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from thalweg.layers.attention import KeyValueCache, attention
from thalweg.layers.norms import rms_norm
from thalweg.layers.position import rotate, rotation


class Attention(nn.Module):
    """Multi-head attention to the places before.   x: [batch time embed] -> [batch time embed]"""

    def __init__(self, embed_dim: int, num_heads: int, normalise: bool):
        super().__init__()
        self.num_heads, self.normalise = num_heads, normalise
        self.query, self.key, self.value, self.output = (nn.Linear(embed_dim, embed_dim, bias=False) for _ in range(4))

    def forward(self, x: Tensor, turn: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        split = (self.num_heads, -1)
        query, key, value = (layer(x).unflatten(-1, split) for layer in (self.query, self.key, self.value))
        if self.normalise:
            query, key = rms_norm(query), rms_norm(key)
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)  # [batch head time dim]
        query, key, mask = rotate(query, turn), rotate(key, turn), None
        if cache is not None:
            (key, value), mask = cache.append(key, value), cache.mask
        return self.output(attention(query, key, value, mask, causal=True).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """y = W_down relu(W_up x)^2: every place for itself, through a wider layer."""

    def __init__(self, embed_dim: int, hidden_dim: int):
        super().__init__()
        self.up, self.down = nn.Linear(embed_dim, hidden_dim, bias=False), nn.Linear(hidden_dim, embed_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(relu(self.up(x)).square())


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); dropout on both branches."""

    def __init__(self, embed_dim: int, num_heads: int, hidden_dim: int, dropout: float, normalise: bool):
        super().__init__()
        self.attention, self.mlp = Attention(embed_dim, num_heads, normalise), MLP(embed_dim, hidden_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, turn: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = x + self.dropout(self.attention(rms_norm(x), turn, cache))
        return x + self.dropout(self.mlp(rms_norm(x)))


class RotaryGPT(nn.Module):
    """tokens [batch time] -> logits of the next one [batch time vocab]

    hidden_dim: width inside the MLPs, 4 embed_dim if None.   qk_norm: whether queries and keys are normalised.
    tied: whether the head is the embedding.   base: see `rotation`.   ValueError if num_heads does not divide embed_dim.
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int = 256,
        num_layers: int = 4,
        num_heads: int = 4,
        hidden_dim: int | None = None,
        dropout: float = 0.0,
        qk_norm: bool = True,
        tied: bool = False,
        base: float = 10000.0,
    ):
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim={embed_dim}: expected a multiple of num_heads={num_heads}")
        self.num_heads, self.base = num_heads, base
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, hidden_dim or 4 * embed_dim, dropout, qk_norm) for _ in range(num_layers)
        )
        self.head = None if tied else nn.Linear(embed_dim, vocab_size, bias=False)
        nn.init.normal_(self.told, std=0.02)  # small logits: at first every token is as likely
        for name, weight in self.named_parameters():
            if name.endswith(("output.weight", "down.weight")):  # each block adds two, so their sum stays small
                nn.init.normal_(weight, std=0.02 / sqrt(2 * num_layers))

    def states(
        self, tokens: Int[Tensor, "batch time"], cache: list[KeyValueCache] | None = None
    ) -> Float[Tensor, "batch time embed"]:
        """What is known of the next token at each place; its logits are the products with `told`."""
        x = rms_norm(self.embedding(tokens))
        if torch.is_autocast_enabled(x.device.type):  # the sum over the blocks too: a tenth faster than in float32
            x = x.to(torch.get_autocast_dtype(x.device.type))
        start = cache[0].length if cache else 0
        turn = rotation(start, tokens.shape[1], x.shape[-1] // self.num_heads, x, self.base)
        for index, block in enumerate(self.blocks):
            x = block(x, turn, cache[index] if cache else None)
        return rms_norm(x)

    @property
    def told(self) -> Float[Tensor, "vocab embed"]:
        """A vector of each token that may come."""
        return (self.head or self.embedding).weight

    def forward(
        self, tokens: Int[Tensor, "batch time"], cache: list[KeyValueCache] | None = None
    ) -> Float[Tensor, "batch time vocab"]:
        return linear(self.states(tokens, cache), self.told)

    def new_cache(self, batch: int, time: int) -> list[KeyValueCache]:
        """What `forward` keeps of up to `time` tokens that it has read, so that each is read once."""
        weight = self.embedding.weight
        return [KeyValueCache(batch, self.num_heads, time, weight.shape[1] // self.num_heads, weight) for _ in self.blocks]

"""The blocks of an encoder and of a decoder: attention to one's own places, to what another has read, and a perceptron.

Vaswani et al. 2017, arXiv:1706.03762.   LBDL 5.3, D2L 10.7
"""

import torch
from torch import Tensor, nn

from thalweg.layers.attention import attention, attention_weights
from thalweg.layers.dropout import ByteDropout


class Attention(nn.Module):
    """Multi-head attention to keys and values that are given: of the same places, or of what was read."""

    def __init__(self, embed_dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value, self.output = (nn.Linear(embed_dim, embed_dim) for _ in range(4))

    def split(self, x: Tensor) -> Tensor:
        """[batch time embed] -> [batch head time dim]"""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def read(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values of a memory, [batch head read dim] each."""
        return self.split(self.key(memory)), self.split(self.value(memory))

    def forward(
        self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, dropout: float = 0.0, causal: bool = False
    ) -> Tensor:
        y = attention(self.split(self.query(x)), key, value, mask, dropout=dropout, causal=causal)
        return self.output(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """x + f(norm(x)) or norm(x + f(x)) for each part f: self-attention, in a decoder cross-attention too, and a perceptron.

    y = W_down relu(W_up x) is the same at every place; dropout on what each part adds, and on the weights of attention.
    """

    def __init__(self, embed_dim: int, num_heads: int, hidden_dim: int, dropout: float, norm_first: bool, crosses: bool):
        super().__init__()
        self.norm_first, self.dropout = norm_first, ByteDropout(dropout)
        self.attention, self.attention_norm = Attention(embed_dim, num_heads), nn.LayerNorm(embed_dim)
        if crosses:
            self.cross, self.cross_norm = Attention(embed_dim, num_heads), nn.LayerNorm(embed_dim)
        self.up, self.down = nn.Linear(embed_dim, hidden_dim), nn.Linear(hidden_dim, embed_dim)
        self.mlp_norm = nn.LayerNorm(embed_dim)

    def _before(self, x: Tensor, norm: nn.Module) -> Tensor:
        return norm(x) if self.norm_first else x

    def _after(self, x: Tensor, added: Tensor, norm: nn.Module) -> Tensor:
        x = x + self.dropout(added)
        return x if self.norm_first else norm(x)

    def attend(self, x: Tensor, mask: Tensor | None = None, past: list[Tensor] | None = None) -> Tensor:
        """Self-attention: to all places that the mask shows, or, with a past, to that and to the places up to one's own.

        past: keys and values of the places before; those of these places are added to it.
        """
        seen = self._before(x, self.attention_norm)
        key, value = self.attention.read(seen)
        if past is not None:
            past[:] = key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        dropout = self.dropout.p if self.training else 0.0
        return self._after(x, self.attention(seen, key, value, mask, dropout, causal=past is not None), self.attention_norm)

    def look(self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Cross-attention; the targets of a source ask side by side, as if they were its times, so nothing is copied."""
        seen, dropout = self._before(x, self.cross_norm), self.dropout.p if self.training else 0.0
        added = self.cross(seen.reshape(len(key), -1, x.shape[-1]), key, value, mask, dropout)
        return self._after(x, added.view_as(x), self.cross_norm)

    def looked(self, x: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        """How much `look` takes from each place that was read.   [batch head time read]"""
        return attention_weights(self.cross.split(self.cross.query(self._before(x, self.cross_norm))), key, mask)

    def think(self, x: Tensor) -> Tensor:
        """The perceptron."""
        return self._after(x, self.down(self.up(self._before(x, self.mlp_norm)).relu()), self.mlp_norm)

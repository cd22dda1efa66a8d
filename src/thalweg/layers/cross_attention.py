"""The blocks of an encoder and of a decoder: attention to one's own places, to what another has read, and a perceptron.

Vaswani et al. 2017, arXiv:1706.03762.   LBDL 5.3, D2L 10.7
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from thalweg.layers.attention import KeyValueCache, attention, attention_weights
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
        self,
        x: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        dropout: float = 0.0,
        causal: bool = False,
    ) -> Tensor:
        y = attention(self.split(self.query(x)), key, value, mask, bias, dropout, causal)
        return self.output(y.transpose(1, 2).flatten(2))


class BeamCache:
    """Keys and values of the targets of each source, side by side, which stay where they were written.

    A table says which of the places kept for a source a target has in its past. When targets change places, go on twice or are
    given up, rows of the table move, and nothing else does.
    layers: of keys and values.   copies: targets of a source, `time` places each at most.   length: places of each so far.
    places: which place of its target each key is at, [place].
    """

    def __init__(self, layers: int, batch: int, copies: int, num_heads: int, time: int, dim: int, like: Tensor):
        self.layers = [KeyValueCache(batch, num_heads, copies * time, dim, like) for _ in range(layers)]
        self.past = torch.empty(batch, copies, 0, dtype=torch.bool, device=like.device)  # [batch copies place]
        self.places = torch.empty(0, dtype=torch.long, device=like.device)
        self.length, self.dtype = 0, like.dtype

    def extend(self, time: int) -> Float[Tensor, "batch 1 query place"] | None:
        """Goes on to the next `time` places of each target; -inf where one may not read another, 0 where it may.

        A place reads the past of its target, and itself.   query: the next places of a target, those of all targets of a source
        one after the other; the layers are to take in their keys in this order.   None: everything may be read.
        """
        batch, copies, _ = self.past.shape
        new = torch.arange(self.length, self.length + time, device=self.past.device).repeat(copies)
        self.places, self.length = torch.cat([self.places, new]), self.length + time
        if copies == time == 1:
            self.past = self.past.new_ones(batch, 1, self.length)
            return None
        own = torch.eye(copies * time, device=self.past.device).view(copies, time, -1).cumsum(1).bool()
        past = self.past[:, :, None].expand(-1, -1, time, -1)
        readable = torch.cat([past, own.expand(batch, -1, -1, -1)], 3)
        self.past = readable[:, :, -1]
        nothing = torch.zeros((), dtype=self.dtype, device=past.device)
        return nothing.where(readable.flatten(1, 2)[:, None], -torch.inf)

    def reorder(self, rows: Int[Tensor, " rows"]) -> None:
        """Row r goes on from where row rows[r] is, which has the same source; a source without rows is left out."""
        batch, copies, _ = self.past.shape
        self.past = self.past.flatten(0, 1)[rows].unflatten(0, (-1, copies))
        if len(self.past) < batch:
            for layer in self.layers:
                layer.keep(rows[::copies] // copies)


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

    def attend(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        causal: bool = False,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Self-attention, to all places that the mask shows; causal: to those up to one's own; cache: to those before too."""
        seen, dropout = self._before(x, self.attention_norm), self.dropout.p if self.training else 0.0
        key, value = self.attention.read(seen)
        if cache is not None:
            key, value = cache.append(key, value)
        return self._after(x, self.attention(seen, key, value, mask, bias, dropout, causal), self.attention_norm)

    def look(self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Cross-attention; the targets of a source ask side by side, as if they were its times, so nothing is copied."""
        seen, dropout = self._before(x, self.cross_norm), self.dropout.p if self.training else 0.0
        added = self.cross(seen.reshape(len(key), -1, x.shape[-1]), key, value, mask, dropout=dropout)
        return self._after(x, added.view_as(x), self.cross_norm)

    def looked(self, x: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        """How much `look` takes from each place that was read.   [batch head time read]"""
        return attention_weights(self.cross.split(self.cross.query(self._before(x, self.cross_norm))), key, mask)

    def think(self, x: Tensor) -> Tensor:
        """The perceptron."""
        return self._after(x, self.down(self.up(self._before(x, self.mlp_norm)).relu()), self.mlp_norm)

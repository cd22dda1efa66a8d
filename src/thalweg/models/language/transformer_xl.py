"""Transformer-XL: a text is read in segments, and each layer also reads what it held of the segments before.

score(t, s) = ((q_t + u) . k_s + (q_t + v) . W_r r_{t-s}) / sqrt(dim),   r_d: sinusoids of the distance d = t - s >= 0.
A token is compared by what is there and by how far away it is; u and v are what every query asks of contents and of distances,
wherever it stands, so that a state means the same when it is read again from a later segment. Keys and values are made
of the layer's inputs, those remembered first, through which no gradient goes back. With L layers, n places of memory reach L n
tokens back.
Dai et al. 2019, arXiv:1901.02860.   LEE "Smaller Model"
Elsewhere: the paper has its norms after what a block adds, and all sines of a code before its cosines.
"""

from math import sqrt

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from thalweg.layers.attention import attention
from thalweg.layers.position import aligned, sinusoidal


class Attention(nn.Module):
    """x: [batch time embed], the last places of those read: [batch read embed]; distance: codes of read - 1, ..., 0.

    seen: where the places read are real, [batch read].
    """

    def __init__(self, embed_dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value, self.distance, self.output = (
            nn.Linear(embed_dim, embed_dim, bias=False) for _ in range(5)
        )
        self.content_bias, self.distance_bias = (nn.Parameter(torch.zeros(num_heads, 1, embed_dim // num_heads)) for _ in "uv")

    def split(self, x: Tensor) -> Tensor:
        """[... time embed] -> [... head time dim]"""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(-3, -2)

    def forward(self, x: Tensor, read: Tensor, distance: Tensor, seen: Tensor | None) -> Tensor:
        query, key, value = self.split(self.query(x)), self.split(self.key(read)), self.split(self.value(read))
        far = (query + self.distance_bias.to(query)) @ self.split(self.distance(distance)).mT
        mask = None if seen is None else seen[:, None, None]
        y = attention(query + self.content_bias.to(query), key, value, mask, aligned(far) / sqrt(query.shape[-1]), causal=True)
        return self.output(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """x + attention(norm(x), norm([memory, x])), then x + mlp(norm(x)); dropout on both branches."""

    def __init__(self, embed_dim: int, num_heads: int, dropout: float):
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(embed_dim), Attention(embed_dim, num_heads)
        self.mlp_norm = nn.LayerNorm(embed_dim)
        self.up, self.down = nn.Linear(embed_dim, 4 * embed_dim), nn.Linear(4 * embed_dim, embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, distance: Tensor, seen: Tensor | None) -> Tensor:
        read = self.attention_norm(torch.cat([memory, x], 1))
        x = x + self.dropout(self.attention(read[:, memory.shape[1] :], read, distance, seen))
        return x + self.dropout(self.down(gelu(self.up(self.mlp_norm(x)))))


class TransformerXL(nn.Module):
    """tokens [batch time] -> logits of the next one [batch time vocab]

    memory: places that a cache holds, see `new_cache`; without one, a segment is read as if nothing was before it.
    ValueError if num_heads does not divide embed_dim.
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int = 256,
        num_layers: int = 4,
        num_heads: int = 4,
        memory: int = 128,
        dropout: float = 0.0,
    ):
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim={embed_dim}: expected a multiple of num_heads={num_heads}")
        self.memory = memory
        self.embedding, self.dropout = nn.Embedding(vocab_size, embed_dim), nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(embed_dim)
        nn.init.normal_(self.embedding.weight, std=0.02)
        for name, weight in self.named_parameters():
            if name.endswith(("output.weight", "down.weight")):  # each block adds two, so their sum stays small
                nn.init.normal_(weight, std=0.02 / sqrt(2 * num_layers))

    def forward(
        self, tokens: Int[Tensor, "batch time"], cache: list[Tensor] | None = None
    ) -> Float[Tensor, "batch time vocab"]:
        held, count = self.new_cache(len(tokens), 0, memory=0) if cache is None else cache
        room, read = held.shape[2], held.shape[2] + tokens.shape[1]
        x = self.dropout(sqrt(held.shape[3]) * self.embedding(tokens))
        distance = sinusoidal(0, read, held.shape[3], x).flip(0)
        # what was remembered stands at the end of its room
        seen = (torch.arange(read, device=x.device) >= room - count[0]) if room else None
        kept = []
        for block, memory in zip(self.blocks, held, strict=True):
            kept.append(torch.cat([memory, x.detach().to(memory)], 1)[:, read - room :])
            x = block(x, memory.to(x), distance, seen)
        if cache is not None:
            cache[:] = torch.stack(kept), (count + tokens.shape[1]).clamp(max=room)
        return linear(self.norm(x), self.embedding.weight)

    def new_cache(self, batch: int, time: int, memory: int | None = None) -> list[Tensor]:
        """What each layer held of the places before, [layer batch memory embed], and how many are real, [1 batch 1]: none.

        As many places as the model's memory, and at least `time`, so that of a text so long nothing is forgotten; or
        exactly `memory`.   What no longer fits is forgotten from its start on.
        """
        weight, room = self.embedding.weight, max(self.memory, time) if memory is None else memory
        return [weight.new_zeros(len(self.blocks), batch, room, weight.shape[1]), weight.new_zeros(1, batch, 1)]

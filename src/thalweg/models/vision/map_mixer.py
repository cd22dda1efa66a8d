"""The same network with convolutions or with self-attention: what a block mixes neighbours by is all that differs.

image -> patches of 4x4 -> blocks: x + mix(norm(x)), then x + mlp(norm(x)) -> mean over the map -> logits.
By convolution a pixel of the map reads its 3x3 neighbourhood. By attention, nine heads that could be such a convolution (see
`as_attention`) learn where to look, near or far, and what for: what a convolution knows beforehand they must find in the
data, and what it cannot do they may.   LEE: Self-Attention; Cordonnier, Loukas, Jaggi 2019, arXiv:1911.03584
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from thalweg.layers.offset_attention import OffsetAttention


class Block(nn.Module):
    """x: [batch channel height width] -> the same.   The norms are over the whole map."""

    def __init__(self, channels: int, mix: str):
        super().__init__()
        self.mix_norm, self.mlp_norm = nn.GroupNorm(1, channels), nn.GroupNorm(1, channels)
        if mix == "convolution":
            self.mix: nn.Module = nn.Conv2d(channels, channels, 3, padding=1)
        else:
            self.mix = OffsetAttention(channels, channels, num_heads=9, value_dim=channels, padding=1)
        self.up, self.down = nn.Conv2d(channels, 4 * channels, 1), nn.Conv2d(4 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(self.mix_norm(x))
        return x + self.down(gelu(self.up(self.mlp_norm(x))))


class MapMixer(nn.Module):
    """mix: "convolution" or "attention".   image: [batch in_channels height width] -> logits [batch class]

    ValueError for another mix.
    """

    def __init__(
        self, mix: str = "convolution", channels: int = 48, num_layers: int = 2, in_channels: int = 1, num_classes: int = 10
    ):
        super().__init__()
        if mix not in ("convolution", "attention"):
            raise ValueError(f"mix={mix!r}: expected convolution or attention")
        self.stem = nn.Conv2d(in_channels, channels, 4, 4)
        self.blocks = nn.ModuleList(Block(channels, mix) for _ in range(num_layers))
        self.norm, self.head = nn.LayerNorm(channels), nn.Linear(channels, num_classes)

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch class"]:
        x = self.stem(image)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x.mean((2, 3))))

"""NAFNet: a U-Net that restores images without any activation function; two halves of the channels multiply instead.

gate(a, b) = a * b, the channels split in two.   A block: x = x + s * P(c(g) * g), g = gate(D(E(norm(x)))), and then
x = x + t * down(gate(up(norm(x)))); E, P, up, down see one pixel, D its 3x3 neighbours in one channel, and c = W mean(g)
weighs the channels by their means over the image. The network adds a correction: y = x + f(x).
Chen, Chu, Zhang, Sun 2022, arXiv:2204.04676.   LBDL 6.1
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


def gate(x: Tensor) -> Tensor:
    """The first half of the channels times the second."""
    first, second = x.chunk(2, 1)
    return first * second


class Norm(nn.LayerNorm):
    """Layer normalisation of each pixel over its channels.   x: [batch channel height width]"""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)  # channels-last, no copy is made


class Gated(nn.Module):
    """down(gate(up(x))): what a pixel says of itself."""

    def __init__(self, channels: int):
        super().__init__()
        self.up, self.down = nn.Conv2d(channels, 2 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(gate(self.up(x)))


class Convolved(nn.Module):
    """down(c g), g = gate(depthwise(up(x))): what its neighbours say; channels weighed by their means."""

    def __init__(self, channels: int):
        super().__init__()
        self.up = nn.Conv2d(channels, 2 * channels, 1)
        self.depthwise = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.attention = nn.Conv2d(channels, channels, 1)
        self.down = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = gate(self.depthwise(self.up(x)))
        return self.down(x * self.attention(x.mean((2, 3), keepdim=True)))


class Block(nn.Module):
    """Starts as the identity."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1, self.convolved = Norm(channels, eps=1e-6), Convolved(channels)
        self.norm2, self.mlp = Norm(channels, eps=1e-6), Gated(channels)
        self.scale1, self.scale2 = (nn.Parameter(torch.zeros(channels, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.addcmul(x, self.scale1.to(x.dtype), self.convolved(self.norm1(x)))
        return torch.addcmul(x, self.scale2.to(x.dtype), self.mlp(self.norm2(x)))


class NAFNet(nn.Module):
    """depths: blocks at each extent on the way down, each half of the one before; middle: at the smallest; rising: on the way
    up.

    image: [batch channel height width] in [0, 1], any extent -> the same, restored
    """

    def __init__(
        self,
        width: int = 32,
        depths: Sequence[int] = (1, 1, 1, 28),
        middle: int = 1,
        rising: Sequence[int] = (1, 1, 1, 1),
        in_channels: int = 3,
    ):
        super().__init__()
        if len(depths) != len(rising):
            raise ValueError(f"depths={depths}, rising={rising}: expected as many stages up as down")
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        widths = [width << stage for stage in range(len(depths) + 1)]
        self.stages = nn.ModuleList(_blocks(c, depth) for c, depth in zip(widths, depths, strict=False))
        self.down = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, 2) for c in widths[:-1])
        self.middle = _blocks(widths[-1], middle)
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * c, 4 * c, 1, bias=False), nn.PixelShuffle(2)) for c in widths[-2::-1]
        )
        self.rising = nn.ModuleList(_blocks(c, depth) for c, depth in zip(widths[-2::-1], rising, strict=True))
        self.head = nn.Conv2d(width, in_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        whole = 2 ** len(self.stages)  # extents that can be halved so often
        x = self.stem(pad(image, (0, -width % whole, 0, -height % whole)))
        kept = []
        for stage, down in zip(self.stages, self.down, strict=True):
            kept.append(stage(x))
            x = down(kept[-1])
        x = self.middle(x)
        for up, stage in zip(self.up, self.rising, strict=True):
            x = stage(up(x) + kept.pop())
        return image + self.head(x)[..., :height, :width]


def _blocks(channels: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(Block(channels) for _ in range(depth)))


def nafnet_small(**arguments: Any) -> NAFNet:
    """Three extents, few blocks: for a processor and minutes."""
    return NAFNet(**{"width": 32, "depths": (1, 1, 2), "middle": 2, "rising": (1, 1, 1), **arguments})


def nafnet_32(**arguments: Any) -> NAFNet:
    """Against motion blur (GoPro), width 32, 17,111,907 parameters."""
    return NAFNet(**arguments)


def nafnet_32_noise(**arguments: Any) -> NAFNet:
    """Against the noise of telephones (SIDD), width 32, 29,159,715 parameters."""
    return NAFNet(depths=(2, 2, 4, 8), middle=12, rising=(2, 2, 2, 2), **arguments)

"""The painter of fast style transfer: one pass of a network paints what optimising a picture takes hundreds of steps for.

y = sigmoid(head(up(blocks(stages(stem(x)))))): down to a quarter of the extent, residual blocks there, and up again. Every
image is normalised by itself, instance normalisation, so that its own contrast, which the style replaces, is gone.
Johnson, Alahi, Fei-Fei 2016, arXiv:1603.08155; instance normalisation: Ulyanov, Vedaldi, Lempitsky 2016, arXiv:1607.08022.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import interpolate


def conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """A convolution over the mirrored image, which leaves no frame around it, and instance normalisation."""
    padding = {"padding": kernel_size // 2, "padding_mode": "reflect"}
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, stride, bias=False, **padding)  # type: ignore[arg-type]
    return nn.Sequential(convolution, nn.InstanceNorm2d(out_channels, affine=True))


class Block(nn.Module):
    """x + conv(relu(conv(x)))"""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(conv(channels, channels, 3), nn.ReLU(), conv(channels, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Painter(nn.Module):
    """width: channels at the full extent, twice as many at the half, four times at the quarter, where num_blocks are.

    image: [batch channel height width] in [0, 1], any extent from 8 on -> the same, painted
    """

    def __init__(self, width: int = 32, num_blocks: int = 5, in_channels: int = 3):
        super().__init__()
        self.stem = conv(in_channels, width, 9)
        self.stages = nn.ModuleList(conv(width << stage, 2 * width << stage, 3, 2) for stage in range(2))
        self.blocks = nn.Sequential(*(Block(4 * width) for _ in range(num_blocks)))
        self.up = nn.ModuleList(conv(2 * width << stage, width << stage, 3) for stage in (1, 0))
        self.head = nn.Conv2d(width, in_channels, 9, padding=4, padding_mode="reflect")

    def forward(self, image: Tensor) -> Tensor:
        maps = [self.stem(image).relu()]
        for stage in self.stages:
            maps.append(stage(maps[-1]).relu())
        x = self.blocks(maps.pop())
        for up in self.up:  # enlarged first: a transposed convolution leaves a pattern of squares
            x = up(interpolate(x, maps.pop().shape[-2:])).relu()
        return self.head(x).sigmoid()


def painter(**arguments: Any) -> Painter:
    """Of 32 channels and five blocks, 1,677,635 parameters.

    Elsewhere: PyTorch's example has 1,600 more, biases that the normalisation takes away.
    """
    return Painter(**arguments)

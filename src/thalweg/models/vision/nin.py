"""Network in Network (NiN): a small dense network at every pixel, and a map a class in place of dense layers.

block: convolution -> relu -> 1x1 -> relu -> 1x1 -> relu; a 1x1 convolution is a dense layer across the maps of a pixel.
logit of a class = mean of its map over the image, so there is no linear layer and nothing is flattened.
Lin, Chen, Yan 2013, arXiv:1312.4400.   D2L 7.3
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

STEMS = {"large": (11, 4, 0), "medium": (7, 2, 3), "small": (5, 1, 2)}  # kernel_size, stride, padding of the first filters


def block(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
    """A convolution, and two dense layers at every pixel of what it gives."""
    convs = [nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding),
             nn.Conv2d(out_channels, out_channels, 1), nn.Conv2d(out_channels, out_channels, 1)]  # fmt: skip
    for conv in convs:
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return nn.Sequential(*[layer for conv in convs for layer in (conv, nn.ReLU())])


class NiN(nn.Module):
    """channels: maps of each block before the head.

    stem: what the first convolution does to the extent: "large" a quarter of it (224x224 images), "medium" half, "small"
    all of it (28x28 images).
    image: [batch channel height width] -> logits [batch class]
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1000,
        channels: Sequence[int] = (96, 256, 384),
        dropout: float = 0.5,
        stem: Literal["large", "medium", "small"] = "large",
    ):
        super().__init__()
        if stem not in STEMS:
            raise ValueError(f"stem={stem!r}: expected large, medium or small")
        first, second, third = channels
        self.stages = nn.ModuleList(
            nn.Sequential(part, nn.MaxPool2d(3, 2))
            for part in (block(in_channels, first, *STEMS[stem]), block(first, second, 5, padding=2),
                         block(second, third, 3, padding=1))
        )  # fmt: skip
        self.dropout = nn.Dropout(dropout)
        self.head = block(third, num_classes, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = image
        for stage in self.stages:
            x = stage(x)
        return self.head(self.dropout(x)).mean((2, 3))


def nin(**arguments: Any) -> NiN:
    """Network in Network as D2L has it, 1,992,166 parameters for ten classes of grey images."""
    return NiN(**arguments)

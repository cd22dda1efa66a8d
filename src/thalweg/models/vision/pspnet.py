"""Pyramid scene parsing network (PSPNet): beside what a place looks like stands what the whole scene looks like.

y = concat(x, up(conv(mean of x in each of 1, 4, 9, 36 parts of the image))), x the map of a trunk that keeps its extent;
a boat-shaped thing on a river is a boat and not a car.
Zhao, Shi, Qi, Wang, Jia 2016, arXiv:1612.01105.   LBDL 6.4
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from thalweg.layers.trunk import trunk
from thalweg.models import builder


def conv(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    """Convolution, batch normalisation and relu."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU())


class PyramidPooling(nn.Module):
    """The map, and beside it its means over bins x bins parts, each convolved to a fair share of the channels.

    x: [batch channel height width] -> [batch out_channels height width].   Bins of one mean need batches of two to train.
    """

    def __init__(self, channels: int, bins: Sequence[int] = (1, 2, 3, 6)):
        super().__init__()
        self.bins = tuple(bins)
        self.levels = nn.ModuleList(conv(channels, channels // len(self.bins), 1) for _ in self.bins)
        self.out_channels = channels + channels // len(self.bins) * len(self.bins)

    def forward(self, x: Tensor) -> Tensor:
        means = [level(adaptive_avg_pool2d(x, side)) for level, side in zip(self.levels, self.bins, strict=True)]
        return torch.cat([x, *(interpolate(mean, x.shape[-2:], mode="bilinear") for mean in means)], 1)


class PSPNet(nn.Module):
    """backbone: gives a map a stage, the last at an eighth of the extent (dilated=2); its head is dropped.

    bins: parts a side of each level of the pyramid.   hidden_dim: channels before the head.
    image: [batch channel height width] -> logits [batch class height width]
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        bins: Sequence[int] = (1, 2, 3, 6),
        hidden_dim: int = 512,
        dropout: float = 0.1,
    ):
        super().__init__()
        channels = trunk(backbone)[-1][0]
        self.backbone = backbone
        self.pyramid = PyramidPooling(channels, bins)
        self.merge = nn.Sequential(conv(self.pyramid.out_channels, hidden_dim, 3), nn.Dropout2d(dropout))
        self.head = nn.Conv2d(hidden_dim, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.backbone.features(image)[-1]  # type: ignore[operator]
        return interpolate(self.head(self.merge(self.pyramid(x))), image.shape[-2:], mode="bilinear")


def pspnet(
    backbone: str = "resnet50",
    num_classes: int = 21,
    bins: Sequence[int] = (1, 2, 3, 6),
    hidden_dim: int = 512,
    dilated: int = 2,
    **arguments: Any,
) -> PSPNet:
    """A PSPNet on the trunk of that name and arguments; on ResNet-50, for 21 classes, 46,592,597 parameters."""
    return PSPNet(builder(backbone)(dilated=dilated, **arguments), num_classes, bins, hidden_dim)

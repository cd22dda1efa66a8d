"""LeNet: convolutions and pooling look for small patterns anywhere, dense layers name what was seen.

image -> [conv -> nonlinearity -> pool] x 2 -> dense -> dense -> logits.
LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document recognition".   LBDL 5.2, D2L 6.6
Its forerunner read zip codes: LeCun et al. 1989, "Backpropagation applied to handwritten zip code recognition".
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, pad

# Which of the six maps of the first stage each of the sixteen filters of the second sees (Table I of the paper).
SEEN = ("012", "123", "234", "345", "045", "015", "0123", "1234", "2345", "0345", "0145", "0125", "0134", "1245",
        "0235", "012345")  # fmt: skip


class Squash(nn.Module):
    """The scaled hyperbolic tangent of the paper.   y = 1.7159 tanh(2 x / 3), so that 1 and -1 stay where they are."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(x * (2 / 3))


class UnitBias(nn.Module):
    """A 5x5 convolution with stride 2 whose filters are shared by all places, while every unit has a bias of its own.

    seen: the maps that each filter sees, as many for each.   x: [batch channel size size], -1 beyond its border -> half
    """

    def __init__(self, seen: Sequence[Sequence[int]], size: int):
        super().__init__()
        self.seen = [channel for maps in seen for channel in maps]
        fan_in = 25 * len(seen[0])
        self.weight = nn.Parameter(torch.empty(len(seen), len(seen[0]), 5, 5).uniform_(-2.4, 2.4) / fan_in**0.5)
        self.bias = nn.Parameter(torch.zeros(len(seen), size // 2, size // 2))

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(pad(x, (2, 1, 2, 1), value=-1)[:, self.seen], self.weight, stride=2, groups=len(self.weight)) + self.bias


class LeNet1989(nn.Module):
    """The network that read zip codes: 9,760 parameters, 64,660 connections, 1,256 units with the 256 of the image.

    Twelve maps of 8x8 and twelve of 4x4, then 30 units. There is no pooling: a stage computes every other place only.
    The paper does not tell which eight of the twelve maps a filter of the second stage sees: here eight in a row, the last
    followed by the first. It squashes the ten outputs too and takes the squared error; here they are logits.
    image: [batch 1 16 16] from -1 (background) to 1 -> logits [batch class].   ValueError for other images.
    """

    def __init__(self, num_classes: int = 10):
        super().__init__()
        in_a_row = [[(first + step) % 12 for step in range(8)] for first in range(12)]
        self.stages = nn.ModuleList([
            nn.Sequential(UnitBias([[0]] * 12, 16), Squash()),  # H1
            nn.Sequential(UnitBias(in_a_row, 8), Squash()),  # H2
        ])  # fmt: skip
        self.dense = nn.Sequential(nn.Linear(192, 30), Squash())  # H3
        self.head = nn.Linear(30, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[1:] != (1, 16, 16):
            raise ValueError(f"image: {tuple(image.shape[1:])}, expected (1, 16, 16)")
        x = image
        for stage in self.stages:
            x = stage(x)
        return self.head(self.dense(x.flatten(1)))


class Subsampling(nn.Module):
    """The pooling of 1998: the sum of a 2x2 window, times a weight, plus a bias a channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels, 1, 1), 0.25))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:  # [batch channel height width] -> half the extent
        return self.weight * (4 * avg_pool2d(x, 2)) + self.bias


class PartialConv(nn.Module):
    """A 5x5 convolution of six maps whose filters each see only some of them, which breaks their symmetry."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.ModuleList(nn.Conv2d(len(seen), 1, 5) for seen in SEEN)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x[:, [int(i) for i in seen]] for seen in SEEN]
        return torch.cat([conv(part) for conv, part in zip(self.filters, maps, strict=True)], 1)


class LeNet1998(nn.Module):
    """LeNet-5 as published: 60,000 trainable parameters below the head, for grey images of 32x32 or, padded, 28x28 pixels.

    The paper scores a class by -|f - prototype|^2 / 2, f the 84 last units: f prototype - |prototype|^2 / 2, up to a part
    that is the same for all classes. The head is this dense form, with prototypes that learn (850 parameters more).
    image: [batch 1 height width] -> logits [batch class].   ValueError for other images.
    """

    def __init__(self, num_classes: int = 10):
        super().__init__()
        self.stages = nn.ModuleList([
            nn.Sequential(nn.Conv2d(1, 6, 5), Squash(), Subsampling(6), Squash()),  # C1 S2
            nn.Sequential(PartialConv(), Squash(), Subsampling(16), Squash()),  # C3 S4
            nn.Sequential(nn.Conv2d(16, 120, 5), Squash()),  # C5
        ])  # fmt: skip
        self.dense = nn.Sequential(nn.Linear(120, 84), Squash())  # F6
        self.head = nn.Linear(84, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[1:] not in ((1, 28, 28), (1, 32, 32)):
            raise ValueError(f"image: {tuple(image.shape[1:])}, expected (1, 28, 28) or (1, 32, 32)")
        x = pad(image, ((32 - image.shape[-1]) // 2,) * 4)
        for stage in self.stages:
            x = stage(x)
        return self.head(self.dense(x.flatten(1)))


class LeNet(nn.Module):
    """The modern form: batch normalisation, rectifiers and maximum pooling, which halves the extent a stage.

    channels: maps of each stage.   image: [batch channel image_size image_size] -> logits [batch class]
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        channels: Sequence[int] = (32, 64),
        hidden_dim: int = 256,
        dropout: float = 0.3,
        image_size: int = 28,
    ):
        super().__init__()
        stages, width = [], in_channels
        for out in channels:
            conv = nn.Conv2d(width, out, 5, padding=2, bias=False)
            stages.append(nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)))
            width = out
        self.stages = nn.ModuleList(stages)
        flat = width * (image_size // 2 ** len(channels)) ** 2
        dense = nn.Linear(flat, hidden_dim, bias=False)
        self.dense = nn.Sequential(dense, nn.BatchNorm1d(hidden_dim), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Linear(hidden_dim, num_classes)

    def features(self, image: Tensor) -> list[Tensor]:  # a map a stage
        maps = [image]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.dense(self.features(image)[-1].flatten(1)))


def lenet1989(**arguments: Any) -> LeNet1989:
    """The zip-code network, 9,760 parameters."""
    return LeNet1989(**arguments)


def lenet5(**arguments: Any) -> LeNet1998:
    """LeNet-5 of 1998, 60,850 parameters."""
    return LeNet1998(**arguments)


def lenet(**arguments: Any) -> LeNet:
    """LeNet as one would write it today."""
    return LeNet(**arguments)

"""Detection without anchors (FCOS): every pixel of a feature pyramid says what it lies in, and how far its sides are.

A pyramid gives maps of several extents, which all know what the coarsest saw; two small networks, the same for every map,
give C logits and the logarithms of the distances to the left, top, right and bottom side, in sides of the pixel.
    box = centre - side exp(left, top), centre + side exp(right, bottom)
Tian, Shen, Chen, He 2019, arXiv:1904.01355. Instead of the paper's centreness logits learn how good their box is, see
`thalweg.tasks.detection.TaskAligned`.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.layers.boxes import anchors
from thalweg.layers.pyramid import FeaturePyramid
from thalweg.layers.trunk import trunk
from thalweg.models import builder


def tower(channels: int, depth: int) -> nn.Sequential:
    """3x3 convolutions with group normalisation: it sees maps of many kinds, whose statistics differ."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        layers += [conv, nn.GroupNorm(math.gcd(32, channels), channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class FCOS(nn.Module):
    """backbone: has features(image); its head is dropped.   finest: its maps from this share of the extent on are looked at.

    coarser: further maps, each half the extent of the one before.   channels, depth: of the pyramid and of the networks on it.
    image: [batch channel height width] -> logits [batch place class], logarithms of distances [batch place 4], and the
    square of each place, in shares of width and height [place 4]
    """

    def __init__(
        self, backbone: nn.Module, num_classes: int, channels: int = 128, depth: int = 2, finest: int = 8, coarser: int = 2
    ):
        super().__init__()
        widths = [width for width, stride in trunk(backbone) if stride >= finest]
        if not widths:
            raise ValueError(f"finest={finest}: the maps of {type(backbone).__name__} are all finer")
        self.backbone, self.scales = backbone, len(widths)
        self.pyramid = FeaturePyramid(widths, channels)
        self.stages = nn.ModuleList(nn.Conv2d(channels, channels, 3, 2, 1) for _ in range(coarser))
        self.label_tower, self.box_tower = tower(channels, depth), tower(channels, depth)
        self.label_head, self.box_head = nn.Conv2d(channels, num_classes, 3, padding=1), nn.Conv2d(channels, 4, 3, padding=1)
        nn.init.normal_(self.label_head.weight, std=0.01)
        nn.init.constant_(self.label_head.bias, -math.log(99))  # type: ignore[arg-type]  # nothing is there, 99 times of 100
        nn.init.normal_(self.box_head.weight, std=0.01)
        nn.init.constant_(self.box_head.bias, math.log(2))  # type: ignore[arg-type]  # a box of four pixels a side
        self.shift = nn.Parameter(torch.zeros(len(widths) + coarser))  # how much larger things are on each map

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = self.pyramid(self.backbone.features(image)[-self.scales :])  # type: ignore[operator]
        for stage in self.stages:
            maps.append(stage(maps[-1].relu()))
        logits, distances, cells = [], [], []
        for x, shift in zip(maps, self.shift, strict=True):
            logits.append(self.label_head(self.label_tower(x)).flatten(2).mT)
            distances.append((self.box_head(self.box_tower(x)) + shift).flatten(2).mT)
            side = image.new_tensor([1 / x.shape[3], 1 / x.shape[2]] * 2, dtype=torch.float32)
            centre = anchors(x.shape[2:], (1, 1), (1.0,), device=x.device).unflatten(-1, (2, 2)).mean(-2).repeat(1, 2)
            cells.append(centre + side * side.new_tensor([-0.5, -0.5, 0.5, 0.5]))
        return torch.cat(logits, 1), torch.cat(distances, 1), torch.cat(cells)


def fcos(
    backbone: str = "resnet50",
    num_classes: int = 80,
    channels: int = 256,
    depth: int = 4,
    finest: int = 8,
    coarser: int = 2,
    **arguments: Any,
) -> FCOS:
    """With the backbone of that name and arguments, and the paper's pyramid of 256 channels and networks of four layers."""
    return FCOS(builder(backbone)(**arguments), num_classes, channels, depth, finest, coarser)

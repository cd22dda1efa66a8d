"""Single-shot detection (SSD): every pixel of maps of several scales says what is around it, and how its box lies.

A map at 1/8 of the image's extent sees small things, coarser ones see larger things. Around each pixel of each map lie
anchors, boxes of several sizes and ratios; convolutions give C + 1 logits an anchor (class 0: nothing) and the offset of the
thing's box from it, as `thalweg.layers.boxes.encode` has it.
Liu et al. 2015, arXiv:1512.02325.   LBDL 6.3, D2L 13.7
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.layers.boxes import anchors
from thalweg.layers.trunk import trunk


def halve(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3x3 convolutions with batch normalisation, then the largest of each 2x2 pixels."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        conv = nn.Conv2d(channels, out_channels, 3, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.MaxPool2d(2, ceil_mode=True))


class GlobalMaxPool(nn.Module):
    """The largest value of each map, as a map of one pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax((2, 3), keepdim=True)


class Plain(nn.Module):
    """A trunk of nothing but such halvings.   image: [batch channel height width] -> a map a stage"""

    def __init__(self, channels: Sequence[int], in_channels: int = 3):
        super().__init__()
        widths = [in_channels, *channels]
        self.stages = nn.ModuleList(halve(i, o) for i, o in pairwise(widths))

    def features(self, image: Tensor) -> list[Tensor]:
        maps = [image]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]


class SSD(nn.Module):
    """Class and box heads on the maps of a backbone, and on maps of further stages, each half the extent of the one before.

    backbone: has features(image); its head is dropped.   finest: its maps from this share of the extent on are looked at.
    channels: of each further stage; after them comes, with `whole`, the maximum over the whole map.
    sizes: of the anchors of each scale, shares of the image's shorter side.   ratios: width to height, n + m - 1 anchors
    a pixel.   ValueError unless there are sizes for as many scales as there are maps.
    image: [batch channel height width] -> logits [batch anchor 1 + class], offsets [batch anchor 4], anchors [anchor 4] in
    shares of width and height
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        sizes: Sequence[Sequence[float]],
        ratios: Sequence[float] = (1.0, 2.0, 0.5),
        channels: Sequence[int] = (128, 128, 128),
        finest: int = 8,
        whole: bool = True,
    ):
        super().__init__()
        widths = [width for width, stride in trunk(backbone) if stride >= finest]
        if not widths:
            raise ValueError(f"finest={finest}: the maps of {type(backbone).__name__} are all finer")
        self.backbone, self.scales = backbone, len(widths)
        self.stages = nn.ModuleList()
        for width in channels:
            self.stages.append(halve(widths[-1], width))
            widths.append(width)
        if whole:
            self.stages.append(GlobalMaxPool())
            widths.append(widths[-1])
        if len(sizes) != len(widths):
            raise ValueError(f"sizes: for {len(sizes)} scales, expected {len(widths)}, one a map")
        self.sizes, self.ratios, self.outputs = sizes, ratios, num_classes + 1
        counts = [len(size) + len(ratios) - 1 for size in sizes]
        self.label_head, self.box_head = (
            nn.ModuleList(nn.Conv2d(w, n * out, 3, padding=1) for w, n in zip(widths, counts, strict=True))
            for out in (self.outputs, 4)
        )

    def maps(self, image: Tensor) -> list[Tensor]:
        """What is looked at, the finest map first."""
        maps = self.backbone.features(image)[-self.scales :]  # type: ignore[operator]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps

    def anchors(self, maps: list[Tensor], size: Sequence[int]) -> list[Tensor]:
        """The anchors of each map [anchor 4], in pixels of an image of that height and width."""
        return [anchors(x.shape[2:], size, [share * min(size) for share in shares], self.ratios, device=x.device)
                for x, shares in zip(maps, self.sizes, strict=True)]  # fmt: skip

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        size, maps = image.shape[2:], self.maps(image)
        logits, offsets = (torch.cat([head(x).movedim(1, -1).reshape(len(x), -1, outputs)
                                      for x, head in zip(maps, heads, strict=True)], 1)
                           for heads, outputs in ((self.label_head, self.outputs), (self.box_head, 4)))  # fmt: skip
        around = torch.cat(self.anchors(maps, size))
        return logits, offsets, around / around.new_tensor([size[1], size[0]] * 2)


def tiny_ssd(num_classes: int = 1, in_channels: int = 3, **arguments: Any) -> SSD:
    """D2L's detector: five scales of four anchors, 5,444 on 256x256 pixels.   D2L 13.7"""
    sizes = [(0.2, 0.272), (0.37, 0.447), (0.54, 0.619), (0.71, 0.79), (0.88, 0.961)]
    return SSD(Plain((16, 32, 64), in_channels), num_classes, **{"sizes": sizes, **arguments})


def single_box_ssd(
    num_classes: int = 10, in_channels: int = 3, width: int = 32, scales: int = 5, finest: int = 8, **arguments: Any
) -> SSD:
    """LBDL's detector: one box a pixel, the anchor of a scale twice as large as that of the one before, the last 1.

    scales: how many maps, the last of one pixel on a square image of finest * 2^(scales - 1) pixels.   LBDL 6.3
    """
    down = finest.bit_length() - 1
    trunk = Plain([min(width << stage, 128) for stage in range(down)], in_channels)
    sizes = [(2.0 ** (1 + scale - scales),) for scale in range(scales)]
    return SSD(
        trunk, num_classes, sizes, (1.0,), **{"channels": (128,) * (scales - 1), "finest": finest, "whole": False, **arguments}
    )

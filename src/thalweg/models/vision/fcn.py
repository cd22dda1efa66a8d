"""Fully convolutional network (FCN): a classifier without its dense layers names every place, and its map is enlarged.

logits = up(head(trunk(image))), head a 1x1 convolution to the classes, up a transposed convolution that starts as bilinear
interpolation. All that is known passes the coarsest map; with skips, scores of finer maps are added on the way up.
Long, Shelhamer, Darrell 2014, arXiv:1411.4038.   LBDL 6.4, D2L 13.11
"""

from typing import Any

import torch
from torch import Tensor, nn

from thalweg.layers.initialisation import bilinear_
from thalweg.layers.trunk import trunk
from thalweg.models import builder


class Enlarge(nn.Module):
    """A map `factor` times as large, each channel by a transposed convolution that starts as bilinear interpolation.

    Elsewhere: D2L 13.11 lets it mix the channels, which starts the same and has as many times the parameters.
    """

    def __init__(self, channels: int, factor: int):
        super().__init__()
        odd = factor % 2
        padding = (factor - odd) // 2
        self.conv = nn.ConvTranspose2d(channels, channels, 2 * factor - odd, factor, padding, groups=channels, bias=False)
        bilinear_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # in bf16 it takes a CPU eight times as long
            return self.conv(x.float() if x.dtype == torch.bfloat16 else x)


class FCN(nn.Module):
    """backbone: gives a map a stage, see `thalweg.vocabulary.Backbone`; its head is dropped.

    skips: how many finer maps are scored too: with a trunk that ends at a stride of 32, 0 is the paper's FCN-32s, 1 its
    FCN-16s, 2 its FCN-8s.   image: [batch channel height width] -> logits [batch class height width]
    """

    def __init__(self, backbone: nn.Module, num_classes: int, skips: int = 0):
        super().__init__()
        maps = trunk(backbone)
        if not 0 <= skips < len(maps):
            raise ValueError(f"skips={skips}: expected 0 to {len(maps) - 1}, as the backbone gives {len(maps)} maps")
        self.backbone = backbone
        self.head = nn.Conv2d(maps[-1][0], num_classes, 1)
        self.skips, self.up = nn.ModuleList(), nn.ModuleList()
        stride = maps[-1][1]
        for channels, finer in reversed(maps[-1 - skips : -1]):
            score = nn.Conv2d(channels, num_classes, 1)
            nn.init.zeros_(score.weight)  # so that it starts as the network without this skip
            nn.init.zeros_(score.bias)  # type: ignore[arg-type]
            self.skips.append(score)
            self.up.append(Enlarge(num_classes, stride // finer))
            stride = finer
        self.up.append(Enlarge(num_classes, stride))

    def forward(self, image: Tensor) -> Tensor:
        *finer, x = self.backbone.features(image)  # type: ignore[operator]
        x = self.head(x)
        for score, up, skip in zip(self.skips, self.up, reversed(finer), strict=False):
            x = up(x)[..., : skip.shape[-2], : skip.shape[-1]] + score(skip)
        return self.up[-1](x)[..., : image.shape[-2], : image.shape[-1]]


def fcn(backbone: str = "resnet18", num_classes: int = 21, skips: int = 0, **arguments: Any) -> FCN:
    """An FCN on the trunk of that name and arguments; on ResNet-18, for 21 classes, 11,273,301 parameters."""
    return FCN(builder(backbone)(**arguments), num_classes, skips)

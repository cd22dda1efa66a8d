"""U-Net: down to see far, up to be exact, and at every extent what was seen on the way down is handed across.

x[i+1] = stage(pool(x[i]));   y[i] = merge(x[i], up(y[i+1])).   Without the skips, every signal passes the coarsest map.
Ronneberger, Fischer, Brox 2015, arXiv:1505.04597; with padding and batch normalisation, as it is used today.
LBDL 4.7, 6.4
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d


def double(in_channels: int, out_channels: int) -> nn.Sequential:
    """Twice a 3x3 convolution, batch normalisation and relu."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        convolution = nn.Conv2d(channels, out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        layers += [convolution, nn.BatchNorm2d(out_channels), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """width: channels at the full extent; each of num_stages stages below it halves the extent and doubles them.

    skips: whether the maps of the way down are handed across; without them, fine detail is lost on the way.
    image: [batch channel height width] -> logits [batch class height width], of any extent from 2^num_stages on
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 2, width: int = 64, num_stages: int = 4, skips: bool = True):
        super().__init__()
        widths = [width << stage for stage in range(num_stages + 1)]
        self.stages = nn.ModuleList(double(*pair) for pair in zip([in_channels, *widths], widths, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * wide, wide, 2, 2) for wide in reversed(widths[:-1]))
        self.merge = nn.ModuleList(double((1 + skips) * wide, wide) for wide in reversed(widths[:-1]))
        self.head = nn.Conv2d(width, num_classes, 1)
        self.skips = skips

    def features(self, image: Tensor) -> list[Tensor]:  # a map a stage, each at half the extent of the one before
        maps = [self.stages[0](image)]
        for stage in self.stages[1:]:
            maps.append(stage(max_pool2d(maps[-1], 2)))
        return maps

    def forward(self, image: Tensor) -> Tensor:
        *finer, x = self.features(image)
        for up, merge, skip in zip(self.up, self.merge, reversed(finer), strict=True):
            x = up(x, output_size=skip.shape[-2:])  # pooling has lost the last row of an odd extent
            x = merge(torch.cat([skip, x], 1) if self.skips else x)
        return self.head(x)


def unet(**arguments: Any) -> UNet:
    """Four stages down from 64 to 1,024 channels, 31,037,698 parameters for two classes of colour images."""
    return UNet(**arguments)

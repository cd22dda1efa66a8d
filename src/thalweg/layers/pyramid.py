"""The maps of a trunk, each told what the coarser ones saw."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import interpolate


class FeaturePyramid(nn.Module):
    """Maps of several extents with as many channels each; the large ones know what the small ones saw.

    p_l = 3x3(inner_l), inner_l = 1x1(x_l) + inner_{l+1} enlarged.   Lin et al. 2016, arXiv:1612.03144
    in_channels: of each map.   channels: of each map of the pyramid.
    maps: [batch channel height width] each, the largest first -> as many, of the same extents
    """

    def __init__(self, in_channels: Sequence[int], channels: int):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        for convolution in (*self.lateral, *self.output):
            nn.init.kaiming_uniform_(convolution.weight, a=1)  # type: ignore[arg-type]
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        inner = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for level in reversed(range(len(inner) - 1)):
            inner[level] = inner[level] + interpolate(inner[level + 1], inner[level].shape[-2:])
        return [output(x) for output, x in zip(self.output, inner, strict=True)]

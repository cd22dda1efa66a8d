"""The network that learns CIFAR-10 in the least time: its first filters are not learned but seen in the images.

whiten: 2x2 patches, weighed so that what comes out is uncorrelated and of equal variance, each direction with both signs;
block: conv -> 2x2 maximum -> norm -> gelu -> conv -> norm -> gelu, the norms without weights, and each convolution starts
by handing on as many maps as it can;   logits = W max(x) / 9.
Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv:2404.00498.   LBDL 5.2
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, unfold

from thalweg.layers.standardize import moments


def whitening(image: Tensor, patch_size: int = 2, eps: float = 5e-4) -> list:
    """Filters that whiten the patches of (at most 5,000 of the) uint8 images, as plain numbers [filter channel row column].

    Of the standardised patches' covariance C = V diag(l) V': the rows of diag(l + eps)^(-1/2) V', and each negated.
    """
    of = {name: torch.tensor(values).view(-1, 1, 1) for name, values in moments(image).items()}
    sample = image[:: max(1, len(image) // 5000)] / 255
    patches = unfold((sample - of["mean"]) / of["deviation"], patch_size).transpose(1, 2).flatten(0, 1).double()
    size, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (directions / (size + eps).sqrt()).T.flip(0)
    return torch.cat([filters, -filters]).unflatten(1, (image.shape[1], patch_size, patch_size)).float().tolist()


def conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """3x3; the first filters hand on what comes in."""
    layer = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(layer.weight[:in_channels])
    return layer


class Norm(nn.BatchNorm2d):
    """Batch normalisation with a bias and no weight, its averages over few batches."""

    def __init__(self, channels: int):
        super().__init__(channels, momentum=0.4)
        self.weight.requires_grad_(False)


class Block(nn.Module):
    """Two convolutions, the maximum of 2x2 after the first.   x: [batch channel height width]"""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.layers = nn.ModuleList([conv(in_channels, out_channels), conv(out_channels, out_channels)])
        self.norms, self.pool = nn.ModuleList([Norm(out_channels), Norm(out_channels)]), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = gelu(self.norms[0](self.pool(self.layers[0](x))))
        return gelu(self.norms[1](self.layers[1](x)))


class Airbench(nn.Module):
    """filters: of the first layer, see `whitening`, which stay as they are; its biases are learned.

    image: [batch channel height width], 31 to 38 pixels a side for a last map of 3x3 -> logits [batch class]
    """

    def __init__(self, filters: Sequence, num_classes: int = 10, widths: Sequence[int] = (64, 256, 256)):
        super().__init__()
        weight = torch.tensor(filters)
        self.stem = nn.Conv2d(weight.shape[1], len(weight), tuple(weight.shape[2:]))
        self.stem.weight = nn.Parameter(weight, requires_grad=False)
        channels = [len(weight), *widths]
        self.stages = nn.ModuleList(Block(*pair) for pair in zip(channels, widths, strict=False))
        self.head = nn.Linear(channels[-1], num_classes, bias=False)

    def features(self, image: Tensor) -> list[Tensor]:  # a map a stage, each at half the extent of the one before
        maps = [gelu(self.stem(image))]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image)[-1].amax((2, 3))) / 9

"""The network that learns CIFAR-10 in the least time: its first filters are not learned but seen in the images.

whiten: 2x2 patches, weighed so that what comes out is uncorrelated and of equal variance, each direction with both signs;
block: conv -> 2x2 maximum -> norm -> gelu -> conv -> norm -> gelu, or with a third convolution before a shortcut from the
first; the norms have no weights, and each convolution starts by handing on as many maps as it can;   logits = W (max(x) / 9).
Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv:2404.00498.   LBDL 5.2
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, gelu, unfold

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
        super().__init__(channels, momentum=0.4, affine=False)
        self.bias = nn.Parameter(torch.zeros(channels))


class Whiten(nn.Module):
    """Given filters, which are not learned, and a bias a filter, which is.   image: [batch channel height width]"""

    weight: Tensor

    def __init__(self, filters: Sequence):
        super().__init__()
        self.register_buffer("weight", torch.tensor(filters))
        self.bias = nn.Parameter(torch.zeros(len(filters)))

    def forward(self, image: Tensor) -> Tensor:
        return conv2d(image, self.weight, self.bias)


class Block(nn.Module):
    """Convolutions, the maximum of 2x2 after the first; with three, the last two are a correction to what that gives.

    x: [batch channel height width]
    """

    def __init__(self, in_channels: int, out_channels: int, depth: int):
        super().__init__()
        self.layers = nn.ModuleList(conv(out_channels if number else in_channels, out_channels) for number in range(depth))
        self.norms, self.pool = nn.ModuleList(Norm(out_channels) for _ in range(depth)), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        first = gelu(self.norms[0](self.pool(self.layers[0](x))))
        x = self.norms[1](self.layers[1](first))
        if len(self.layers) == 3:
            x = first + self.norms[2](self.layers[2](gelu(x)))
        return gelu(x)


class Airbench(nn.Module):
    """filters: of the first layer, see `whitening`, which stay as they are; its biases are learned.
    depth: convolutions a block, 2, or 3 for a residual network.

    image: [batch channel height width], 25 to 32 pixels a side for a last map of 3x3 -> logits [batch class]
    """

    def __init__(self, filters: Sequence, num_classes: int = 10, widths: Sequence[int] = (64, 256, 256), depth: int = 2):
        super().__init__()
        if depth not in (2, 3):
            raise ValueError(f"depth={depth}: expected 2 or 3")
        self.stem, channels = Whiten(filters), [len(filters), *widths]
        self.stages = nn.ModuleList(Block(*pair, depth) for pair in zip(channels, widths, strict=False))
        self.head = nn.Linear(channels[-1], num_classes, bias=False)

    def features(self, image: Tensor) -> list[Tensor]:  # a map a stage, each at half the extent of the one before
        maps = [gelu(self.stem(image))]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image)[-1].amax((2, 3)) / 9)

"""GoogLeNet (Inception): which size of filter is right? All of them, side by side, and the next layer chooses.

y = [1x1(x), 3x3(1x1(x)), 5x5(1x1(x)), 1x1(pool(x))], joined along the channels; the 1x1 before a wide filter keeps it cheap.
Szegedy et al. 2014, arXiv:1409.4842, without its two further heads and its normalisation across channels, which helped it
to train; batch normalisation does that better (Ioffe, Szegedy 2015, arXiv:1502.03167).   D2L 7.4
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from thalweg.weights import Config, Layout, understood

# A block a column: maps of 1x1, of the 1x1 before 3x3, of 3x3, of the 1x1 before 5x5, of 5x5, of the 1x1 after pooling.
BLOCKS = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    ((192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64),
     (256, 160, 320, 32, 128, 128)),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)  # fmt: skip


def conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, *, batch_norm: bool) -> nn.Sequential:
    """Convolution, batch normalisation if wanted, rectifier."""
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=not batch_norm)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return nn.Sequential(layer, *([nn.BatchNorm2d(out_channels, eps=1e-3)] if batch_norm else []), nn.ReLU())


class Inception(nn.Module):
    """Four paths side by side; `channels` as in a column of BLOCKS, `kernel_size` of the wide path.

    x: [batch in_channels height width] -> [batch out_channels height width], out_channels the sum over the paths
    """

    def __init__(self, in_channels: int, channels: tuple[int, ...], kernel_size: int, batch_norm: bool):
        super().__init__()
        one, before_three, three, before_wide, wide, pooled = channels
        self.out_channels = one + three + wide + pooled

        def path(*sizes: int) -> list[nn.Sequential]:  # maps in, then maps and kernel_size of each convolution
            ins = (sizes[0], *sizes[1:-2:2])
            return [conv(*layer, batch_norm=batch_norm) for layer in zip(ins, sizes[1::2], sizes[2::2], strict=True)]

        self.paths = nn.ModuleList([
            nn.Sequential(*path(in_channels, one, 1)),
            nn.Sequential(*path(in_channels, before_three, 1, three, 3)),
            nn.Sequential(*path(in_channels, before_wide, 1, wide, kernel_size)),
            nn.Sequential(nn.MaxPool2d(3, 1, 1), *path(in_channels, pooled, 1)),
        ])  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([path(x) for path in self.paths], 1)


class GoogLeNet(nn.Module):
    """Nine Inception blocks in three stages; each stage after the first halves the extent.

    stem: what comes before the first stage: "large" halves the extent three times (224x224 images), "medium" twice, "small"
    once (28x28 images).   kernel_size: of the wide paths.   width: 64 as published, all maps in proportion; even, at least 4.
    image: [batch channel height width] -> logits [batch class]
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1000,
        batch_norm: bool = False,
        kernel_size: int = 5,
        width: int = 64,
        dropout: float = 0.2,
        stem: Literal["large", "medium", "small"] = "large",
    ):
        super().__init__()
        if stem not in ("large", "medium", "small"):
            raise ValueError(f"stem={stem!r}: expected large, medium or small")
        if width < 4:
            raise ValueError(f"width={width}: expected at least 4, so that the narrowest path has a map")
        first, second = (7, 2) if stem == "large" else (3, 1)
        self.stem = nn.Sequential(
            conv(in_channels, width, first, second, batch_norm=batch_norm),
            nn.MaxPool2d(3, 2, ceil_mode=True) if stem != "small" else nn.Identity(),
            conv(width, width, 1, batch_norm=batch_norm),
            conv(width, 3 * width, 3, batch_norm=batch_norm),
            nn.MaxPool2d(3, 2, ceil_mode=True),
        )
        self.stages, channels = nn.ModuleList(), 3 * width
        for blocks, window in zip(BLOCKS, (1, 3, 2), strict=True):
            stage = nn.Sequential(nn.MaxPool2d(window, 2, ceil_mode=True) if window > 1 else nn.Identity())
            for block in blocks:
                inception = Inception(channels, tuple(maps * width // 64 for maps in block), kernel_size, batch_norm)
                stage.append(inception)
                channels = inception.out_channels
            self.stages.append(stage)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, num_classes)

    def features(self, image: Tensor) -> list[Tensor]:  # a map a stage, each at half the extent of the one before
        maps = [self.stem(image)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.dropout(self.features(image)[-1].mean((2, 3))))


def googlenet(**arguments: Any) -> GoogLeNet:
    """GoogLeNet, 6,998,552 parameters for ImageNet."""
    return GoogLeNet(**arguments)


def googlenet_bn(**arguments: Any) -> GoogLeNet:
    """GoogLeNet with batch normalisation, 6,624,904 parameters for ImageNet; its wide paths are of 3x3, as torchvision's."""
    return GoogLeNet(**{"batch_norm": True, "kernel_size": 3, **arguments})


def torchvision_arguments(config: Config) -> dict[str, Any]:
    """What GoogLeNet takes; torchvision itself writes no config.json."""
    understood(config, ("in_channels", "num_classes"), architecture="googlenet")
    sizes = {name: config[name] for name in ("in_channels", "num_classes")}
    return sizes | {"batch_norm": True, "kernel_size": 3, "width": 64}


def torchvision_config(model: GoogLeNet) -> Config:
    """The sizes; ValueError if torchvision has no such model."""
    first: Any = model.stem[0][0]  # type: ignore[index]
    wide: Any = model.stages[0][1].paths[2][1]  # type: ignore[index, union-attr]
    if (first.kernel_size, first.out_channels, wide[0].kernel_size, len(wide)) != ((7, 7), 64, (3, 3), 3):
        raise ValueError("stem, width, kernel_size, batch_norm: torchvision has the large stem, 64, 3 and True")
    return {"architecture": "googlenet", "in_channels": first.in_channels, "num_classes": model.head.out_features}


LETTERS = [(stage, block, f"inception{stage + 3}{'abcde'[block]}") for stage, blocks in enumerate(BLOCKS)
           for block in range(len(blocks))]  # fmt: skip
CONVS = {"branch1": "0.0", "branch2.0": "1.0", "branch2.1": "1.1", "branch3.0": "2.0", "branch3.1": "2.1", "branch4.1": "3.1"}
PUBLIC = {
    "torchvision": Layout(
        {
            **{f"conv{number}.{part}.*": f"stem.{place}.{index}.*"
               for number, place in ((1, 0), (2, 2), (3, 3)) for index, part in enumerate(("conv", "bn"))},
            **{f"{name}.{branch}.{part}.*": f"stages.{stage}.{block + 1}.paths.{place}.{index}.*"
               for stage, block, name in LETTERS for branch, place in CONVS.items()
               for index, part in enumerate(("conv", "bn"))},
            "fc.*": "head.*",
            ("aux1.*", "aux2.*"): None,
        },
        torchvision_arguments,
        torchvision_config,
    ),
}  # fmt: skip

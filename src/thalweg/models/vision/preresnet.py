"""Pre-activation residual networks (ResNet v2): nothing stands on the way from a block to the next, nor from the loss back.

y = x + branch(x), branch: norm -> relu -> convolution, twice or, through a bottleneck, three times; no rectifier after the
sum, so x_L = x_l + sum of the branches between. Where the shape changes, the shortcut is a 1x1 convolution of relu(norm(x)).
He, Zhang, Ren, Sun 2016, arXiv:1603.05027.   D2L 7.6
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.functional import relu

from thalweg.weights import Config, Layout, understood


def conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without a bias, as a normalisation follows."""
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class Block(nn.Module):
    """Normalisation and rectifier before each of two 3x3 convolutions, or of 1x1, 3x3, 1x1 through a bottleneck."""

    def __init__(self, in_channels: int, channels: int, stride: int, bottleneck: bool):
        super().__init__()
        self.out_channels = out = 4 * channels if bottleneck else channels
        convs = (
            [conv(in_channels, channels, 1), conv(channels, channels, 3, stride), conv(channels, out, 1)]
            if bottleneck
            else [conv(in_channels, channels, 3, stride), conv(channels, out, 3)]
        )
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(layer.in_channels) for layer in convs)
        self.shortcut = None if (in_channels, stride) == (out, 1) else conv(in_channels, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        branch = relu(self.norms[0](x))
        shortcut = x if self.shortcut is None else self.shortcut(branch)
        branch = self.convs[0](branch)
        for norm, layer in zip(self.norms[1:], self.convs[1:], strict=True):
            branch = layer(relu(norm(branch)))
        return shortcut + branch


class PreResNet(nn.Module):
    """depths: blocks a stage; each stage after the first halves the extent and doubles the channels.

    stem: what comes before the first stage: "large" halves the extent twice (224x224 images), "medium" once, "small" keeps
    it (32x32 images).
    image: [batch channel height width] -> logits [batch class]
    """

    def __init__(
        self,
        depths: Sequence[int],
        bottleneck: bool = False,
        in_channels: int = 3,
        num_classes: int = 1000,
        width: int = 64,
        stem: Literal["large", "medium", "small"] = "large",
    ):
        super().__init__()
        if stem not in ("large", "medium", "small"):
            raise ValueError(f"stem={stem!r}: expected large, medium or small")
        first = conv(in_channels, width, 7, 2) if stem == "large" else conv(in_channels, width, 3)
        self.stem = nn.Sequential(first, *([nn.MaxPool2d(3, 2, 1)] if stem != "small" else []))
        self.stages, channels = nn.ModuleList(), width
        for stage, depth in enumerate(depths):
            blocks = nn.Sequential()
            for position in range(depth):
                block = Block(channels, width << stage, 2 if stage and not position else 1, bottleneck)
                blocks.append(block)
                channels = block.out_channels
            self.stages.append(blocks)
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, num_classes)

    def features(self, image: Tensor) -> list[Tensor]:  # a map a stage, each at half the extent of the one before
        maps = [self.stem(image)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]

    def forward(self, image: Tensor) -> Tensor:
        return self.head(relu(self.norm(self.features(image)[-1])).mean((2, 3)))


def preresnet18(**arguments: Any) -> PreResNet:
    """18 layers, 11,687,720 parameters for ImageNet."""
    return PreResNet((2, 2, 2, 2), **arguments)


def preresnet50(**arguments: Any) -> PreResNet:
    """50 layers with bottlenecks, 25,549,352 parameters for ImageNet."""
    return PreResNet((3, 4, 6, 3), bottleneck=True, **arguments)


KNOWN: dict[str, tuple[list[int], bool]] = {"resnetv2_18": ([2, 2, 2, 2], False), "resnetv2_50": ([3, 4, 6, 3], True)}


def timm_arguments(config: Config) -> dict[str, Any]:
    """What PreResNet takes, from timm's config.json."""
    if config.get("architecture") not in KNOWN:
        raise ValueError(f"config.json says architecture={config.get('architecture')!r}: expected one of {', '.join(KNOWN)}")
    more = config.get("model_args", {})
    understood(config, ("architecture", "model_args", "num_classes"), global_pool="avg")
    understood(more, ("in_chans", "layers", "num_classes"), global_pool="avg")
    depths, bottleneck = KNOWN[config["architecture"]]
    return {"depths": more.get("layers", depths), "bottleneck": bottleneck, "in_channels": more.get("in_chans", 3),
            "num_classes": config["num_classes"], "width": 64}  # fmt: skip


def timm_config(model: PreResNet) -> Config:
    """timm's config.json; ValueError if timm has no such model."""
    first: Any = model.stem[0]
    stages: Any = model.stages
    if (first.kernel_size, first.out_channels) != ((7, 7), 64):
        raise ValueError(f"stem, width={first.out_channels}: timm's have the large stem and 64")
    more = {"layers": [len(stage) for stage in stages], "in_chans": first.in_channels}
    name = "resnetv2_50" if len(stages[0][0].convs) == 3 else "resnetv2_18"
    return {"architecture": name, "num_classes": model.head.out_features, "model_args": more,
            "pretrained_cfg": {"first_conv": "stem.conv", "classifier": "head.fc"}}  # fmt: skip


PUBLIC = {
    "timm": Layout(
        {
            "stem.conv.*": "stem.0.*",
            "stages.{0}.blocks.{0}.norm{1}.*": "stages.{0}.{0}.norms.{0}.*",
            "stages.{0}.blocks.{0}.conv{1}.*": "stages.{0}.{0}.convs.{0}.*",
            "stages.{0}.blocks.{0}.downsample.conv.*": "stages.{0}.{0}.shortcut.*",
            "norm.*": "norm.*",
            "head.fc.weight": ("head.weight", "1x1"),
            "head.fc.bias": "head.bias",
        },
        timm_arguments,
        timm_config,
    ),
}

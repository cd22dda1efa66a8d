"""DenseNet: every layer sees the maps of all layers before it, so each need add only a few.

block: x_l = layer([x_0, x_1, ..., x_{l-1}]), joined along the channels and not summed as in a residual network.
layer: norm -> relu -> 1x1 to 4 k maps -> norm -> relu -> 3x3 to k maps, k the growth rate. Between blocks a transition
halves channels and extent.
Huang, Liu, van der Maaten, Weinberger 2016, arXiv:1608.06993.   D2L 7.7
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from thalweg.weights import Config, Layout, understood


def conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without a bias, as a normalisation follows."""
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return layer


def layer(in_channels: int, growth_rate: int) -> nn.Sequential:
    """`growth_rate` maps from all that are there, through a bottleneck of four times as many."""
    narrow = 4 * growth_rate
    return nn.Sequential(
        nn.BatchNorm2d(in_channels), nn.ReLU(), conv(in_channels, narrow, 1),
        nn.BatchNorm2d(narrow), nn.ReLU(), conv(narrow, growth_rate, 3),
    )  # fmt: skip


class Stage(nn.Module):
    """A transition, unless it is the first, which halves channels and extent; then a dense block of `depth` layers.

    x: [batch in_channels height width] -> [batch out_channels ...], `growth_rate` more a layer
    """

    def __init__(self, in_channels: int, depth: int, growth_rate: int, first: bool):
        super().__init__()
        half = in_channels // 2
        self.transition = nn.Identity() if first else nn.Sequential(
            nn.BatchNorm2d(in_channels), nn.ReLU(), conv(in_channels, half, 1), nn.AvgPool2d(2))  # fmt: skip
        channels = in_channels if first else half
        self.layers = nn.ModuleList(layer(channels + place * growth_rate, growth_rate) for place in range(depth))
        self.out_channels = channels + depth * growth_rate

    def forward(self, x: Tensor) -> Tensor:
        x = self.transition(x)
        for added in self.layers:
            x = torch.cat([x, added(x)], 1)
        return x


class DenseNet(nn.Module):
    """depths: layers a stage; the stem gives twice the growth rate.

    stem: what comes before the first stage: "large" halves the extent twice (224x224 images), "medium" once, "small" keeps
    it (32x32 images).
    image: [batch channel height width] -> logits [batch class]
    """

    def __init__(
        self,
        depths: Sequence[int],
        growth_rate: int = 32,
        in_channels: int = 3,
        num_classes: int = 1000,
        stem: Literal["large", "medium", "small"] = "large",
    ):
        super().__init__()
        if stem not in ("large", "medium", "small"):
            raise ValueError(f"stem={stem!r}: expected large, medium or small")
        channels = 2 * growth_rate
        first = conv(in_channels, channels, 7, 2) if stem == "large" else conv(in_channels, channels, 3)
        pool = [nn.MaxPool2d(3, 2, 1)] if stem != "small" else []
        self.stem = nn.Sequential(first, nn.BatchNorm2d(channels), nn.ReLU(), *pool)
        self.stages = nn.ModuleList()
        for depth in depths:
            stage = Stage(channels, depth, growth_rate, not self.stages)
            self.stages.append(stage)
            channels = stage.out_channels
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, num_classes)

    def features(self, image: Tensor) -> list[Tensor]:  # a map a stage, each at half the extent of the one before
        maps = [self.stem(image)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]

    def forward(self, image: Tensor) -> Tensor:
        return self.head(relu(self.norm(self.features(image)[-1])).mean((2, 3)))


DEPTHS = {"densenet121": (6, 12, 24, 16), "densenet169": (6, 12, 32, 32), "densenet201": (6, 12, 48, 32)}


def densenet121(**arguments: Any) -> DenseNet:
    """121 layers, 7,978,856 parameters for ImageNet."""
    return DenseNet(DEPTHS["densenet121"], **arguments)


def densenet169(**arguments: Any) -> DenseNet:
    """169 layers, 14,149,480 parameters for ImageNet."""
    return DenseNet(DEPTHS["densenet169"], **arguments)


def densenet201(**arguments: Any) -> DenseNet:
    """201 layers, 20,013,928 parameters for ImageNet."""
    return DenseNet(DEPTHS["densenet201"], **arguments)


def timm_arguments(config: Config) -> dict[str, Any]:
    """What DenseNet takes, from timm's config.json."""
    if config.get("architecture") not in DEPTHS:
        raise ValueError(f"config.json says architecture={config.get('architecture')!r}: expected one of {', '.join(DEPTHS)}")
    more = config.get("model_args", {})
    understood(config, ("architecture", "model_args", "num_classes"), global_pool="avg")
    understood(more, ("in_chans", "block_config", "growth_rate", "num_classes"), global_pool="avg", bn_size=4)
    return {"depths": list(more.get("block_config", DEPTHS[config["architecture"]])),
            "growth_rate": more.get("growth_rate", 32), "in_channels": more.get("in_chans", 3),
            "num_classes": config["num_classes"]}  # fmt: skip


def timm_config(model: DenseNet) -> Config:
    """timm's config.json; ValueError if timm has no such model."""
    first: Any = model.stem[0]
    if first.kernel_size != (7, 7):
        raise ValueError("stem: of 3x3 filters; the public DenseNets have the large one")
    stages: Any = model.stages
    more = {"block_config": [len(stage.layers) for stage in stages], "growth_rate": first.out_channels // 2,
            "in_chans": first.in_channels}  # fmt: skip
    name = next((name for name, depths in DEPTHS.items() if list(depths) == more["block_config"]), "densenet121")
    return {"architecture": name, "num_classes": model.head.out_features, "model_args": more,
            "pretrained_cfg": {"first_conv": "features.conv0", "classifier": "classifier"}}  # fmt: skip


PUBLIC = {
    "timm": Layout(  # and torchvision
        {
            "features.conv0.*": "stem.0.*",
            "features.norm0.*": "stem.1.*",
            "features.denseblock{1}.denselayer{1}.norm1.*": "stages.{0}.layers.{0}.0.*",
            "features.denseblock{1}.denselayer{1}.conv1.*": "stages.{0}.layers.{0}.2.*",
            "features.denseblock{1}.denselayer{1}.norm2.*": "stages.{0}.layers.{0}.3.*",
            "features.denseblock{1}.denselayer{1}.conv2.*": "stages.{0}.layers.{0}.5.*",
            "features.transition{0}.norm.*": "stages.{0}.transition.0.*",
            "features.transition{0}.conv.*": "stages.{0}.transition.2.*",
            "features.norm5.*": "norm.*",
            "classifier.*": "head.*",
        },
        timm_arguments,
        timm_config,
    ),
}

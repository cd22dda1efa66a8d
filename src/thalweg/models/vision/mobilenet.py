"""MobileNetV2: a block widens, looks at every channel by itself and narrows again, so that a network fits into a telephone.

y = x + project(depthwise(expand(x))): 1x1 to six times the channels, 3x3 on each of them alone, 1x1 back to few. After
the first two follows relu6(x) = min(max(x, 0), 6), after the last nothing: few channels have none to lose. The shortcut
joins the narrow ends, where the shape is kept. At each place a 3x3 convolution of C channels into C multiplies 9 C^2
times, a depthwise one and a 1x1 together 9 C + C^2 times.
Sandler, Howard, Zhu, Zhmoginov, Chen 2018, arXiv:1801.04381; the separable convolution: Howard et al. 2017, arXiv:1704.04861.
"""

import re
from typing import Any, Literal

from torch import Tensor, nn

from thalweg.weights import Config, Layout, understood

STAGES = (  # of table 2: expansion, channels, blocks, stride
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution and batch normalisation."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out")
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))


def activated(*arguments: int) -> nn.Sequential:
    """The same, and ReLU6."""
    return conv(*arguments).append(nn.ReLU6(inplace=True))


class Block(nn.Module):
    """The inverted residual: narrow, wide, narrow, and the shortcut between the narrow ends."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int):
        super().__init__()
        channels = expansion * in_channels
        self.stride, self.shortcut = stride, (in_channels, stride) == (out_channels, 1)
        self.expand = activated(in_channels, channels, 1) if expansion > 1 else nn.Identity()
        self.depthwise = activated(channels, channels, 3, stride, channels)
        self.project = conv(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


def rounded(channels: float) -> int:
    """The nearest multiple of 8, and the next one where that were a tenth less or more below."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


class MobileNetV2(nn.Module):
    """width: factor on all channels but the last 1280, which it only increases; every number becomes a multiple of 8.

    stem: of the five times that the extent is halved, "large" does all (224x224 images), "medium" leaves out the first,
    "small" the first two (32x32 images). The weights fit all three.
    image: [batch channel height width] -> logits [batch class]
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        width: float = 1.0,
        stem: Literal["large", "medium", "small"] = "large",
        dropout: float = 0.2,
    ):
        super().__init__()
        if stem not in ("large", "medium", "small"):
            raise ValueError(f"stem={stem!r}: expected large, medium or small")
        self.width, channels = width, rounded(32 * width)
        self.stem = activated(in_channels, channels, 3, 2 if stem == "large" else 1)
        self.stages = nn.ModuleList()
        for number, (expansion, wanted, depth, stride) in enumerate(STAGES):
            out, blocks = rounded(wanted * width), nn.Sequential()
            first = 1 if stem == "small" and number == 1 else stride
            for position in range(depth):
                blocks.append(Block(channels, out, 1 if position else first, expansion))
                channels = out
            self.stages.append(blocks)
        out = max(1280, rounded(1280 * width))
        self.last = activated(channels, out, 1)
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(out, num_classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def features(self, image: Tensor) -> list[Tensor]:  # the last map of every extent, each half the one before
        maps = [self.stem(image)]
        for stage in self.stages:
            x, first = stage(maps[-1]), next(stage.children())
            maps = [*maps, x] if first.stride == 2 else [*maps[:-1], x]
        return maps

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.dropout(self.last(self.features(image)[-1]).mean((2, 3))))


def mobilenetv2(**arguments: Any) -> MobileNetV2:
    """53 layers, 3,504,872 parameters for ImageNet, 0.3 thousand million multiplications an image of 224x224."""
    return MobileNetV2(**arguments)


def timm_arguments(config: Config) -> dict[str, Any]:
    """What MobileNetV2 takes, from timm's config.json."""
    name = re.fullmatch(r"mobilenetv2_(035|050|075|100|140)", str(config.get("architecture")))
    if not name:
        raise ValueError(f"config.json says architecture={config.get('architecture')!r}: expected mobilenetv2_WIDTH, "
                         "WIDTH 035, 050, 075, 100 or 140")  # fmt: skip
    understood(config, ("architecture", "model_args", "num_classes"), global_pool="avg")
    more = config.get("model_args", {})
    understood(more, ("in_chans", "num_classes", "drop_rate"), global_pool="avg")
    return {"num_classes": config["num_classes"], "in_channels": more.get("in_chans", 3), "width": int(name[1]) / 100,
            "dropout": more.get("drop_rate", 0.0)}  # fmt: skip


def timm_config(model: MobileNetV2) -> Config:
    """timm's config.json; ValueError if timm has no such model."""
    first: Any = model.stem[0]
    stages: Any = model.stages
    if first.stride != (2, 2) or stages[1][0].stride != 2:
        raise ValueError("stem: of a small stride; the public MobileNets have the large one")
    if model.width not in (0.35, 0.5, 0.75, 1.0, 1.4):
        raise ValueError(f"width={model.width}: timm's MobileNets have 0.35, 0.5, 0.75, 1.0 or 1.4")
    return {"architecture": f"mobilenetv2_{round(100 * model.width):03d}", "num_classes": model.head.out_features,
            "model_args": {"in_chans": first.in_channels, "drop_rate": model.dropout.p},
            "pretrained_cfg": {"first_conv": "conv_stem", "classifier": "classifier"}}  # fmt: skip


BLOCKS = [(stage, block) for stage, (_, _, depth, _) in enumerate(STAGES) for block in range(depth)]
PARTS = ("expand", "depthwise", "project.0", "project.1")  # as torchvision numbers them; its first block has no expand
PUBLIC = {
    "timm": Layout(
        {
            "conv_stem.*": "stem.0.*",
            "bn1.*": "stem.1.*",
            "blocks.0.{0}.conv_dw.*": "stages.0.{0}.depthwise.0.*",
            "blocks.0.{0}.bn1.*": "stages.0.{0}.depthwise.1.*",
            "blocks.0.{0}.conv_pw.*": "stages.0.{0}.project.0.*",
            "blocks.0.{0}.bn2.*": "stages.0.{0}.project.1.*",
            "blocks.{0}.{0}.conv_pw.*": "stages.{0}.{0}.expand.0.*",
            "blocks.{0}.{0}.bn1.*": "stages.{0}.{0}.expand.1.*",
            "blocks.{0}.{0}.conv_dw.*": "stages.{0}.{0}.depthwise.0.*",
            "blocks.{0}.{0}.bn2.*": "stages.{0}.{0}.depthwise.1.*",
            "blocks.{0}.{0}.conv_pwl.*": "stages.{0}.{0}.project.0.*",
            "blocks.{0}.{0}.bn3.*": "stages.{0}.{0}.project.1.*",
            "conv_head.*": "last.0.*",
            "bn2.*": "last.1.*",
            "classifier.*": "head.*",
        },
        timm_arguments,
        timm_config,
    ),
    "torchvision": Layout(  # which writes no config.json: timm's stands in
        {
            "features.0.*": "stem.*",
            **{
                f"features.{number}.conv.{place}.*": f"stages.{stage}.{block}.{part}.*"
                for number, (stage, block) in enumerate(BLOCKS, 1)
                for place, part in enumerate(PARTS[number == 1 :])
            },
            f"features.{len(BLOCKS) + 1}.*": "last.*",
            "classifier.1.*": "head.*",
        },
        timm_arguments,
        timm_config,
    ),
}

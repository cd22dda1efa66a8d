"""EfficientNet: one small network, found by search, is made larger in depth, width and extent at once, in fixed proportions.

The block is MobileNetV2's inverted residual with an opinion of its channels: s = sigmoid(W_2 silu(W_1 mean(x))), x s
(squeeze and excitation), some of its filters 5x5, and silu(x) = x sigmoid(x) throughout. The Lite form, for machines that
calculate in whole numbers, has no opinion and relu6 instead of silu.
Tan, Le 2019, arXiv:1905.11946; squeeze and excitation: Hu et al. 2017, arXiv:1709.01507.
"""

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.functional import pad, silu

from thalweg.weights import Config, Layout, Table, understood

Padding = Literal["same", "symmetric"]
STAGES = (  # of table 1: expansion, filter, channels, blocks, stride
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)


class Conv2dSame(nn.Conv2d):
    """A convolution with ceil(extent / stride) places, as TensorFlow pads it: an odd zero lies on the right and below."""

    def forward(self, input: Tensor) -> Tensor:
        size, stride = self.kernel_size[0], self.stride[0]
        height, width = (max(0, (math.ceil(extent / stride) - 1) * stride + size - extent) for extent in input.shape[-2:])
        return super().forward(pad(input, (width // 2, width - width // 2, height // 2, height - height // 2)))


class SqueezeExcite(nn.Module):
    """Every channel is weighted by what all channels are on average."""

    def __init__(self, channels: int, hidden_dim: int):
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, hidden_dim, 1), nn.Conv2d(hidden_dim, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.excite(silu(self.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()


def conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1, *, padding: Padding,
         eps: float) -> nn.Sequential:  # fmt: skip
    """Convolution and batch normalisation."""
    sizes = (in_channels, out_channels, kernel_size, stride)
    convolution: nn.Conv2d
    if padding == "same" and stride > 1:
        convolution = Conv2dSame(*sizes, groups=groups, bias=False)
    else:
        convolution = nn.Conv2d(*sizes, kernel_size // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out")
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels, eps))


class Block(nn.Module):
    """Narrow, wide, weighted, narrow, and the shortcut between the narrow ends.   conv: makes its layers, as above"""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int, lite: bool,
                 conv: Callable[..., nn.Sequential]):  # fmt: skip
        super().__init__()
        channels, activation = expansion * in_channels, nn.ReLU6 if lite else nn.SiLU
        self.stride, self.shortcut = stride, (in_channels, stride) == (out_channels, 1)
        self.expand = conv(in_channels, channels, 1).append(activation(inplace=True)) if expansion > 1 else nn.Identity()
        self.depthwise = conv(channels, channels, kernel_size, stride, channels).append(activation(inplace=True))
        self.weigh = nn.Identity() if lite else SqueezeExcite(channels, in_channels // 4)
        self.project = conv(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.weigh(self.depthwise(self.expand(x))))
        return x + y if self.shortcut else y


def rounded(channels: float) -> int:
    """The nearest multiple of 8, and the next one where that were a tenth less or more below."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


class EfficientNet(nn.Module):
    """width, depth: factors on the channels (to multiples of 8) and blocks (upwards) of the network that was found.

    lite: without squeeze and excitation, with relu6; then stem, first and last stage keep their sizes.
    padding: "symmetric" as in torch, or "same" as in TensorFlow, whose weights need it, and eps = 1e-3.
    stem: of the five times that the extent is halved, "large" does all (224x224 images), "medium" leaves out the first,
    "small" the first two (32x32 images). The weights fit all three.
    image: [batch channel height width] -> logits [batch class]
    """

    def __init__(
        self,
        width: float = 1.0,
        depth: float = 1.0,
        lite: bool = False,
        num_classes: int = 1000,
        in_channels: int = 3,
        stem: Literal["large", "medium", "small"] = "large",
        padding: Padding = "symmetric",
        eps: float = 1e-5,
        dropout: float = 0.2,
    ):
        super().__init__()
        if stem not in ("large", "medium", "small"):
            raise ValueError(f"stem={stem!r}: expected large, medium or small")
        if padding not in ("same", "symmetric"):
            raise ValueError(f"padding={padding!r}: expected same or symmetric")
        self.width, self.depth, self.lite, self.padding, self.eps = width, depth, lite, padding, eps
        layer, activation = partial(conv, padding=padding, eps=eps), nn.ReLU6 if lite else nn.SiLU
        channels = 32 if lite else rounded(32 * width)
        self.stem = layer(in_channels, channels, 3, 2 if stem == "large" else 1).append(activation(inplace=True))
        self.stages = nn.ModuleList()
        for number, ((expansion, size, wanted, _, stride), count) in enumerate(zip(STAGES, depths(depth, lite), strict=True)):
            out, blocks = rounded(wanted * width), nn.Sequential()
            first = 1 if stem == "small" and number == 1 else stride
            for position in range(count):
                blocks.append(Block(channels, out, size, 1 if position else first, expansion, lite, layer))
                channels = out
            self.stages.append(blocks)
        out = 1280 if lite else rounded(1280 * width)
        self.last = layer(channels, out, 1).append(activation(inplace=True))
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


def depths(depth: float, lite: bool) -> list[int]:
    """Blocks of every stage."""
    ends = (0, len(STAGES) - 1) if lite else ()
    return [count if stage in ends else math.ceil(count * depth) for stage, (_, _, _, count, _) in enumerate(STAGES)]


def efficientnet_b0(**arguments: Any) -> EfficientNet:
    """The network that was found, 5,288,548 parameters for ImageNet."""
    return EfficientNet(**arguments)


def efficientnet_lite0(**arguments: Any) -> EfficientNet:
    """4,652,008 parameters for ImageNet; pads as its published weights do, which saw images of 224x224."""
    return EfficientNet(lite=True, **LITE | arguments)


def efficientnet_lite1(**arguments: Any) -> EfficientNet:
    """5,416,680 parameters for ImageNet; pads as its published weights do, which saw images of 240x240."""
    return EfficientNet(1.0, 1.1, lite=True, **LITE | arguments)


def efficientnet_lite2(**arguments: Any) -> EfficientNet:
    """6,092,072 parameters for ImageNet; pads as its published weights do, which saw images of 260x260."""
    return EfficientNet(1.1, 1.2, lite=True, **LITE | {"dropout": 0.3} | arguments)


LITE: dict[str, Any] = {"padding": "same", "eps": 1e-3}
SIZES = {"b0": (1.0, 1.0), "lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}


def timm_arguments(config: Config) -> dict[str, Any]:
    """What EfficientNet takes, from timm's config.json."""
    name = re.fullmatch(r"(tf_)?efficientnet_(b0|lite[012])", str(config.get("architecture")))
    if not name:
        raise ValueError(f"config.json says architecture={config.get('architecture')!r}: expected efficientnet_SIZE or "
                         f"tf_efficientnet_SIZE, SIZE one of {', '.join(SIZES)}")  # fmt: skip
    understood(config, ("architecture", "model_args", "num_classes"), global_pool="avg")
    more = config.get("model_args", {})
    understood(more, ("in_chans", "num_classes", "drop_rate"), global_pool="avg")
    (width, depth), lite = SIZES[name[2]], name[2] != "b0"
    padding = LITE if name[1] else {"padding": "symmetric", "eps": 1e-5}
    return {"width": width, "depth": depth, "lite": lite, "num_classes": config["num_classes"],
            "in_channels": more.get("in_chans", 3), **padding, "dropout": more.get("drop_rate", 0.0)}  # fmt: skip


def timm_config(model: EfficientNet) -> Config:
    """timm's config.json; ValueError if timm has no such model."""
    first: Any = model.stem[0]
    stages: Any = model.stages
    if first.stride != (2, 2) or stages[1][0].stride != 2:
        raise ValueError("stem: of a small stride; the public EfficientNets have the large one")
    factors = (model.width, model.depth)
    size = next((name for name in SIZES if SIZES[name] == factors and model.lite == (name != "b0")), "")
    written = {("symmetric", 1e-5): "", ("same", 1e-3): "tf_"}.get((model.padding, model.eps))
    if not size or written is None:
        raise ValueError(f"width={model.width}, depth={model.depth}, lite={model.lite}, padding={model.padding!r}, "
                         f"eps={model.eps}: timm has no such EfficientNet")  # fmt: skip
    return {"architecture": f"{written}efficientnet_{size}", "num_classes": model.head.out_features,
            "model_args": {"in_chans": first.in_channels, "drop_rate": model.dropout.p},
            "pretrained_cfg": {"first_conv": "conv_stem", "classifier": "classifier"}}  # fmt: skip


def counted(depths: list[int]) -> Table:
    """The names of efficientnet_pytorch, whose blocks are numbered through."""
    blocks = [(stage, block) for stage, depth in enumerate(depths) for block in range(depth)]
    parts = {"_expand_conv": "expand.0", "_bn0": "expand.1", "_depthwise_conv": "depthwise.0", "_bn1": "depthwise.1",
             "_se_reduce": "weigh.squeeze", "_se_expand": "weigh.excite", "_project_conv": "project.0",
             "_bn2": "project.1"}  # fmt: skip
    ends: dict[str | tuple[str, ...], str] = {"_conv_stem.*": "stem.0.*", "_bn0.*": "stem.1.*", "_conv_head.*": "last.0.*",
                                              "_bn1.*": "last.1.*", "_fc.*": "head.*"}  # fmt: skip
    return ends | {f"_blocks.{number}.{public}.*": f"stages.{stage}.{block}.{part}.*"
                   for number, (stage, block) in enumerate(blocks) for public, part in parts.items()}  # fmt: skip


SEEN: dict[str, list] = {"mean": [127 / 255] * 3, "deviation": [128 / 255] * 3, "size": [224, 224]}
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
            "blocks.{0}.{0}.se.conv_reduce.*": "stages.{0}.{0}.weigh.squeeze.*",
            "blocks.{0}.{0}.se.conv_expand.*": "stages.{0}.{0}.weigh.excite.*",
            "blocks.{0}.{0}.conv_pwl.*": "stages.{0}.{0}.project.0.*",
            "blocks.{0}.{0}.bn3.*": "stages.{0}.{0}.project.1.*",
            "conv_head.*": "last.0.*",
            "bn2.*": "last.1.*",
            "classifier.*": "head.*",
        },
        timm_arguments,
        timm_config,
    ),
    # the Lite forms as packages, which hold weights alone: timm's config.json stands in
    "efficientnet_pytorch": Layout(counted(depths(1.0, True)), timm_arguments, timm_config, SEEN),
    "efficientnet_pytorch-deeper": Layout(counted(depths(1.1, True)), timm_arguments, timm_config, SEEN),  # Lite1 and Lite2
}

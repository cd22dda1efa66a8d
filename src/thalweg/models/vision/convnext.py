"""ConvNeXt: a residual network, brought step by step to what Transformers do, and as good as they, without attention.

y = x + gamma mlp(norm(depthwise 7x7(x))): every channel looks around by itself, then every place mixes its channels, as a
Transformer block reads and then thinks; gamma is one number a channel, tiny at first, so that a block begins as its shortcut.
Liu, Mao, Wu, Feichtenhofer, Darrell, Xie 2022, arXiv:2201.03545.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from thalweg.layers.dropout import StochasticDepth
from thalweg.weights import Config, Layout, understood


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of the channels of every place.   x: [batch channel height width]"""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class MLP(nn.Module):
    """y = W_down gelu(W_up x): every place for itself, through four times the width.   x: [... channel]"""

    def __init__(self, channels: int):
        super().__init__()
        self.up, self.down = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(gelu(self.up(x)))


class Block(nn.Module):
    """x + gamma mlp(norm(depthwise(x)))."""

    def __init__(self, channels: int, drop: float):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm, self.mlp = nn.LayerNorm(channels, 1e-6), MLP(channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))
        self.drop = StochasticDepth(drop)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))  # channels last, which costs nothing where they lie so
        return x + self.drop(self.gamma * self.mlp(y)).permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Halves the extent (not in the first stage), then blocks, each dropped with its own probability."""

    def __init__(self, in_channels: int, channels: int, drops: Sequence[float]):
        super().__init__()
        halve = [ChannelNorm(in_channels, 1e-6), nn.Conv2d(in_channels, channels, 2, 2)] if in_channels != channels else []
        self.halve, self.blocks = nn.Sequential(*halve), nn.Sequential(*(Block(channels, drop) for drop in drops))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.halve(x))


class ConvNeXt(nn.Module):
    """depths, widths: blocks and channels of each stage; each stage after the first halves the extent.

    stem: the patches that the image is cut into, "large" 4x4 pixels (224x224 images), "medium" 2x2, "small" 1x1 (32x32).
    stochastic_depth: probability with which the last block is left out in training; the first is never, those between
    in proportion.
    image: [batch channel height width] -> logits [batch class]
    """

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        in_channels: int = 3,
        num_classes: int = 1000,
        stem: Literal["large", "medium", "small"] = "large",
        stochastic_depth: float = 0.0,
    ):
        super().__init__()
        patches = {"large": 4, "medium": 2, "small": 1}
        if stem not in patches:
            raise ValueError(f"stem={stem!r}: expected large, medium or small")
        patch = patches[stem]
        self.stem = nn.Sequential(nn.Conv2d(in_channels, widths[0], patch, patch), ChannelNorm(widths[0], 1e-6))
        drops = [stochastic_depth * block / max(1, sum(depths) - 1) for block in range(sum(depths))]
        self.stages = nn.ModuleList()
        for number, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            first = sum(depths[:number])
            self.stages.append(Stage(widths[max(0, number - 1)], width, drops[first : first + depth]))
        self.norm, self.head = nn.LayerNorm(widths[-1], 1e-6), nn.Linear(widths[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def features(self, image: Tensor) -> list[Tensor]:  # a map a stage, each at half the extent of the one before
        maps = [self.stem(image)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.norm(self.features(image)[-1].mean((2, 3))))


def convnext_tiny(**arguments: Any) -> ConvNeXt:
    """18 blocks, 28,589,128 parameters for ImageNet."""
    return ConvNeXt((3, 3, 9, 3), (96, 192, 384, 768), **arguments)


def convnext_small(**arguments: Any) -> ConvNeXt:
    """36 blocks, 50,223,688 parameters for ImageNet."""
    return ConvNeXt((3, 3, 27, 3), (96, 192, 384, 768), **arguments)


def convnext_base(**arguments: Any) -> ConvNeXt:
    """36 blocks, a third wider, 88,591,464 parameters for ImageNet."""
    return ConvNeXt((3, 3, 27, 3), (128, 256, 512, 1024), **arguments)


def timm_arguments(config: Config) -> dict[str, Any]:
    """What ConvNeXt takes, from timm's config.json."""
    known = {"tiny": ((3, 3, 9, 3), 96), "small": ((3, 3, 27, 3), 96), "base": ((3, 3, 27, 3), 128)}
    name = str(config.get("architecture")).removeprefix("convnext_")
    if name not in known:
        raise ValueError(f"config.json says architecture={config.get('architecture')!r}: expected convnext_SIZE, SIZE one of "
                         f"{', '.join(known)}")  # fmt: skip
    understood(config, ("architecture", "model_args", "num_classes"), global_pool="avg")
    more = config.get("model_args", {})
    understood(more, ("in_chans", "num_classes", "depths", "dims", "drop_path_rate"), global_pool="avg")
    depths, width = known[name]
    return {"depths": list(more.get("depths", depths)), "widths": list(more.get("dims", [width << n for n in range(4)])),
            "in_channels": more.get("in_chans", 3), "num_classes": config["num_classes"],
            "stochastic_depth": more.get("drop_path_rate", 0.0)}  # fmt: skip


def timm_config(model: ConvNeXt) -> Config:
    """timm's config.json; ValueError if timm has no such model."""
    first: Any = model.stem[0]
    stages: Any = model.stages
    if first.kernel_size != (4, 4):
        raise ValueError("stem: of small patches; the public ConvNeXts have the large one")
    more = {"depths": [len(stage.blocks) for stage in stages], "in_chans": first.in_channels,
            "dims": [stage.blocks[0].gamma.numel() for stage in stages],
            "drop_path_rate": stages[-1].blocks[-1].drop.p}  # fmt: skip
    return {"architecture": "convnext_tiny", "num_classes": model.head.out_features, "model_args": more,
            "pretrained_cfg": {"first_conv": "stem.0", "classifier": "head.fc"}}  # fmt: skip


PUBLIC = {
    "timm": Layout(
        {
            "stem.*": "stem.*",
            "stages.{0}.downsample.*": "stages.{0}.halve.*",
            "stages.{0}.blocks.{0}.gamma": "stages.{0}.blocks.{0}.gamma",
            "stages.{0}.blocks.{0}.conv_dw.*": "stages.{0}.blocks.{0}.depthwise.*",
            "stages.{0}.blocks.{0}.norm.*": "stages.{0}.blocks.{0}.norm.*",
            "stages.{0}.blocks.{0}.mlp.fc1.*": "stages.{0}.blocks.{0}.mlp.up.*",
            "stages.{0}.blocks.{0}.mlp.fc2.*": "stages.{0}.blocks.{0}.mlp.down.*",
            "head.norm.*": "norm.*",
            "head.fc.*": "head.*",
        },
        timm_arguments,
        timm_config,
    ),
}

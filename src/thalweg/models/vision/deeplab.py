"""DeepLab: filters with holes look near and far at once, at full sharpness and at no more cost.

y = conv(concat(1x1 conv, 3x3 convs of growing dilation, mean over the image)(trunk(image))); DeepLabv3+ then goes to the
extent of the first map and hands its fine detail across.
Chen, Papandreou, Schroff, Adam 2017, arXiv:1706.05587 (v3); Chen, Zhu, Papandreou, Schroff, Adam 2018, arXiv:1802.02611
(v3+).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from thalweg.layers.trunk import trunk
from thalweg.models import builder
from thalweg.weights import Config, Layout, understood


def conv(in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation and relu."""
    padding = kernel_size // 2 * dilation
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU())


class AtrousPyramid(nn.Module):
    """Each place, its surroundings at several distances, and the mean of the image, side by side.

    rates: distance of the nine places that a filter sees.   x: [batch channel height width] -> [batch out height width].
    The mean of an image needs batches of two to train.
    """

    def __init__(self, in_channels: int, out_channels: int, rates: Sequence[int], dropout: float):
        super().__init__()
        near = [conv(in_channels, out_channels, 1), *(conv(in_channels, out_channels, 3, rate) for rate in rates)]
        self.branches = nn.ModuleList(near)
        self.scene = conv(in_channels, out_channels, 1)
        self.merge = nn.Sequential(conv((len(near) + 1) * out_channels, out_channels, 1), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        scene = self.scene(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        return self.merge(torch.cat([*(branch(x) for branch in self.branches), scene], 1))


class DeepLab(nn.Module):
    """backbone: gives a map a stage, the last at an eighth or a sixteenth (dilated=2 or 1); its head is dropped.

    rates: half of them at a sixteenth of the extent.   hidden_dim: channels after the trunk.
    detail: channels of the first map that are handed across (DeepLabv3+), or 0 (DeepLabv3).
    image: [batch channel height width] -> logits [batch class height width]
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        rates: Sequence[int] = (12, 24, 36),
        hidden_dim: int = 256,
        detail: int = 48,
        dropout: float = 0.5,
    ):
        super().__init__()
        maps = trunk(backbone)
        self.backbone = backbone
        self.context = AtrousPyramid(maps[-1][0], hidden_dim, rates, dropout)
        self.detail = conv(maps[0][0], detail, 1) if detail else None
        self.refine = nn.Sequential(conv(hidden_dim + detail, hidden_dim, 3))
        if detail:
            self.refine.append(conv(hidden_dim, hidden_dim, 3))
        self.head = nn.Conv2d(hidden_dim, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        fine, *_, x = self.backbone.features(image)  # type: ignore[operator]
        x = self.context(x)
        if self.detail is not None:
            x = torch.cat([interpolate(x, fine.shape[-2:], mode="bilinear"), self.detail(fine)], 1)
        return interpolate(self.head(self.refine(x)), image.shape[-2:], mode="bilinear")


def deeplabv3(
    backbone: str = "resnet50",
    num_classes: int = 21,
    rates: Sequence[int] = (12, 24, 36),
    hidden_dim: int = 256,
    dilated: int = 2,
    **arguments: Any,
) -> DeepLab:
    """DeepLabv3 on the trunk of that name and arguments; on ResNet-50, for 21 classes, 39,638,869 parameters."""
    return DeepLab(builder(backbone)(dilated=dilated, **arguments), num_classes, rates, hidden_dim, detail=0)


def deeplabv3_plus(
    backbone: str = "resnet50",
    num_classes: int = 21,
    rates: Sequence[int] = (6, 12, 18),
    hidden_dim: int = 256,
    dilated: int = 1,
    **arguments: Any,
) -> DeepLab:
    """DeepLabv3+ on the trunk of that name and arguments; on ResNet-50, for 21 classes, 40,352,181 parameters."""
    return DeepLab(builder(backbone)(dilated=dilated, **arguments), num_classes, rates, hidden_dim)


def torchvision_arguments(config: Config) -> dict[str, Any]:
    """What deeplabv3 takes; torchvision writes no config.json, so this is what `torchvision_config` wrote."""
    understood(config, ("num_classes",), architecture="deeplabv3_resnet50")
    return {"num_classes": config["num_classes"]}


def torchvision_config(model: DeepLab) -> Config:
    """Which of torchvision's models this is; ValueError if it has none such."""
    if model.detail is not None or [len(stage) for stage in model.backbone.stages] != [3, 4, 6, 3]:  # type: ignore[union-attr, arg-type]
        raise ValueError("model: expected DeepLabv3 on ResNet-50, the one that torchvision has of these")
    return {"architecture": "deeplabv3_resnet50", "num_classes": model.head.out_channels}


PUBLIC = {
    "torchvision": Layout(
        {
            "backbone.conv1.*": "backbone.stem.0.0.*",
            "backbone.bn1.*": "backbone.stem.0.1.*",
            "backbone.layer{1}.{0}.conv{1}.*": "backbone.stages.{0}.{0}.layers.{0}.0.*",
            "backbone.layer{1}.{0}.bn{1}.*": "backbone.stages.{0}.{0}.layers.{0}.1.*",
            "backbone.layer{1}.{0}.downsample.*": "backbone.stages.{0}.{0}.shortcut.*",
            "classifier.0.convs.4.1.*": "context.scene.0.*",
            "classifier.0.convs.4.2.*": "context.scene.1.*",
            "classifier.0.convs.{0}.*": "context.branches.{0}.*",
            "classifier.0.project.*": "context.merge.0.*",
            "classifier.1.*": "refine.0.0.*",
            "classifier.2.*": "refine.0.1.*",
            "classifier.4.*": "head.*",
            "aux_classifier.*": None,
        },
        torchvision_arguments,
        torchvision_config,
    ),
}

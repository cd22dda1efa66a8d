"""Residual networks (ResNet): a block learns a correction to its input, so depth stops hurting.

y = relu(shortcut(x) + branch(x)); the shortcut is the identity unless the shape changes.
He, Zhang, Ren, Sun 2015, arXiv:1512.03385.   LBDL 5.2, D2L 7.6
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.functional import relu

from thalweg.weights import Config, Layout, understood


def conv(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution and batch normalisation."""
    padding = kernel_size // 2 * dilation
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))


class Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1 through a bottleneck of a quarter of the width, and the shortcut.

    dilation: of the first 3x3 convolution, which has the stride, and of the second.
    groups, width_per_group: of the 3x3 convolution in a bottleneck, groups * width_per_group maps where 64 come in.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        bottleneck: bool,
        dilation: Sequence[int] = (1, 1),
        groups: int = 1,
        width_per_group: int = 64,
        residual: bool = True,
    ):
        super().__init__()
        self.out_channels = out = 4 * channels if bottleneck else channels
        inner = channels * width_per_group // 64 * groups
        layers = (
            [conv(in_channels, inner, 1), conv(inner, inner, 3, stride, dilation[0], groups), conv(inner, out, 1)]
            if bottleneck
            else [conv(in_channels, channels, 3, stride, dilation[0]), conv(channels, out, 3, 1, dilation[1])]
        )
        self.layers, self.shortcut = nn.ModuleList(layers), None
        if residual:
            nn.init.zeros_(layers[-1][1].weight)  # type: ignore[arg-type]  # every block starts as its shortcut
            self.shortcut = nn.Identity() if (in_channels, stride) == (out, 1) else conv(in_channels, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.layers[0](x)
        for layer in self.layers[1:]:
            branch = layer(relu(branch))
        return relu(branch if self.shortcut is None else self.shortcut(x) + branch)


class ResNet(nn.Module):
    """depths: blocks a stage; each stage after the first halves the extent and doubles the channels.

    stem: what comes before the first stage: "large" halves the extent twice (224x224 images), "medium" once, "small" keeps
    it (32x32 images).   groups, width_per_group: of the 3x3 convolutions of bottlenecks, as in ResNeXt (Xie et al. 2016,
    arXiv:1611.05431).   residual: False cuts the shortcuts: the plain network of the paper.
    dilated: how many of the last stages keep the extent and look 2, 4 ... times as wide instead, as segmentation wants.
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
        groups: int = 1,
        width_per_group: int = 64,
        residual: bool = True,
        dilated: int = 0,
    ):
        super().__init__()
        if not 0 <= dilated < len(depths):
            raise ValueError(f"dilated={dilated}: expected 0 to {len(depths) - 1}, as the first stage has no stride")
        if stem not in ("large", "medium", "small"):
            raise ValueError(f"stem={stem!r}: expected large, medium or small")
        if not bottleneck and (groups, width_per_group) != (1, 64):
            raise ValueError(f"groups={groups}, width_per_group={width_per_group}: expected bottleneck=True, which they are of")
        first = conv(in_channels, width, 7, 2) if stem == "large" else conv(in_channels, width, 3)
        pool = [nn.MaxPool2d(3, 2, 1)] if stem != "small" else []
        self.stem = nn.Sequential(first, nn.ReLU(), *pool)
        self.stages, channels = nn.ModuleList(), width
        for stage, depth in enumerate(depths):
            blocks, wide = nn.Sequential(), 1 << max(0, stage + 1 - len(depths) + dilated)
            for position in range(depth):
                stride = 2 if stage and not position and wide == 1 else 1
                before = wide if position or wide == 1 else wide // 2  # where the stride was, pixels are as near as before
                more = ((before, wide), groups, width_per_group, residual)
                block = Block(channels, width << stage, stride, bottleneck, *more)
                blocks.append(block)
                channels = block.out_channels
            self.stages.append(blocks)
        self.head = nn.Linear(channels, num_classes)

    def features(self, image: Tensor) -> list[Tensor]:  # a map a stage, each at half the extent of the one before
        maps = [self.stem(image)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image)[-1].mean((2, 3)))


def resnet18(**arguments: Any) -> ResNet:
    """18 layers, 11,689,512 parameters for ImageNet."""
    return ResNet((2, 2, 2, 2), **arguments)


def resnet34(**arguments: Any) -> ResNet:
    """34 layers, 21,797,672 parameters for ImageNet."""
    return ResNet((3, 4, 6, 3), **arguments)


def resnet50(**arguments: Any) -> ResNet:
    """50 layers with bottlenecks, 25,557,032 parameters for ImageNet."""
    return ResNet((3, 4, 6, 3), bottleneck=True, **arguments)


def resnet101(**arguments: Any) -> ResNet:
    """101 layers with bottlenecks, 44,549,160 parameters for ImageNet."""
    return ResNet((3, 4, 23, 3), bottleneck=True, **arguments)


def resnet152(**arguments: Any) -> ResNet:
    """152 layers with bottlenecks, 60,192,808 parameters for ImageNet: it won the contests of 2015."""
    return ResNet((3, 8, 36, 3), bottleneck=True, **arguments)


def resnext50_32x4d(**arguments: Any) -> ResNet:
    """ResNeXt-50, its bottlenecks of 32 groups of 4 maps, 25,028,904 parameters for ImageNet.   arXiv:1611.05431"""
    return ResNet((3, 4, 6, 3), bottleneck=True, **{"groups": 32, "width_per_group": 4, **arguments})


def resnet_cifar(depth: int = 20, **arguments: Any) -> ResNet:
    """The networks of the paper for 32x32 images, of 6 n + 2 layers (20, 56, 110), three stages of 16, 32 and 64 maps."""
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth={depth}: expected 6 n + 2, such as 20 or 56")
    return ResNet([(depth - 2) // 6] * 3, **{"width": 16, "stem": "small", "num_classes": 10, **arguments})


def resnet9(**arguments: Any) -> ResNet:
    """One block a stage: for small images and little time."""
    return ResNet((1, 1, 1, 1), **{"stem": "small", **arguments})


def sizes(model: ResNet) -> dict[str, Any]:
    """What ResNet was given; ValueError unless it has the large stem, shortcuts and strides, as in every public library."""
    first: Any = model.stem[0]
    stages: Any = model.stages
    block = stages[0][0]
    if first[0].kernel_size != (7, 7):
        raise ValueError("stem: of 3x3 filters; the public ResNets have the large one")
    if block.shortcut is None:
        raise ValueError("residual=False: the public ResNets have shortcuts")
    if any(stage[0].shortcut[0].stride != (2, 2) for stage in stages[1:]):
        raise ValueError("dilated: the public ResNets halve the extent at every stage")
    width, inner = first[0].out_channels, block.layers[1][0]
    bottleneck = len(block.layers) == 3
    return {"depths": [len(stage) for stage in stages], "bottleneck": bottleneck,
            "in_channels": first[0].in_channels, "num_classes": model.head.out_features, "width": width,
            "groups": inner.groups, "width_per_group": inner.out_channels * 64 // (width * inner.groups)}  # fmt: skip


def timm_arguments(config: Config) -> dict[str, Any]:
    """What ResNet takes, from timm's config.json."""
    known = {"resnet18": ([2, 2, 2, 2], False), "resnet34": ([3, 4, 6, 3], False), "resnet50": ([3, 4, 6, 3], True),
             "resnet101": ([3, 4, 23, 3], True), "resnet152": ([3, 8, 36, 3], True),
             "resnext50_32x4d": ([3, 4, 6, 3], True)}  # fmt: skip
    if config.get("architecture") not in known:
        raise ValueError(f"config.json says architecture={config.get('architecture')!r}: expected one of {', '.join(known)}")
    understood(config, ("architecture", "model_args", "num_classes"), global_pool="avg")
    more = config.get("model_args", {})
    understood(more, ("in_chans", "layers", "num_classes", "cardinality", "base_width"), global_pool="avg")
    depths, bottleneck = known[config["architecture"]]
    groups, width_per_group = (32, 4) if "resnext" in config["architecture"] else (1, 64)
    return {"depths": more.get("layers", depths), "bottleneck": bottleneck, "in_channels": more.get("in_chans", 3),
            "num_classes": config["num_classes"], "width": 64, "groups": more.get("cardinality", groups),
            "width_per_group": more.get("base_width", width_per_group)}  # fmt: skip


def timm_config(model: ResNet) -> Config:
    """timm's config.json; ValueError if timm has no such model."""
    size = sizes(model)
    if size["width"] != 64:
        raise ValueError(f"width={size['width']}: timm's ResNets have 64")
    more = {"layers": size["depths"], "in_chans": size["in_channels"]}
    if size["bottleneck"]:
        more |= {"cardinality": size["groups"], "base_width": size["width_per_group"]}
    return {"architecture": "resnet50" if size["bottleneck"] else "resnet18", "num_classes": size["num_classes"],
            "model_args": more, "pretrained_cfg": {"first_conv": "conv1", "classifier": "fc"}}  # fmt: skip


def transformers_arguments(config: Config) -> dict[str, Any]:
    """What ResNet takes, from the config.json of transformers' ResNetForImageClassification."""
    free = ("num_channels", "embedding_size", "hidden_sizes", "depths", "layer_type")
    notes = ("out_features", "out_indices", "stage_names")
    understood(config, free + notes, model_type="resnet", hidden_act="relu", downsample_in_first_stage=False,
               downsample_in_bottleneck=False)  # fmt: skip
    width, bottleneck = config["embedding_size"], config["layer_type"] == "bottleneck"
    widths = [(4 if bottleneck else 1) * width << stage for stage in range(len(config["depths"]))]
    if config["hidden_sizes"] != widths:
        raise ValueError(f"config.json says hidden_sizes={config['hidden_sizes']}: expected {widths}")
    return {"depths": config["depths"], "bottleneck": bottleneck, "in_channels": config["num_channels"],
            "num_classes": len(config.get("id2label", [0, 1])), "width": width, "groups": 1,
            "width_per_group": 64}  # fmt: skip


def transformers_config(model: ResNet) -> Config:
    """The config.json of transformers' ResNetForImageClassification."""
    size = sizes(model)
    if (size["groups"], size["width_per_group"]) != (1, 64):
        raise ValueError(f"groups={size['groups']}: transformers' ResNets have 1")
    widths = [(4 if size["bottleneck"] else 1) * size["width"] << stage for stage in range(len(size["depths"]))]
    return {"architectures": ["ResNetForImageClassification"], "model_type": "resnet", "hidden_act": "relu",
            "num_channels": size["in_channels"], "embedding_size": size["width"], "hidden_sizes": widths,
            "depths": size["depths"], "layer_type": "bottleneck" if size["bottleneck"] else "basic",
            "id2label": {str(label): f"LABEL_{label}" for label in range(size["num_classes"])}}  # fmt: skip


PUBLIC = {
    "timm": Layout(  # and torchvision
        {
            "conv1.*": "stem.0.0.*",
            "bn1.*": "stem.0.1.*",
            "layer{1}.{0}.conv{1}.*": "stages.{0}.{0}.layers.{0}.0.*",
            "layer{1}.{0}.bn{1}.*": "stages.{0}.{0}.layers.{0}.1.*",
            "layer{1}.{0}.downsample.*": "stages.{0}.{0}.shortcut.*",
            "fc.*": "head.*",
        },
        timm_arguments,
        timm_config,
    ),
    "transformers": Layout(
        {
            "resnet.embedder.embedder.convolution.*": "stem.0.0.*",
            "resnet.embedder.embedder.normalization.*": "stem.0.1.*",
            "resnet.encoder.stages.{0}.layers.{0}.layer.{0}.convolution.*": "stages.{0}.{0}.layers.{0}.0.*",
            "resnet.encoder.stages.{0}.layers.{0}.layer.{0}.normalization.*": "stages.{0}.{0}.layers.{0}.1.*",
            "resnet.encoder.stages.{0}.layers.{0}.shortcut.convolution.*": "stages.{0}.{0}.shortcut.0.*",
            "resnet.encoder.stages.{0}.layers.{0}.shortcut.normalization.*": "stages.{0}.{0}.shortcut.1.*",
            "classifier.1.*": "head.*",
        },
        transformers_arguments,
        transformers_config,
    ),
}

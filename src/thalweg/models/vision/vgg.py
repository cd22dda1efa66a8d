"""VGG: a deep network is a program that repeats a block, 3x3 convolutions and a pooling, and can be written as one line.

"64 64 M 128 128 M": two convolutions of 64 maps, pool, two of 128, pool; then dense layers. Two 3x3 filters see what one
of 5x5 sees, with 18 weights in place of 25 and a nonlinearity between.
Simonyan, Zisserman 2014, arXiv:1409.1556.   LBDL 5.2, D2L 7.2
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from thalweg.weights import Config, Layout, understood


class VGG(nn.Module):
    """spec: the maps of each 3x3 convolution, and M for a 2x2 maximum pooling; with no hidden_dims the head is all there is.

    image_size: of the images that the dense layers fit; maps of others are resampled.
    image: [batch channel height width] -> logits [batch class].
    ValueError for a spec that is no such line, and for images that it pools away.
    """

    def __init__(
        self,
        spec: str,
        in_channels: int = 3,
        num_classes: int = 1000,
        hidden_dims: Sequence[int] = (4096, 4096),
        batch_norm: bool = False,
        dropout: float = 0.5,
        image_size: int = 224,
    ):
        super().__init__()
        words = spec.split()
        if not all(word == "M" or word.isdecimal() for word in words) or not words[-1:] == ["M"]:
            raise ValueError(f"spec={spec!r}: expected numbers of maps and M, in the end M, such as '64 M 128 128 M'")
        if not (extent := image_size >> words.count("M")):
            raise ValueError(f"image_size={image_size}: expected at least {1 << words.count('M')} for {spec}")
        self.layers, width = nn.Sequential(), in_channels  # as flat as the line
        for word in words:
            if word == "M":
                self.layers.append(nn.MaxPool2d(2))
                continue
            conv = nn.Conv2d(width, int(word), 3, padding=1)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            width = int(word)
            self.layers.extend([conv, nn.BatchNorm2d(width), nn.ReLU()] if batch_norm else [conv, nn.ReLU()])
        self.pool, width = nn.AdaptiveAvgPool2d(extent), width * extent**2
        self.dense = nn.Sequential()
        for hidden in hidden_dims:
            self.dense.extend([nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout)])
            width = hidden
        self.head = nn.Linear(width, num_classes)

    def features(self, image: Tensor) -> list[Tensor]:  # a map a pooling, each at half the extent of the one before
        maps, x = [], image
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                maps.append(x)
        return maps

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.dense(self.pool(self.layers(image)).flatten(1)))


DEPTHS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}


def line(depths: Sequence[int], width: int = 64) -> str:
    """The spec of so many convolutions a block, whose maps double up to eight times `width`.   (1, 2) -> "64 M 128 128 M" """
    blocks = ([str(width << min(block, 3))] * depth for block, depth in enumerate(depths))
    return " ".join(" ".join([*block, "M"]) for block in blocks)


def vgg11(width: int = 64, **arguments: Any) -> VGG:
    """11 layers with weights, 132,863,336 parameters for ImageNet, 132,868,840 with batch normalisation."""
    return VGG(line(DEPTHS["vgg11"], width), **arguments)


def vgg13(width: int = 64, **arguments: Any) -> VGG:
    """13 layers with weights, 133,047,848 parameters for ImageNet, 133,053,736 with batch normalisation."""
    return VGG(line(DEPTHS["vgg13"], width), **arguments)


def vgg16(width: int = 64, **arguments: Any) -> VGG:
    """16 layers with weights, 138,357,544 parameters for ImageNet, 138,365,992 with batch normalisation."""
    return VGG(line(DEPTHS["vgg16"], width), **arguments)


def vgg19(width: int = 64, **arguments: Any) -> VGG:
    """19 layers with weights, 143,667,240 parameters for ImageNet, 143,678,248 with batch normalisation."""
    return VGG(line(DEPTHS["vgg19"], width), **arguments)


def sizes(model: VGG) -> dict[str, Any]:
    """What VGG was given; ValueError unless its dense layers are two, for 224x224 images, as in every public library."""
    if model.pool.output_size != 7 or len(model.dense) != 6:
        raise ValueError("hidden_dims, image_size: the public VGGs have two dense layers, for images of 224x224")
    convs: list[Any] = [layer for layer in model.layers if isinstance(layer, nn.Conv2d)]
    words = ["M" if isinstance(layer, nn.MaxPool2d) else str(layer.out_channels)
             for layer in model.layers if isinstance(layer, nn.Conv2d | nn.MaxPool2d)]  # fmt: skip
    dense: Any = model.dense
    return {"spec": " ".join(words), "in_channels": convs[0].in_channels, "num_classes": model.head.out_features,
            "hidden_dims": [dense[0].out_features, dense[3].out_features],
            "batch_norm": isinstance(model.layers[1], nn.BatchNorm2d)}  # fmt: skip


def torchvision_arguments(config: Config) -> dict[str, Any]:
    """What VGG takes; torchvision itself writes no config.json."""
    names = ("spec", "in_channels", "num_classes", "hidden_dims", "batch_norm")
    understood(config, names, architecture="vgg")
    return {name: config[name] for name in names}


def torchvision_config(model: VGG) -> Config:
    """The sizes, under our names."""
    return {"architecture": "vgg", **sizes(model)}


def timm_arguments(config: Config) -> dict[str, Any]:
    """What VGG takes, from timm's config.json."""
    name, normed, _ = config.get("architecture", "").partition("_bn")
    if name not in DEPTHS:
        raise ValueError(f"config.json says architecture={config.get('architecture')!r}: expected one of {', '.join(DEPTHS)}")
    more = config.get("model_args", {})
    understood(config, ("architecture", "model_args", "num_classes"), global_pool="avg")
    understood(more, ("in_chans", "num_classes", "mlp_ratio"), global_pool="avg")
    return {"spec": line(DEPTHS[name]), "in_channels": more.get("in_chans", 3), "num_classes": config["num_classes"],
            "hidden_dims": [int(4096 * more.get("mlp_ratio", 1)), 4096], "batch_norm": bool(normed)}  # fmt: skip


def timm_config(model: VGG) -> Config:
    """timm's config.json; ValueError if timm has no such model."""
    size = sizes(model)
    name = next((name for name, depths in DEPTHS.items() if line(depths) == size["spec"]), None)
    if name is None or size["hidden_dims"][1] != 4096:
        raise ValueError(f"spec={size['spec']!r}, hidden_dims={size['hidden_dims']}: timm has {', '.join(DEPTHS)} alone, the "
                         "last dense layer of 4096")  # fmt: skip
    more = {"in_chans": size["in_channels"], "mlp_ratio": size["hidden_dims"][0] / 4096}
    return {"architecture": name + "_bn" * size["batch_norm"], "num_classes": size["num_classes"], "model_args": more,
            "pretrained_cfg": {"first_conv": "features.0", "classifier": "head.fc"}}  # fmt: skip


PUBLIC = {
    "torchvision": Layout(
        {
            "features.*": "layers.*",
            "classifier.0.*": "dense.0.*",
            "classifier.3.*": "dense.3.*",
            "classifier.6.*": "head.*",
        },
        torchvision_arguments,
        torchvision_config,
    ),
    "timm": Layout(
        {
            "features.*": "layers.*",
            "pre_logits.fc1.weight": ("dense.0.weight", "7x7"),
            "pre_logits.fc1.bias": "dense.0.bias",
            "pre_logits.fc2.weight": ("dense.3.weight", "1x1"),
            "pre_logits.fc2.bias": "dense.3.bias",
            "head.fc.*": "head.*",
        },
        timm_arguments,
        timm_config,
    ),
}

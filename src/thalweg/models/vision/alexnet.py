"""AlexNet: the network of 1989 a hundred times larger, on the processors of games, and computer vision was another field.

image -> [wide convolution -> relu -> pool] -> [5x5 -> relu -> pool] -> three 3x3 -> pool -> dense -> dense -> logits.
Krizhevsky, Sutskever, Hinton 2012, "ImageNet classification with deep convolutional neural networks"; here on one
processor and without its normalisation across channels, as in Krizhevsky 2014, arXiv:1404.5997.   LBDL 5.2, D2L 7.1
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from thalweg.weights import Config, Layout, understood

STEMS = {"large": (11, 4, 2), "medium": (7, 2, 3), "small": (5, 1, 2)}  # kernel_size, stride, padding of the first filters


class AlexNet(nn.Module):
    """Five convolutions, then two dense layers that hold nine tenths of the parameters.

    stem: what the first convolution does to the extent: "large" a quarter of it (224x224 images), "medium" half, "small"
    all of it (28x28 images).   image_size: of the images that the dense layers fit; maps of others are resampled.
    image: [batch channel height width] -> logits [batch class].   ValueError for images of which nothing would be left.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 1000,
        channels: Sequence[int] = (64, 192, 384, 256, 256),
        hidden_dim: int = 4096,
        dropout: float = 0.5,
        image_size: int = 224,
        stem: Literal["large", "medium", "small"] = "large",
    ):
        super().__init__()
        if stem not in STEMS:
            raise ValueError(f"stem={stem!r}: expected large, medium or small")
        kernel_size, stride, padding = STEMS[stem]
        extent = (image_size + 2 * padding - kernel_size) // stride + 1
        for _ in range(3):
            extent = (extent - 3) // 2 + 1
        if extent < 1:
            raise ValueError(f"image_size={image_size}, stem={stem!r}: nothing is left after three poolings; expected more")
        first, second, third, fourth, fifth = channels
        self.stages = nn.ModuleList([
            nn.Sequential(nn.Conv2d(in_channels, first, kernel_size, stride, padding), nn.ReLU(), nn.MaxPool2d(3, 2)),
            nn.Sequential(nn.Conv2d(first, second, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            nn.Sequential(nn.Conv2d(second, third, 3, padding=1), nn.ReLU(), nn.Conv2d(third, fourth, 3, padding=1),
                          nn.ReLU(), nn.Conv2d(fourth, fifth, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        ])  # fmt: skip
        for conv in (module for module in self.stages.modules() if isinstance(module, nn.Conv2d)):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        self.pool = nn.AdaptiveAvgPool2d(extent)
        self.dense = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(fifth * extent**2, hidden_dim), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(hidden_dim, hidden_dim), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(hidden_dim, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        x = image
        for stage in self.stages:
            x = stage(x)
        return self.head(self.dense(self.pool(x).flatten(1)))


def alexnet(**arguments: Any) -> AlexNet:
    """AlexNet, 61,100,840 parameters for ImageNet."""
    return AlexNet(**arguments)


def torchvision_arguments(config: Config) -> dict[str, Any]:
    """What AlexNet takes; torchvision itself writes no config.json."""
    sizes = ("in_channels", "num_classes", "channels", "hidden_dim")
    understood(config, sizes, architecture="alexnet")
    return {name: config[name] for name in sizes}


def torchvision_config(model: AlexNet) -> Config:
    """The sizes; ValueError for a stem or an image_size that torchvision does not have."""
    convs: list[Any] = [layer for layer in model.stages.modules() if isinstance(layer, nn.Conv2d)]
    if convs[0].kernel_size != (11, 11) or model.pool.output_size != 6:
        raise ValueError("stem, image_size: torchvision has 11x11 filters and dense layers for images of 224x224")
    return {"architecture": "alexnet", "in_channels": convs[0].in_channels, "num_classes": model.head.out_features,
            "channels": [conv.out_channels for conv in convs], "hidden_dim": model.head.in_features}  # fmt: skip


PUBLIC = {
    "torchvision": Layout(
        {
            "features.0.*": "stages.0.0.*",
            "features.3.*": "stages.1.0.*",
            "features.6.*": "stages.2.0.*",
            "features.8.*": "stages.2.2.*",
            "features.10.*": "stages.2.4.*",
            "classifier.1.*": "dense.1.*",
            "classifier.4.*": "dense.4.*",
            "classifier.6.*": "head.*",
        },
        torchvision_arguments,
        torchvision_config,
    ),
}

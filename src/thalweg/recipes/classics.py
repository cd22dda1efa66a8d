"""Recipes that set the classics of vision side by side."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from torch import nn

from thalweg.build import adapt, build
from thalweg.data.augmentation import flip, shift
from thalweg.data.sources import cifar10, fashion_mnist
from thalweg.layers.standardize import moments, standardize
from thalweg.models.classical.linear import softmax_regression
from thalweg.models.classical.mlp import mlp
from thalweg.models.vision.alexnet import alexnet
from thalweg.models.vision.densenet import DenseNet
from thalweg.models.vision.googlenet import googlenet, googlenet_bn
from thalweg.models.vision.lenet import lenet, lenet5
from thalweg.models.vision.nin import nin
from thalweg.models.vision.preresnet import PreResNet
from thalweg.models.vision.resnet import ResNet, resnet_cifar
from thalweg.models.vision.vgg import vgg11
from thalweg.tasks.classification import Classification
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw, sgd
from thalweg.training.schedules import cosine, linear, warmup


class Small(NamedTuple):
    """A classic for images of 28x28: its builder and arguments, the learning rate, the side of the images that it sees."""

    builder: Callable[..., nn.Module]
    arguments: dict[str, Any]
    lr: float = 2e-3
    size: int = 28


SMALL: dict[str, Any] = {"in_channels": 1, "num_classes": 10, "stem": "small"}
MEDIUM = {**SMALL, "stem": "medium"}
VGG: dict[str, Any] = {"width": 32, "hidden_dims": [512, 512], "in_channels": 1, "num_classes": 10, "image_size": 32}
CLASSICS = {
    "softmax": Small(softmax_regression, {}, lr=1e-3),
    "mlp": Small(mlp, {"in_features": 784, "out_features": 10, "hidden_dims": [256], "dropout": 0.2}, lr=1e-3),
    "lenet5": Small(lenet5, {}),
    "lenet": Small(lenet, {}, lr=4e-3),
    "alexnet": Small(alexnet, {**SMALL, "channels": [32, 96, 192, 128, 128], "hidden_dim": 512, "image_size": 28}, lr=1e-3),
    "vgg11": Small(vgg11, VGG, lr=1e-3, size=32),
    "vgg11_bn": Small(vgg11, {**VGG, "batch_norm": True}, size=32),
    "nin": Small(nin, {**SMALL, "channels": [32, 96, 192]}, lr=1e-3),
    "googlenet": Small(googlenet, {**MEDIUM, "width": 32}, lr=1e-3),
    "googlenet_bn": Small(googlenet_bn, {**MEDIUM, "width": 32}),
    "resnet18": Small(ResNet, {**MEDIUM, "depths": [2, 2, 2, 2], "width": 32}),
    "preresnet18": Small(PreResNet, {**MEDIUM, "depths": [2, 2, 2, 2], "width": 32}),
    "densenet": Small(DenseNet, {**MEDIUM, "depths": [4, 4, 4], "growth_rate": 16}),
}


def classic_fashion_mnist(
    *,
    model: Literal["softmax", "mlp", "lenet5", "lenet", "alexnet", "vgg11", "vgg11_bn", "nin", "googlenet", "googlenet_bn",
                   "resnet18", "preresnet18", "densenet"] = "alexnet",
    epochs: int = 10,
    batch_size: int = 128,
    lr: float | None = None,
) -> Experiment:  # fmt: skip
    """Any classic tells ten kinds of clothes apart: thalweg sweep classic-fashion-mnist --test --model alexnet,nin.   D2L 7

    model: narrower than for ImageNet, with a stem for small images; what is compared are the architectures
    lr: if not given, what suits the model
    """
    made, splits = CLASSICS[model], fashion_mnist()
    network = build(made.builder, **made.arguments)
    seeing = adapt(network, standardize, **moments(splits.train["image"]), size=[made.size, made.size])
    task = build(Classification, model=seeing, classes=splits.classes, label_smoothing=0.05)
    data = splits.streams(batch_size, augment=[flip(), shift(1)])
    return Experiment(task=task, train=data.train, valid=data.valid, test=data.test, epochs=epochs,
                      optimizer=adamw(lr or made.lr, weight_decay=0.05), schedule=warmup(0.15, cosine()), clip=1.0, ema=0.998,
                      monitor="accuracy")  # fmt: skip


def alexnet_cifar10(*, augment: bool = True, epochs: int = 10, batch_size: int = 128, lr: float = 1e-3) -> Experiment:
    """AlexNet names what is on photographs of 32x32 pixels.   LBDL 5.2, D2L 7.1, 13.1

    augment: whether training images are mirrored and shifted; without, it learns them by heart
    """
    splits = cifar10()
    network = build(alexnet, num_classes=10, channels=[32, 96, 192, 128, 128], hidden_dim=512, image_size=32, stem="small")
    seeing = adapt(network, standardize, **moments(splits.train["image"]), size=[32, 32])
    data = splits.streams(batch_size, augment=[flip(), shift(4, "reflect")] if augment else [])
    return Experiment(task=build(Classification, model=seeing, classes=splits.classes, label_smoothing=0.05), train=data.train,
                      valid=data.valid, test=data.test, epochs=epochs, optimizer=adamw(lr, weight_decay=0.05),
                      schedule=warmup(0.15, cosine()), clip=1.0, ema=0.998, monitor="accuracy")  # fmt: skip


def resnet_cifar10_depth(*, depth: int = 20, residual: bool = True, epochs: int = 8, batch_size: int = 128,
                         lr: float = 0.1) -> Experiment:  # fmt: skip
    """Does depth help? A network of 20 or 56 layers, plain or residual, names what is on photographs.   D2L 7.6, LBDL 5.2

    depth: layers, 6 n + 2
    residual: whether blocks have their shortcuts
    """
    splits = cifar10()
    network = build(resnet_cifar, depth=depth, residual=residual)
    seeing = adapt(network, standardize, **moments(splits.train["image"]), size=[32, 32])
    data = splits.streams(batch_size, augment=[flip(), shift(4)])
    return Experiment(task=build(Classification, model=seeing, classes=splits.classes), train=data.train, valid=data.valid,
                      test=data.test, epochs=epochs, optimizer=sgd(lr, momentum=0.9, weight_decay=1e-4),
                      schedule=warmup(0.1, linear()), monitor="accuracy")  # fmt: skip

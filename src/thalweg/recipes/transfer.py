"""Recipes that start from what another network learned: fine-tuned whole, frozen, or read by a small network."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from thalweg import public
from thalweg.adaptation.heads import probe, without_head
from thalweg.build import adapt, build
from thalweg.data.augmentation import flip, shift
from thalweg.data.sources import cifar10
from thalweg.data.streams import take
from thalweg.layers.standardize import standardize
from thalweg.models.vision.mobilenet import mobilenetv2
from thalweg.tasks.classification import Classification
from thalweg.tasks.transfer import Encoded, OnFeatures
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw, discriminative_adamw
from thalweg.training.schedules import cosine, warmup
from thalweg.weights import IMAGENET

FEATURES = 1280  # that MobileNetV2's head reads


def _mobilenetv2(pretrained: str | None) -> Any:
    """MobileNetV2 for ten classes, from public weights or random."""
    return public.pretrained(mobilenetv2, pretrained, num_classes=10) if pretrained else build(mobilenetv2, num_classes=10)


def _seeing(model: nn.Module, image_size: int) -> Any:
    """The model behind images as ImageNet's weights saw them, enlarged to a side of image_size."""
    return adapt(model, standardize, mean=IMAGENET["mean"], deviation=IMAGENET["deviation"], size=[image_size, image_size])


def _few(examples: int | None) -> Any:
    """CIFAR-10 with the first `examples` training images alone."""
    splits = cifar10()
    return splits if examples is None else replace(splits, train=take(splits.train, torch.arange(examples)))


def finetune_cifar10(*, pretrained: str | None = None, freeze: bool = False, examples: int | None = None, epochs: int = 6,
                     batch_size: int = 64, lr: float | None = None, backbone: float = 0.1,
                     image_size: int = 96) -> Experiment:  # fmt: skip
    """MobileNetV2 goes on from ImageNet to CIFAR-10: whole, or its head alone; or starts from nothing.   D2L 13.2

    pretrained: folder, file or Hugging Face id of MobileNetV2's weights; if not given, random ones
    freeze: all but a linear head stays as it is, so that what counts is what was learned before
    examples: training images, if not all
    lr: learning rate of the head; if not given, 1e-3 with pretrained weights, else 3e-3
    backbone: times as large it is outside the head, with pretrained weights
    image_size: side to which the images are enlarged
    """
    splits = _few(examples)
    model, start = _mobilenetv2(pretrained), pretrained is not None
    if freeze:
        model = adapt(_seeing(adapt(model, without_head), image_size), probe, feature_dim=FEATURES, num_classes=10)
    else:
        model = _seeing(model, image_size)
    data = splits.streams(batch_size, augment=[flip(), shift(4, "reflect")])
    rate = lr or (1e-3 if start or freeze else 3e-3)
    optimizer = discriminative_adamw(rate, backbone=backbone if start else 1.0, weight_decay=0.05)
    return Experiment(task=build(Classification, model=model, classes=splits.classes, label_smoothing=0.1), train=data.train,
                      valid=data.valid, test=data.test, epochs=epochs, optimizer=optimizer, schedule=warmup(0.1, cosine()),
                      clip=1.0, monitor="accuracy")  # fmt: skip


def small_head_cifar10(*, pretrained: str | None = None, examples: int | None = None, epochs: int = 30, batch_size: int = 128,
                       lr: float = 1e-3, hidden_dim: int = 256, image_size: int = 96) -> Experiment:  # fmt: skip
    """MobileNetV2 looks at every image of CIFAR-10 once, and a small network learns from what it saw.   D2L 13.14

    pretrained: folder, file or Hugging Face id of MobileNetV2's weights; if not given, random ones
    examples: training images, if not all
    hidden_dim: units of the small network
    image_size: side to which the images are enlarged
    """
    splits = _few(examples)
    encoder = _seeing(adapt(_mobilenetv2(pretrained), without_head), image_size)
    model: Any = adapt(encoder, probe, feature_dim=FEATURES, num_classes=10, hidden_dim=hidden_dim)
    data, eyes = splits.streams(batch_size), model.encoder
    train, valid, test = (Encoded(part, eyes) for part in (data.train, data.valid, data.test))
    return Experiment(task=build(OnFeatures, model=model, classes=splits.classes), train=train, valid=valid, test=test,
                      epochs=epochs, optimizer=adamw(lr, weight_decay=0.05), schedule=warmup(0.1, cosine()),
                      monitor="accuracy")  # fmt: skip

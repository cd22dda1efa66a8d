"""Recipes that say which of some things are on an image, any number of them.   D2L 1.1"""

from typing import Any

import torch

from thalweg import public
from thalweg.adaptation.heads import probe, without_head
from thalweg.build import adapt, build
from thalweg.data.detection import coco_mini
from thalweg.data.streams import TensorStream
from thalweg.layers.standardize import standardize
from thalweg.models.vision.mobilenet import mobilenetv2
from thalweg.tasks.tagging import TaggingFeatures
from thalweg.tasks.transfer import Encoded
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import cosine, warmup
from thalweg.vocabulary import Batch
from thalweg.weights import IMAGENET


def _tagged(scenes: Batch, classes: int) -> Batch:
    """Photographs and which classes of things are on each.   image, label [n class], 1 or 0"""
    return {"image": scenes["image"],
            "label": (scenes["box_label"][..., None] == torch.arange(classes)).any(1).float()}  # fmt: skip


def tagger_coco(*, pretrained: str | None = None, classes: int = 10, epochs: int = 60, batch_size: int = 16, lr: float = 3e-3,
                weight_decay: float = 30.0, height: int = 240) -> Experiment:  # fmt: skip
    """A linear layer on what MobileNetV2 sees of 82 photographs learns to name the things on others.   D2L 1.1, 13.14

    pretrained: folder, file or Hugging Face id of MobileNetV2's weights; if not given, random ones
    classes: of things that are named, those on the most photographs
    weight_decay: strong, since 1,280 features of 82 photographs can be fitted in any way
    height: of the photographs, at an aspect of 3 to 4
    """
    size = [height, height * 4 // 3]
    splits = coco_mini(size, classes=classes)
    train, valid, test = (_tagged(part, classes) for part in (splits.train, splits.valid, splits.test))
    test = {name: torch.cat([valid[name], test[name]]) for name in test}  # nothing is chosen by validation
    whole: Any = public.pretrained(mobilenetv2, pretrained) if pretrained else build(mobilenetv2)
    features = whole.head.in_features
    eyes = adapt(adapt(whole, without_head), standardize, mean=IMAGENET["mean"], deviation=IMAGENET["deviation"], size=size)
    model: Any = adapt(eyes, probe, feature_dim=features, num_classes=classes)
    frequency = (train["label"].sum(0) + 1) / (len(train["label"]) + 2)
    task = build(TaggingFeatures, model=model, classes=splits.classes, frequency=frequency.tolist())
    return Experiment(task=task, train=Encoded(TensorStream(train, batch_size, shuffle=True), model.encoder),
                      test=Encoded(TensorStream(test, 20), model.encoder), epochs=epochs,
                      optimizer=adamw(lr, weight_decay=weight_decay), schedule=warmup(0.1, cosine()))  # fmt: skip

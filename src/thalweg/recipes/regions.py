"""Recipes of detection in two stages: regions first, then what each holds.   D2L 13.8"""

from typing import Any

from thalweg import public
from thalweg.build import adapt, build
from thalweg.data.augmentation import colour, flip, resized_crop
from thalweg.data.detection import bccd, coco_mini
from thalweg.data.shapes import drawn_shapes
from thalweg.data.streams import TensorStream
from thalweg.layers.standardize import moments, standardize
from thalweg.models import builder
from thalweg.models.vision.rcnn import FasterRCNN, faster_rcnn, mask_rcnn
from thalweg.tasks.regions import TwoStageDetection
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw, discriminative_adamw
from thalweg.training.schedules import cosine, warmup


def faster_rcnn_bccd(*, epochs: int = 60, batch_size: int = 8, lr: float = 1e-3, width: int = 32,
                     proposals: int = 100) -> Experiment:  # fmt: skip
    """Faster R-CNN finds red and white cells and platelets on photographs of blood.   D2L 13.8"""
    splits = bccd((240, 320))
    model = build(faster_rcnn, backbone="resnet18", num_classes=len(splits.classes), levels=3, channels=64, hidden_dim=256,
                  anchor_sizes=[24, 48, 96, 128], proposals=proposals, width=width)  # fmt: skip
    seeing = adapt(model, standardize, **moments(splits.train["image"]), size=splits.train["image"].shape[-2:])
    task = build(TwoStageDetection, model=seeing, classes=splits.classes, regions=64, anchors=128)
    train = TensorStream(splits.train, batch_size, shuffle=True, augment=[flip(), resized_crop(0.5), colour(0.1, 0.1, 0.1)])
    return Experiment(task=task, train=train, valid=TensorStream(splits.valid, 16), test=TensorStream(splits.test, 16),
                      epochs=epochs, optimizer=adamw(lr, weight_decay=0.05), schedule=warmup(0.1, cosine()), clip=5.0,
                      ema=0.998, monitor="mAP50", evaluate_every=10 * len(train))  # fmt: skip


def mask_rcnn_shapes(*, epochs: int = 8, batch_size: int = 16, lr: float = 2e-3, width: int = 16) -> Experiment:
    """Mask R-CNN finds drawn circles, squares and triangles, and which pixels are theirs.   D2L 13.8"""
    splits = drawn_shapes(1000, 64)
    model = build(mask_rcnn, backbone="resnet9", num_classes=len(splits.classes), levels=3, channels=32, hidden_dim=128,
                  anchor_sizes=[16, 24, 32, 48], proposals=50, width=width, stem="medium")  # fmt: skip
    seeing = adapt(model, standardize, **moments(splits.train["image"]), size=(64, 64))
    task = build(TwoStageDetection, model=seeing, classes=splits.classes, regions=32, anchors=64)
    train = TensorStream(splits.train, batch_size, shuffle=True, augment=[flip()])
    valid, test = (TensorStream(part, 50) for part in (splits.valid, splits.test))
    return Experiment(task=task, train=train, valid=valid, test=test, epochs=epochs, optimizer=adamw(lr, weight_decay=0.05),
                      schedule=warmup(0.1, cosine()), clip=5.0, ema=0.99, monitor="mask_mAP50")  # fmt: skip


def mask_rcnn_coco(*, classes: int = 1, model: str = "mobilenetv2", pretrained: str | None = None, epochs: int = 120,
                   batch_size: int = 4, lr: float = 1e-3, image_size: int = 320) -> Experiment:  # fmt: skip
    """Mask R-CNN finds people, or more, on 142 photographs of COCO, and which pixels are theirs.   D2L 13.8

    classes: of things, those on the most photographs
    model: the backbone: mobilenetv2, or any other that gives a map a stage
    pretrained: folder, file or Hugging Face id of weights for it to start from, as timm or transformers write them
    lr: learning rate, with pretrained weights ten times that of the backbone
    image_size: of the longer side that the detector sees
    """
    size = [image_size * 3 // 4, image_size]
    splits = coco_mini(size, masks=True, classes=classes)
    make = builder(model)
    backbone = public.pretrained(make, pretrained) if pretrained else build(make)
    anchors = [image_size * share for share in (0.05, 0.1, 0.2, 0.4, 0.7)]
    plain = build(FasterRCNN, backbone=backbone, num_classes=classes, channels=64, hidden_dim=256, anchor_sizes=anchors,
                  proposals=100, masks=True)  # fmt: skip
    seen: Any = public.preprocessing(pretrained, make) if pretrained else moments(splits.train["image"])
    seeing = adapt(plain, standardize, mean=seen["mean"], deviation=seen["deviation"], size=size)
    task = build(TwoStageDetection, model=seeing, classes=splits.classes, regions=32, anchors=128)
    train = TensorStream(splits.train, batch_size, shuffle=True, augment=[flip(), resized_crop(0.5), colour()])
    return Experiment(task=task, train=train, valid=TensorStream(splits.valid, 10), test=TensorStream(splits.test, 10),
                      epochs=epochs, optimizer=discriminative_adamw(lr, backbone=0.1 if pretrained else 1.0, weight_decay=0.05),
                      schedule=warmup(0.1, cosine()), clip=5.0, ema=0.998, monitor="mask_mAP50",
                      evaluate_every=10 * len(train))  # fmt: skip

"""Recipes of detection in two stages: regions first, then what each holds.   D2L 13.8"""

from thalweg.build import adapt, build
from thalweg.data.augmentation import colour, flip, resized_crop
from thalweg.data.detection import bccd
from thalweg.data.shapes import drawn_shapes
from thalweg.data.streams import TensorStream
from thalweg.layers.standardize import moments, standardize
from thalweg.models.vision.rcnn import faster_rcnn, mask_rcnn
from thalweg.tasks.regions import TwoStageDetection
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw
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

"""Recipes that find what is where on images."""

from thalweg.build import adapt, build
from thalweg.data.detection import bccd
from thalweg.data.streams import TensorStream
from thalweg.layers.standardize import moments, standardize
from thalweg.models.vision.resnet import resnet9
from thalweg.models.vision.ssd import SSD
from thalweg.tasks.detection import MultiBox
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import cosine, warmup


def ssd_bccd(*, epochs: int = 80, batch_size: int = 8, lr: float = 2e-3, width: int = 32, height: int = 240) -> Experiment:
    """A single-shot detector counts the cells on photographs of blood: red and white ones, and platelets.   D2L 13.7

    height: of the images, at an aspect of 3 to 4.   width: of the residual network that is its trunk.
    """
    size = [height, height * 4 // 3]
    splits = bccd(size)
    trunk = build(resnet9, width=width, stem="medium")
    sizes = [(0.085, 0.13), (0.21, 0.26), (0.35, 0.45), (0.6, 0.8)]
    plain = build(SSD, backbone=trunk, num_classes=len(splits.classes), sizes=sizes, channels=[128, 128], whole=False)
    model = adapt(plain, standardize, **moments(splits.train["image"]), size=size)
    task = build(MultiBox, model=model, classes=splits.classes)
    train = TensorStream(splits.train, batch_size, shuffle=True)
    valid, test = (TensorStream(part, 32) for part in (splits.valid, splits.test))
    return Experiment(task=task, train=train, valid=valid, test=test, epochs=epochs, optimizer=adamw(lr, weight_decay=0.05),
                      schedule=warmup(0.1, cosine()), clip=10.0, ema=0.99, monitor="mAP50")  # fmt: skip

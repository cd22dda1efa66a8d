"""Recipes that find what is where on images."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from thalweg import public
from thalweg.build import adapt, build
from thalweg.data.augmentation import colour, flip, shift
from thalweg.data.cutouts import fruit, inked, paste
from thalweg.data.detection import DetectionFolder, bccd
from thalweg.data.photographs import coco_photographs
from thalweg.data.sources import mnist
from thalweg.data.streams import Augment, Splits, TensorStream, generator
from thalweg.layers.standardize import moments, standardize
from thalweg.models import builder
from thalweg.models.vision.fcos import FCOS, fcos
from thalweg.models.vision.resnet import resnet9
from thalweg.models.vision.ssd import SSD, single_box_ssd, tiny_ssd
from thalweg.tasks.detection import MultiBox, SingleBox, TaskAligned
from thalweg.training import Experiment, Task
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import cosine, warmup
from thalweg.vocabulary import Batch


def _experiment(
    kind: Callable[..., Task], model: nn.Module, splits: Splits, size: list[int], epochs: float, batch_size: int, lr: float
) -> Experiment:
    """A detector learns boxes from photographs that are mirrored, moved and differently lit."""
    seen = adapt(model, standardize, **moments(splits.train["image"]), size=size)
    train = TensorStream(splits.train, batch_size, shuffle=True, augment=[flip(), shift(max(size) // 12), colour()])
    valid, test = (TensorStream(part, 32) for part in (splits.valid, splits.test))
    return Experiment(task=build(kind, model=seen, classes=splits.classes), train=train, valid=valid, test=test, epochs=epochs,
                      optimizer=adamw(lr, weight_decay=0.05), schedule=warmup(0.1, cosine()), clip=10.0, ema=0.99,
                      monitor="mAP50")  # fmt: skip


def detector(
    *,
    data: Path,
    model: str = "resnet18",
    pretrained: str | None = None,
    epochs: int | None = None,
    batch_size: int = 8,
    lr: float = 1e-3,
    image_size: int = 320,
) -> Experiment:
    """A detector learns your boxes: a folder of images in the form of COCO, Pascal VOC or YOLO.   D2L 13.3, 13.6

    data: the folder; names of its folders such as train, val and test are taken at their word, else we split
    model: the backbone: resnet18, or any other that gives a map a stage
    pretrained: folder, file or Hugging Face id of weights for it to start from, as timm or transformers write them
    epochs: passes over the training images; if not given, by their number
    batch_size: images a step
    lr: learning rate
    image_size: of the longer side that the detector sees
    """
    folder = DetectionFolder(data)
    size = [max(32, round(side * image_size / max(folder.extent))) for side in folder.extent]
    splits = folder.streams(size, batch_size, augment=[flip(), shift(max(size) // 12), colour()])
    make = builder(model)
    backbone = public.pretrained(make, pretrained) if pretrained else build(make)
    plain = build(FCOS, backbone=backbone, num_classes=len(folder.classes))
    sample = splits.train.fetch(torch.arange(0, splits.train.size, -(-splits.train.size // 1000)))["image"]
    seen = public.preprocessing(pretrained, make) if pretrained else moments(sample)
    seeing = adapt(plain, standardize, mean=seen["mean"], deviation=seen["deviation"], size=size)
    epochs = epochs or round(min(100, max(10, 20_000 / splits.train.size)))
    weights = f" with the weights of {pretrained}" if pretrained else ""
    notes = {
        "images": f"{len(folder.scenes):,} in the form of {folder.form}, about {folder.extent[0]}x{folder.extent[1]}, with "
                  f"{sum(len(scene.annotation.things) for scene in folder.scenes):,} things of {len(folder.classes):,} classes",
        "model": f"FCOS on {make.__name__}{weights} sees {size[0]}x{size[1]}",
    }  # fmt: skip
    if report := folder.report():
        notes["wrong"] = report
    return Experiment(task=build(TaskAligned, model=seeing, classes=folder.classes), train=splits.train, valid=splits.valid,
                      test=splits.test, epochs=epochs, optimizer=adamw(lr, weight_decay=0.05), schedule=warmup(0.1, cosine()),
                      clip=10.0, ema=0.99, monitor="mAP50", notes=notes)  # fmt: skip


def fcos_bccd(*, epochs: int = 60, batch_size: int = 8, lr: float = 2e-3, width: int = 32, height: int = 240) -> Experiment:
    """A detector without anchors counts the cells on photographs of blood: red and white ones, and platelets.

    height: of the images, at an aspect of 3 to 4.   width: of the residual network that is its trunk.
    """
    size = [height, height * 4 // 3]
    splits = bccd(size)
    model = build(fcos, backbone="resnet9", num_classes=len(splits.classes), channels=96, depth=2, coarser=1, width=width,
                  stem="medium")  # fmt: skip
    return _experiment(TaskAligned, model, splits, size, epochs, batch_size, lr)


def ssd_bccd(*, epochs: int = 80, batch_size: int = 8, lr: float = 2e-3, width: int = 32, height: int = 240) -> Experiment:
    """A single-shot detector counts the cells on photographs of blood: red and white ones, and platelets.   D2L 13.7

    height: of the images, at an aspect of 3 to 4.   width: of the residual network that is its trunk.
    """
    size = [height, height * 4 // 3]
    splits = bccd(size)
    trunk = build(resnet9, width=width, stem="medium")
    sizes = [(0.085, 0.13), (0.21, 0.26), (0.35, 0.45), (0.6, 0.8)]
    plain = build(SSD, backbone=trunk, num_classes=len(splits.classes), sizes=sizes, channels=[128, 128], whole=False)
    return _experiment(MultiBox, plain, splits, size, epochs, batch_size, lr)


def _scenes(ground: Tensor, change: Augment, seed: int) -> Batch:
    """Images and what was laid on them, the same for every run."""
    made = [change(batch, generator(seed, number)) for number, batch in enumerate(TensorStream({"image": ground}, 32))]
    return {name: torch.cat([batch[name] for batch in made]) for name in made[0]}


def ssd_fruit(*, epochs: int = 40, batch_size: int = 32, lr: float = 2e-3) -> Experiment:
    """The tiny single-shot detector of D2L finds an apple or a lemon laid on photographs, of any size and turned.   D2L 13.7"""
    ground, cutouts = coco_photographs(256), fruit()

    def lay(things: Batch) -> Augment:
        return paste(things, smallest=0.2, largest=0.8, degrees=45)

    model = build(tiny_ssd, num_classes=len(cutouts.classes))
    seen = adapt(model, standardize, **moments(ground.train["image"]), size=[256, 256])
    train = TensorStream(ground.train, batch_size, shuffle=True, augment=[flip(), lay(cutouts.train), colour()])
    valid, test = (TensorStream(_scenes(image, lay(things), seed), 32) for seed, (image, things) in
                   enumerate([(ground.valid["image"], cutouts.valid), (ground.test["image"][::2], cutouts.test)]))  # fmt: skip
    return Experiment(task=build(MultiBox, model=seen, classes=cutouts.classes), train=train, valid=valid, test=test,
                      epochs=epochs, optimizer=adamw(lr, weight_decay=0.05), schedule=warmup(0.1, cosine()), clip=10.0,
                      ema=0.99, monitor="mAP50", evaluate_every=5 * len(train))  # fmt: skip


def digit_detector(*, epochs: int = 20, batch_size: int = 32, lr: float = 2e-3, width: int = 16, most: int = 5) -> Experiment:
    """A detector of one box a place finds handwritten digits, large and small, on a canvas; every pass is new.   LBDL 6.3

    width: channels at the full extent.   most: digits on a canvas.
    """
    splits, canvas = mnist(), torch.zeros(1, 1, 128, 128, dtype=torch.uint8)

    def lay(digits: Batch) -> Augment:
        return paste(inked(digits), most, smallest=0.15, largest=0.8, degrees=10)

    valid, test = (_scenes(canvas.expand(500, -1, -1, -1), lay(part), seed) for seed, part in
                   enumerate((splits.valid, splits.test)))  # fmt: skip
    model = build(single_box_ssd, num_classes=len(splits.classes), in_channels=1, width=width)
    seen = adapt(model, standardize, **moments(valid["image"]), size=[128, 128])
    train = TensorStream({"image": canvas.expand(2000, -1, -1, -1)}, batch_size, shuffle=True, augment=[lay(splits.train)])
    return Experiment(task=build(SingleBox, model=seen, classes=splits.classes), train=train, valid=TensorStream(valid, 50),
                      test=TensorStream(test, 50), epochs=epochs, optimizer=adamw(lr, weight_decay=0.05),
                      schedule=warmup(0.1, cosine()), clip=10.0, ema=0.99, monitor="mAP50")  # fmt: skip

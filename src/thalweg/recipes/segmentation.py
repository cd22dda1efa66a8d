"""Recipes that say where on an image is what: a class a pixel.   LBDL 6.4, D2L 13.9-13.11"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from thalweg import public
from thalweg.build import adapt, build
from thalweg.data.augmentation import colour, flip, resized_crop
from thalweg.data.segmentation import SegmentationFolder, camvid
from thalweg.data.shapes import SCENE_CLASSES, drawn_shapes
from thalweg.data.streams import Augment, Splits, TensorStream
from thalweg.layers.standardize import moments, standardize
from thalweg.models import builder
from thalweg.models.vision.deeplab import DeepLab
from thalweg.models.vision.fcn import FCN
from thalweg.models.vision.pspnet import PSPNet
from thalweg.models.vision.resnet import resnet18
from thalweg.models.vision.unet import unet
from thalweg.tasks.segmentation import Segmentation
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import cosine, warmup


def _segmenter(model: nn.Module, splits: Splits, classes: Sequence[str], pretrained: str | None = None) -> Segmentation:
    """The model behind what it must see of these images, or what its weights were trained to see, and its task."""
    image = splits.train["image"]
    seen = public.preprocessing(pretrained, resnet18) if pretrained else moments(image)
    model = adapt(model, standardize, mean=seen["mean"], deviation=seen["deviation"], size=list(image.shape[-2:]))
    return build(Segmentation, model=model, classes=classes)


def _trunk(pretrained: str | None, width: int, **arguments: int) -> nn.Module:
    """ResNet-18 of that width, or with public weights, of theirs."""
    return public.pretrained(resnet18, pretrained, **arguments) if pretrained else build(resnet18, width=width, **arguments)


def _streams(splits: Splits, batch_size: int, augment: Sequence[Augment]) -> Splits:
    """Streams of images and their pixels' classes alone, whatever else is known of them."""
    parts = [{name: part[name] for name in ("image", "segmentation")} for part in (splits.train, splits.valid, splits.test)]
    train = TensorStream(parts[0], batch_size, shuffle=True, augment=augment)
    return replace(splits, train=train, valid=TensorStream(parts[1], 10), test=TensorStream(parts[2], 10))


def unet_shapes(*, epochs: int = 6, batch_size: int = 16, lr: float = 3e-3, width: int = 16, skips: bool = True) -> Experiment:
    """A small U-Net finds circles, squares and triangles on noise, pixel by pixel.   LBDL 4.7, 6.4

    skips: whether the maps of the way down are handed across; without them outlines are lost
    """
    splits = drawn_shapes(1000)
    model = build(unet, num_classes=len(SCENE_CLASSES), width=width, num_stages=3, skips=skips)
    data = _streams(splits, batch_size, [flip()])
    return Experiment(task=_segmenter(model, splits, SCENE_CLASSES), train=data.train, valid=data.valid, test=data.test,
                      epochs=epochs, optimizer=adamw(lr, weight_decay=0.05), schedule=warmup(0.1, cosine()), ema=0.98,
                      monitor="mean_iou")  # fmt: skip


def _camvid(model: nn.Module, *, epochs: int, batch_size: int, lr: float, pretrained: str | None = None) -> Experiment:
    """Learns the streets from parts of 53 images: anywhere in them, of any size, mirrored, in other light."""
    splits = camvid((240, 320))
    data = _streams(splits, batch_size, [resized_crop(0.25), flip(), colour(0.3, 0.3, 0.3)])
    return Experiment(task=_segmenter(model, splits, splits.classes, pretrained), train=data.train, valid=data.valid,
                      test=data.test, epochs=epochs, optimizer=adamw(lr, weight_decay=0.05), schedule=warmup(0.1, cosine()),
                      ema=0.99, monitor="mean_iou", evaluate_every=10 * len(data.train))  # fmt: skip


def fcn_camvid(*, epochs: int = 60, batch_size: int = 4, lr: float = 2e-3, width: int = 32, skips: int = 0,
               pretrained: str | None = None) -> Experiment:  # fmt: skip
    """A fully convolutional network says what is where on streets; its map of every 32nd pixel is enlarged.   D2L 13.11

    width: channels of the first stage of its ResNet-18
    pretrained: folder, file or Hugging Face id of weights of a ResNet-18, of their own width, to start from
    skips: how many finer maps are scored too
    """
    model = build(FCN, backbone=_trunk(pretrained, width), num_classes=11, skips=skips)
    return _camvid(model, epochs=epochs, batch_size=batch_size, lr=lr, pretrained=pretrained)


def unet_camvid(*, epochs: int = 60, batch_size: int = 4, lr: float = 2e-3, width: int = 16) -> Experiment:
    """A U-Net says what is where on streets, with outlines as fine as the image.   LBDL 6.4

    width: channels at the full extent
    """
    return _camvid(build(unet, num_classes=11, width=width), epochs=epochs, batch_size=batch_size, lr=lr)


def pspnet_camvid(*, epochs: int = 60, batch_size: int = 4, lr: float = 2e-3, width: int = 32,
                  pretrained: str | None = None) -> Experiment:  # fmt: skip
    """A pyramid scene parsing network says what is where on streets: every place also sees the whole scene.   LBDL 6.4

    width: channels of the first stage of its ResNet-18
    pretrained: folder, file or Hugging Face id of weights of a ResNet-18, of their own width, to start from
    """
    model = build(PSPNet, backbone=_trunk(pretrained, width, dilated=2), num_classes=11, hidden_dim=4 * width)
    return _camvid(model, epochs=epochs, batch_size=batch_size, lr=lr, pretrained=pretrained)


def deeplab_camvid(*, epochs: int = 60, batch_size: int = 4, lr: float = 2e-3, width: int = 32,
                   pretrained: str | None = None) -> Experiment:  # fmt: skip
    """DeepLabv3+ says what is where on streets: it looks near and far at once, and hands fine detail across.

    width: channels of the first stage of its ResNet-18
    pretrained: folder, file or Hugging Face id of weights of a ResNet-18, of their own width, to start from
    """
    backbone = _trunk(pretrained, width, dilated=1)
    model = build(DeepLab, backbone=backbone, num_classes=11, rates=[6, 12, 18], hidden_dim=4 * width)
    return _camvid(model, epochs=epochs, batch_size=batch_size, lr=lr, pretrained=pretrained)


def _classifies(make: Callable[..., nn.Module]) -> bool:
    """Whether a builder's model names whole images, a map a stage, and so can be the trunk of a segmenter, not one itself."""
    with torch.device("meta"), torch.no_grad():
        model = make().eval()
        return hasattr(model, "features") and model(torch.zeros(1, 3, 224, 224)).ndim == 2


def segmenter(
    *,
    data: Path,
    model: str = "auto",
    pretrained: str | None = None,
    epochs: int | None = None,
    batch_size: int = 8,
    lr: float = 2e-3,
    image_size: int | None = None,
) -> Experiment:
    """A segmenter learns your folder of images and masks, a class a pixel.   D2L 13.9-13.11

    data: FOLDER/images/1.jpg and FOLDER/masks/1.png ..., or the same in FOLDER/train, FOLDER/valid, FOLDER/test; classes.txt
    model: unet, deeplabv3_plus or another segmenter; resnet18, mobilenetv2 or another backbone, of an FCN; auto: a small U-Net
    pretrained: folder, file or Hugging Face id of weights for a backbone to start from, as timm or transformers write them
    epochs: passes over the training images; if not given, by their number
    batch_size: images a step
    lr: learning rate
    image_size: longer side that images are scaled to; if not given, theirs, but 320 at most
    """
    make, smaller = (unet, {"width": 16}) if model == "auto" else (builder(model), {})
    is_trunk = _classifies(make)
    if pretrained and not is_trunk:
        raise ValueError(f"model={model!r}, pretrained={pretrained!r}: expected the backbone of these weights, as resnet18")
    folder = SegmentationFolder(data)
    longer = image_size or min(320, max(folder.extent))
    size = [max(32, round(side * longer / max(folder.extent))) for side in folder.extent]
    splits = folder.streams(size, batch_size, augment=[flip(), resized_crop(0.4), colour()])
    examples = splits.train.size
    if is_trunk:
        trunk = public.pretrained(make, pretrained) if pretrained else build(make)
        network = build(FCN, backbone=trunk, num_classes=len(folder.classes), skips=2)
    else:
        network = build(make, num_classes=len(folder.classes), **smaller)
    sample = splits.train.fetch(torch.arange(0, examples, -(-examples // 500)))["image"]
    seen = public.preprocessing(pretrained, make) if pretrained else moments(sample)
    seeing = adapt(network, standardize, mean=seen["mean"], deviation=seen["deviation"], size=size)
    task = build(Segmentation, model=seeing, classes=folder.classes)
    epochs = epochs or round(min(100, max(10, 6_000 / examples)))
    parts = ", ".join(f"{part} {getattr(splits, part).size:,}" for part in ("train", "valid", "test") if getattr(splits, part))
    notes = {
        "images": f"{parts}, about {folder.extent[1]}x{folder.extent[0]}, seen at {size[1]}x{size[0]}",
        "classes": ", ".join(folder.classes),
        "model": f"{'FCN on ' * is_trunk}{make.__name__}, from {f'the weights of {pretrained}' if pretrained else 'scratch'}; "
                 f"{sum(p.numel() for p in task.parameters()):,} parameters",
        "training": f"{epochs} epochs of {len(splits.train)} batches of {batch_size}, AdamW at {lr:g}; augmented by mirroring, "
                    "crops and colour",
    }  # fmt: skip
    if report := folder.report():
        notes["what was wrong"] = report
    return Experiment(task=task, train=splits.train, valid=splits.valid, test=splits.test, epochs=epochs,
                      optimizer=adamw(lr, weight_decay=0.05), schedule=warmup(0.1, cosine()), ema=0.99, monitor="mean_iou",
                      evaluate_every=max(30, len(splits.train)), notes=notes)  # fmt: skip

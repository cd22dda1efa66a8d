"""Recipes that paint a photograph in the style of another.   D2L 13.12"""

from pathlib import Path

import numpy
import torch
from torch import Tensor, nn

from thalweg.build import adapt, build
from thalweg.data.augmentation import flip
from thalweg.data.images import read_image
from thalweg.data.photographs import coco_photographs, own_photographs, patches
from thalweg.data.streams import TensorStream
from thalweg.layers.standardize import standardize
from thalweg.models.vision.painter import painter
from thalweg.models.vision.vgg import vgg16
from thalweg.public import fetch, read_public
from thalweg.tasks.fast_style import FastStyle
from thalweg.tasks.style_transfer import Picture, StyleTransfer, wanted
from thalweg.training import Experiment
from thalweg.training.optimisers import adam
from thalweg.training.schedules import cosine, warmup
from thalweg.weights import IMAGENET


def style_transfer(*, content: Path | None = None, style: Path | None = None, pretrained: str | None = None, height: int = 320,
                   updates: int = 300, lr: float = 0.03, style_weight: float = 10.0,
                   variation_weight: float = 1.0) -> Experiment:  # fmt: skip
    """A picture with the content of one photograph and the style of another.   D2L 13.12

    content: the photograph to paint; if not given, a Chinese palace that scikit-learn carries
    style: the image whose style is taken; if not given, a flower that scikit-learn carries
    pretrained: folder, file or hub id of VGG-16 as torchvision or timm write it, such as timm/vgg16.tv_in1k; without it the
    filters are random: colours and simple textures are taken over, strokes and shapes hardly
    height: of the picture in pixels; the width is by the aspect of the content
    """
    image, painting = _photograph(content, 0), _photograph(style, 1)
    size = [height, round(height * image.shape[-1] / image.shape[-2])]
    image, painting = (_sized(x, size) for x in (image, painting))
    backbone = adapt(_convolutions(pretrained), standardize, mean=IMAGENET["mean"], deviation=IMAGENET["deviation"], size=size)
    picture = build(Picture, height=size[0], width=size[1])
    with torch.no_grad():
        picture.image.copy_(image / 255)
    task = build(StyleTransfer, model=picture, backbone=backbone, style_weight=style_weight,
                 variation_weight=variation_weight)  # fmt: skip
    stream = TensorStream(wanted(backbone, image, painting), 1)
    notes = {"features": f"VGG-16, {f'pretrained: {pretrained}' if pretrained else 'random weights'}"}
    return Experiment(task=task, train=stream, valid=stream, steps=updates, optimizer=adam(lr),
                      schedule=warmup(0.05, cosine()), evaluate_every=max(1, updates // 10), notes=notes)  # fmt: skip


def fast_style(*, style: Path | None = None, data: Path | None = None, pretrained: str | None = None, height: int = 320,
               updates: int = 2000, batch_size: int = 4, lr: float = 1e-3, width: int = 32, style_weight: float = 10.0,
               variation_weight: float = 1.0) -> Experiment:  # fmt: skip
    """A network learns to paint any photograph in the style of one image, in one pass.

    style: the image whose style is learned; if not given, a flower that scikit-learn carries
    data: your folder of photographs to learn on; if not given, 142 photographs of COCO
    pretrained: folder, file or hub id of VGG-16 as torchvision or timm write it; without it the filters are random
    height: of the style image as it is studied, in pixels: the larger, the larger its strokes
    width: channels of the painter at the full extent
    """
    splits, skipped = own_photographs(data) if data else (coco_photographs(), [])
    side, painting = splits.train["image"].shape[-1], _photograph(style, 1)
    painting = _sized(painting, [height, round(height * painting.shape[-1] / painting.shape[-2])])
    if min(painting.shape[-2:]) < side:
        raise ValueError(f"height={height}: expected a style image of at least {side}x{side} pixels")
    backbone = adapt(_convolutions(pretrained), standardize, mean=IMAGENET["mean"], deviation=IMAGENET["deviation"],
                     size=[side, side])  # fmt: skip
    task = build(FastStyle, model=build(painter, width=width), backbone=backbone, style_weight=style_weight,
                 variation_weight=variation_weight)  # fmt: skip
    task.study(patches(painting[0], side, 64))
    train = TensorStream(splits.train, batch_size, shuffle=True, augment=[flip()])
    valid, test = (TensorStream(part, 16) for part in (splits.valid, splits.test))
    notes = {"features": f"VGG-16, {f'pretrained: {pretrained}' if pretrained else 'random weights'}"}
    if skipped:
        notes["skipped"] = ", ".join(f"{path.name} ({reason})" for path, reason in skipped)
    return Experiment(task=task, train=train, valid=valid, test=test, steps=updates, optimizer=adam(lr),
                      schedule=warmup(0.05, cosine()), clip=1.0, evaluate_every=max(1, updates // 4), notes=notes)  # fmt: skip


def _photograph(path: Path | None, carried: int) -> Tensor:
    """The image of a file, or one of the two that scikit-learn carries.   [1 3 height width] uint8"""
    if path:
        return read_image(path)[None]
    from sklearn.datasets import load_sample_images

    return torch.from_numpy(numpy.array(load_sample_images().images[carried])).movedim(-1, 0)[None]


def _sized(image: Tensor, size: list[int]) -> Tensor:
    return nn.functional.interpolate(image, size, mode="bilinear", antialias=True)


def _convolutions(pretrained: str | None) -> nn.Module:
    """The convolutions of VGG-16; of its head there is nothing to learn from.

    ValueError if the weights are not those of VGG-16.
    """
    network = build(vgg16, num_classes=1, hidden_dims=[], image_size=32)
    if pretrained:
        tensors = read_public(fetch(pretrained))
        held = {name.replace("features.", "layers."): x for name, x in tensors.items() if name.startswith("features.")}
        if held.keys() != {name for name in network.state_dict() if name.startswith("layers.")}:
            raise ValueError(f"pretrained={pretrained!r}: expected the tensors features.* of VGG-16, it holds {len(held)} such")
        network.load_state_dict(held, strict=False)
    return network

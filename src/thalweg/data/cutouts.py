"""Cutouts pasted on images: where each thing is, is known exactly, and every pass shows other scenes.   D2L 13.6

A cutout is an image with one more channel, its opacity: [channel + 1 height width], uint8. D2L's bananas lie on photographs
in this way; here apples and lemons do, and digits on an empty canvas.
"""

import io
import math

import numpy
import torch
from PIL import Image
from scipy import ndimage
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample

from thalweg.data.shapes import extents
from thalweg.data.sources import archive, split
from thalweg.data.streams import Augment, Splits
from thalweg.vocabulary import Batch

FRUIT = ("apple", "lemon")


def inked(part: Batch) -> Batch:
    """Bright ink on black as cutouts: white all over, as opaque as it was bright.   image [n 1 h w] -> [n 2 h w]"""
    return {**part, "image": torch.cat([torch.full_like(part["image"], 255), part["image"]], 1)}


def off_white(image: Tensor) -> Tensor:
    """What stands on white as a cutout: near white that reaches the border is nothing.   uint8 [3 h w] -> [4 h w]"""
    empty, _ = ndimage.label((image.amin(0) > 215).numpy())
    outside = {*empty[0], *empty[-1], *empty[:, 0], *empty[:, -1]} - {0}
    solid = ndimage.binary_erosion(~numpy.isin(empty, list(outside)), border_value=1)  # its rim is half white
    opacity = ndimage.gaussian_filter(255.0 * solid, 0.7)
    return torch.cat([image, torch.from_numpy(opacity.round().astype(numpy.uint8))[None]])


def fruit() -> Splits:
    """656 cutouts of an apple and a lemon that turn, 100x100: 442 to train on, 49 for validation, 165 to test on.

    Muresan, Oltean 2018, arXiv:1712.00580 (Fruits-360).   github.com/FarshidNooshi/Fruits-360-Dataset-Classifier
    """
    sha256 = "410f505fc51f845305498a02c8dfb52cd8ddf677427952667b38b8ac4a9a9870"
    files = archive("fruits-360/fruits-360_apple_lemon.zip", sha256, "https://www.kaggle.com/datasets/moltean/fruits")

    def part(name: str) -> Batch:
        image, label = [], []
        for path in sorted(path for path in files.namelist() if f"/{name}/" in path and path.endswith(".jpg")):
            with Image.open(io.BytesIO(files.read(path))) as opened:
                image.append(off_white(torch.from_numpy(numpy.array(opened.convert("RGB"))).movedim(-1, 0)))
            label.append(FRUIT.index(path.split("/")[-2]))
        return {"image": torch.stack(image), "label": torch.tensor(label)}

    return split(part("Train"), part("Test"), FRUIT)


def paste(cutouts: Batch, most: int = 1, smallest: float = 0.2, largest: float = 0.6, degrees: float = 0.0) -> Augment:
    """Lays one to `most` of the cutouts on each image, anywhere, scaled and turned, none on another.

    The longer side of a cutout becomes from `smallest` to `largest` of the image's shorter one, any of them as likely on a
    scale of logarithms; before it is turned, by up to `degrees` either way, it lies within the image, and one that would
    touch an earlier one does not come.   boxes [batch most 4] are those around what is more opaque than not; box_label.
    cutouts: image [n channel + 1 height width] uint8, label [n].   ValueError for numbers that are out of range.
    """
    if most < 1 or not 0 < smallest <= largest <= 1:
        raise ValueError(f"most={most}, smallest={smallest}, largest={largest}: expected at least 1, and 0 < smallest <= "
                         "largest <= 1")  # fmt: skip
    things, label = cutouts["image"], cutouts["label"]

    def change(batch: Batch, generator: Generator) -> Batch:
        image = batch["image"]
        (count, channels, height, width), (tall, wide) = image.shape, things.shape[2:]
        if things.shape[1] != channels + 1:
            raise ValueError(f"cutouts: {things.shape[1]} channels, expected {channels + 1}, those of the image and opacity")

        def draw(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(count, most, generator=generator)

        chosen = torch.randint(len(things), (count, most), generator=generator)
        scale = draw(math.log(smallest), math.log(largest)).exp() * min(height, width) / max(tall, wide)
        half = torch.stack([scale * wide, scale * tall], -1) / 2
        room = image.new_tensor([width, height], dtype=torch.float32) - 2 * half
        centre = half + room * torch.stack([draw(0, 1), draw(0, 1)], -1)
        angle = draw(-math.radians(degrees), math.radians(degrees))
        comes = torch.arange(most) < torch.randint(1, most + 1, (count, 1), generator=generator)
        near = ((centre[:, :, None] - centre[:, None]).abs() < half[:, :, None] + half[:, None]).all(-1)
        for place in range(1, most):
            comes[:, place] &= ~(near[:, place, :place] & comes[:, :place]).any(1)
        cos, sin = angle.cos(), angle.sin()
        right, down = centre.unbind(-1)
        x = torch.stack([width * cos, height * sin, (width - 2 * right) * cos + (height - 2 * down) * sin], -1)
        y = torch.stack([-width * sin, height * cos, (height - 2 * down) * cos - (width - 2 * right) * sin], -1)
        affine = torch.stack([x / (scale * wide)[..., None], y / (scale * tall)[..., None]], -2)
        seen, masks = image.float(), []
        for place in range(most):
            grid = affine_grid(affine[:, place], [count, 1, height, width], align_corners=False)
            thing = things[chosen[:, place]].float()
            opacity = thing[:, -1:] / 255 * comes[:, place, None, None, None]
            laid = torch.cat([thing[:, :-1] * opacity, opacity], 1)  # so that nothing beside it colours its rim
            laid = grid_sample(laid, grid, align_corners=False)
            seen = seen * (1 - laid[:, -1:]) + laid[:, :-1]
            masks.append(laid[:, -1:] > 0.5)
        found = torch.cat(masks, 1)
        exists = found.any(3).any(2)
        return {**batch, "image": seen.round().byte(), "boxes": extents(found),
                "box_label": label[chosen].masked_fill(~exists, -1)}  # fmt: skip

    return change

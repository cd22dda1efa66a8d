"""Drawn scenes: circles, squares and triangles on noise, with their boxes, masks and pixel classes known exactly.

What a detector or segmenter must learn in seconds, and what needs no download; D2L's thousand bananas pasted on
backgrounds are of this kind.   D2L 13.6
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from thalweg.data.streams import Splits, generator
from thalweg.vocabulary import Batch

SHAPES = ("circle", "square", "triangle")
SCENE_CLASSES = ("background", *SHAPES)  # of pixels


def shapes(count: int, size: int | Sequence[int] = 64, seed: int = 0, *, most: int = 3, classes: int = 3) -> Batch:
    """Images of one to `most` shapes, each with the class of its form, in any bright colour; later ones lie on top.

    size: a side, or [height width]; a shape is 0.2 to 0.45 of the shorter one.   classes: so many of SHAPES.
    masks are what is seen of each, boxes their extents; a shape of which less than half is seen is not drawn at all.
    segmentation: 0 where there is none, 1 + class elsewhere.   ValueError for numbers that are out of range.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if count < 1 or most < 1 or min(height, width) < 16 or not 1 <= classes <= len(SHAPES):
        raise ValueError(f"count={count}, most={most}, size={size}, classes={classes}: expected at least 1, 1, 16 pixels, and "
                         f"1 to {len(SHAPES)}")  # fmt: skip
    random = generator(seed, 0)

    def draw(low: float, high: float, *more: int) -> Tensor:
        return low + (high - low) * torch.rand(count, most, *more, generator=random)

    label = torch.randint(classes, (count, most), generator=random)
    wanted = torch.arange(most) < torch.randint(1, most + 1, (count, 1), generator=random)
    radius = draw(0.1, 0.225) * min(height, width)
    x, y = radius + draw(0, 1) * (width - 2 * radius), radius + draw(0, 1) * (height - 2 * radius)
    form = _inside(label, x, y, radius, height, width)
    masks = torch.zeros_like(form)
    for place in range(most):  # one lies on those before it, unless it would hide too much of one of them
        seen = masks & ~form[:, place, None]
        spoils = (2 * seen.sum((2, 3)) < form.sum((2, 3)))[:, :place] & masks[:, :place].any(3).any(2)
        drawn = wanted[:, place] & ~spoils.any(1)
        masks = torch.where(drawn[:, None, None, None], seen, masks)
        masks[:, place] = form[:, place] & drawn[:, None, None]
    exists = masks.any(3).any(2)
    image = _background(count, height, width, random)
    colour = draw(90, 255, 3) * (torch.rand(count, most, 3, generator=random) < 0.7)
    colour[..., 0] = torch.where(colour.amax(-1) < 90, 255, colour[..., 0])  # never black
    grain = 12 * torch.randn(count, 3, height, width, generator=random)
    shade = torch.einsum("nphw,npc->nchw", masks.float(), colour) + grain
    image = torch.where(masks.any(1, keepdim=True), shade, image).clamp(0, 255).round().byte()
    segmentation = ((label + 1)[:, :, None, None] * masks).sum(1)
    return {"image": image, "boxes": extents(masks), "box_label": label.masked_fill(~exists, -1), "masks": masks,
            "segmentation": segmentation}  # fmt: skip


def drawn_shapes(count: int = 1000, size: int | Sequence[int] = 64, *, most: int = 3, classes: int = 3) -> Splits:
    """`count` drawn scenes to train on, a fifth as many to validate on, and as many again to test on."""
    train, valid, test = (
        shapes(max(1, number), size, seed, most=most, classes=classes)
        for seed, number in enumerate((count, count // 5, count // 5))
    )
    return Splits(train, valid, test, SHAPES[:classes])


def _inside(label: Tensor, x: Tensor, y: Tensor, radius: Tensor, height: int, width: int) -> Tensor:
    """The pixels whose centres are in the form at x, y that fits into a square of 2 radius.   [n p] -> [n p height width]"""
    down = (torch.arange(height)[:, None] + 0.5 - y[..., None, None]) / radius[..., None, None]  # -1 to 1 within the form
    right = (torch.arange(width) + 0.5 - x[..., None, None]) / radius[..., None, None]
    circle, square = right**2 + down**2 <= 1, torch.maximum(right.abs(), down.abs()) <= 0.9
    triangle = (2 * right.abs() <= down + 1) & (down <= 1)  # its point above
    return torch.stack([circle, square, triangle], -1).take_along_dim(label[..., None, None, None], -1).squeeze(-1)


def _background(count: int, height: int, width: int, random: Generator) -> Tensor:
    """Soft noise of several scales, darker than the shapes.   [count 3 height width]"""
    total = torch.zeros(count, 3, height, width)
    for scale in (2, 6, 18):
        coarse = torch.rand(count, 3, math.ceil(height / scale), math.ceil(width / scale), generator=random)
        total += interpolate(coarse, (height, width), mode="bilinear")
    return 45 * total


def extents(masks: Tensor) -> Tensor:
    """The smallest box around each mask, 0 where it is empty.   bool [... height width] -> [... 4]"""
    sides = []
    for seen in (masks.any(-2), masks.any(-1)):  # columns, rows
        place = torch.arange(seen.shape[-1])
        sides += [torch.where(seen, place, seen.shape[-1]).amin(-1), torch.where(seen, place + 1, 0).amax(-1)]
    left, right, top, bottom = sides
    boxes = torch.stack([left, top, right, bottom], -1)
    return boxes.where(masks.any(-1).any(-1)[..., None], 0).float()

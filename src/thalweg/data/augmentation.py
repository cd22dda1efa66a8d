"""Augmentation of whole batches of images at once, random numbers from the stream's generator.

Each function returns (batch, generator) -> batch. Images are uint8, or float in [0, 1], and keep their type.
What moves an image moves the boxes, masks and pixel classes in the batch with it: a pixel that comes in from outside is in
no mask and has the class 255, which does not count; a box is that around its moved corners, cut to the image, and is no
longer one (label -1, all 0) where less than VISIBLE of it is left.
D2L 13.1, 13.9, LBDL 6.2
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample, one_hot, pad

from thalweg.data.streams import Augment
from thalweg.vocabulary import Batch

VISIBLE = 0.3  # the least share of a box that must be seen for it to stay one; Liu et al. 2015, arXiv:1512.02325


def _uniform(size: tuple[int, ...], low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(size, generator=generator)


def _with(batch: Batch, image: Tensor) -> Batch:
    return {**batch, "image": image}


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name}={value}: expected a number from {low} to {high}")


def _pixels(image: Tensor) -> Tensor:
    """The image in a type to calculate in."""
    return image if image.is_floating_point() else image.float()


def _as(pixels: Tensor, image: Tensor) -> Tensor:
    """Calculated pixels in the type of the image."""
    return pixels if image.is_floating_point() else pixels.round_().to(image.dtype)


def _sample(image: Tensor, affine: Tensor, outside: str, size: tuple[int, int] | None = None) -> Tensor:
    """The image at affine [batch 2 3] of every place, bilinearly; places are -1 to 1 in width and in height (of `size`)."""
    pixels = _pixels(image)
    grid = affine_grid(affine, [*image.shape[:2], *(size or image.shape[2:])], align_corners=False)
    return _as(grid_sample(pixels, grid, padding_mode=outside, align_corners=False), image)


def _moved(
    batch: Batch, image: Tensor, move: Callable[[Tensor, float], Tensor], move_boxes: Callable[[Tensor], Tensor]
) -> Batch:
    """The batch with its image moved to whole pixels, and all that is in it alike.   move: maps [batch channel height width]
    and what comes in from outside -> maps"""
    moved = _with(batch, image)
    if "segmentation" in batch:
        moved["segmentation"] = move(batch["segmentation"][:, None], 255).squeeze(1)
    if "masks" in batch:
        moved["masks"] = move(batch["masks"], 0)
    return _seen(moved, move_boxes(batch["boxes"])) if "boxes" in batch else moved


def _carried(batch: Batch, image: Tensor, affine: Tensor) -> Batch:
    """The batch with the image that _sample made of its own with the affine, and all that is in it moved alike."""
    moved, old = _with(batch, image), batch["image"]

    def nearest(maps: Tensor) -> Tensor:
        grid = affine_grid(affine.float(), [*maps.shape[:2], *image.shape[2:]], align_corners=False)
        return grid_sample(maps.float(), grid, mode="nearest", align_corners=False)

    if "segmentation" in batch:
        moved["segmentation"] = (
            (nearest(batch["segmentation"][:, None].float() - 255) + 255).squeeze(1).to(batch["segmentation"].dtype)
        )
    if "masks" in batch:
        moved["masks"] = nearest(batch["masks"]).bool()
    if "boxes" not in batch:
        return moved
    before, after = (torch.tensor([x.shape[3], x.shape[2]]) / 2 for x in (old, image))
    left, top, right, bottom = batch["boxes"].unbind(-1)
    corners = torch.stack([left, top, right, top, right, bottom, left, bottom], -1).unflatten(-1, (4, 2)) / before - 1
    turn, still = affine[:, None, :, :2].to(corners.dtype), affine[:, None, None, :, 2].to(corners.dtype)
    corners = ((corners - still) @ turn.inverse().mT + 1) * after
    return _seen(moved, torch.cat([corners.amin(-2), corners.amax(-2)], -1))


def _seen(batch: Batch, boxes: Tensor) -> Batch:
    """The batch with these boxes, cut to the image, as far as enough of them is seen."""
    height, width = batch["image"].shape[2:]
    cut = torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))
    whole, left = ((box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (boxes, cut))
    kept = (batch["box_label"] >= 0) & (left >= VISIBLE * whole) & (left > 0)
    seen = {**batch, "boxes": cut.where(kept[..., None], 0), "box_label": batch["box_label"].where(kept, -1)}
    return {**seen, "masks": batch["masks"] & kept[..., None, None]} if "masks" in batch else seen


def flip(probability: float = 0.5) -> Augment:
    """Mirrors left and right.   For things that have no left and right: not for digits or text."""
    _check("probability", probability, 0.0, 1.0)

    def change(batch: Batch, generator: Generator) -> Batch:
        mirrored = (torch.rand(len(batch["image"]), generator=generator) < probability)[:, None, None]

        def boxes(old: Tensor) -> Tensor:
            left, top, right, bottom = old.unbind(-1)
            width = batch["image"].shape[-1]
            return torch.where(mirrored, torch.stack([width - right, top, width - left, bottom], -1), old)

        def moved(maps: Tensor, _: float) -> Tensor:
            return torch.where(mirrored[..., None], maps.flip(-1), maps)

        return _moved(batch, moved(batch["image"], 0), moved, boxes)

    return change


def shift(pixels: int, mode: str = "constant") -> Augment:
    """Moves by up to `pixels` in each direction: pads, and crops to the old size at a random place.

    mode: what is padded, as in torch.nn.functional.pad ("constant" zeros, "reflect", "replicate").
    """
    _check("pixels", float(pixels), 0.0, math.inf)

    def change(batch: Batch, generator: Generator) -> Batch:
        image = batch["image"]
        row, column = torch.randint(0, 2 * pixels + 1, (2, len(image)), generator=generator)

        def moved(maps: Tensor, fill: float, mode: str = "constant") -> Tensor:
            padded = pad(maps, (pixels,) * 4, mode=mode, value=fill if mode == "constant" else None)
            return _windows(padded, row, column, maps.shape[2:])

        shifted = moved(image, 0) if mode == "constant" else moved(_pixels(image), 0, mode).to(image.dtype)
        return _moved(batch, shifted, moved, lambda boxes: boxes + pixels - _corners(row, column))

    return change


def crop(size: int | Sequence[int]) -> Augment:
    """A random part of fixed size, nothing scaled, so that every pixel keeps its class.   size: a side, or [height width]

    Where the image is smaller it is filled up, to the right and below.   Long et al. 2014, arXiv:1411.4038.
    """
    tall, wide = (size, size) if isinstance(size, int) else size
    if min(tall, wide) < 1:
        raise ValueError(f"size={size}: expected at least 1 pixel a side")

    def change(batch: Batch, generator: Generator) -> Batch:
        count, _, height, width = batch["image"].shape
        more = max(tall - height, 0), max(wide - width, 0)
        row, column = (torch.randint(0, side + extra - part + 1, (count,), generator=generator)
                       for side, extra, part in zip((height, width), more, (tall, wide), strict=True))  # fmt: skip

        def moved(maps: Tensor, fill: float) -> Tensor:
            return _windows(pad(maps, (0, more[1], 0, more[0]), value=fill), row, column, (tall, wide))

        return _moved(batch, moved(batch["image"], 0), moved, lambda boxes: boxes - _corners(row, column))

    return change


def _windows(maps: Tensor, row: Tensor, column: Tensor, size: Sequence[int]) -> Tensor:
    """The part of that size of each of the maps that begins at its row and column."""
    windows = maps.unfold(2, size[0], 1).unfold(3, size[1], 1)  # a view: [batch channel row column height width]
    return windows[torch.arange(len(maps)), :, row, column]


def _corners(row: Tensor, column: Tensor) -> Tensor:
    """By how much a box is nearer to the corner of a part that begins there.   [batch 1 4]"""
    return torch.stack([column, row, column, row], -1)[:, None]


def rotate(degrees: float, zoom: float = 0.0) -> Augment:
    """Turns by up to `degrees` either way and scales by 1 - zoom to 1 + zoom, bilinearly, zeros outside."""
    _check("zoom", zoom, 0.0, 0.99)

    def change(batch: Batch, generator: Generator) -> Batch:
        image = batch["image"]
        angle = _uniform((len(image),), -math.radians(degrees), math.radians(degrees), generator)
        affine = _about_the_middle(image, angle, _uniform((len(image),), 1 - zoom, 1 + zoom, generator))
        return _carried(batch, _sample(image, affine, "zeros"), affine)

    return change


def turned(image: Tensor, degrees: float, scale: float = 1.0) -> Tensor:
    """Images turned about their middle, counterclockwise, and enlarged, bilinearly, zeros outside."""
    angle, factor = (image.new_full((len(image),), value, dtype=torch.float32) for value in (math.radians(degrees), scale))
    return _sample(image, _about_the_middle(image, angle, factor), "zeros")


def _about_the_middle(image: Tensor, angle: Tensor, scale: Tensor) -> Tensor:
    """For _sample: turns each image by its angle in radians, and enlarges it.   [batch 2 3]"""
    height, width = image.shape[2:]
    angle, nearer = angle.to(_pixels(image[:0]).dtype), 1 / scale
    cos, sin, still = angle.cos() * nearer, angle.sin() * nearer, torch.zeros_like(angle)
    x = torch.stack([cos, -sin * height / width, still], -1)
    y = torch.stack([sin * width / height, cos, still], -1)
    return torch.stack([x, y], 1)


def scatter(size: int, degrees: float = 0.0, smallest: float = 1.0, largest: float = 1.0, clutter: int = 0) -> Augment:
    """Puts each image, turned and scaled, anywhere on an empty square of `size` pixels, bilinearly.

    The angle is up to `degrees` either way, the factor from `smallest` to `largest`; the square of the scaled image, not
    turned, stays inside. clutter: so many 6x6 pieces of other images of the batch lie about; the brighter pixel is on top.
    The batch then holds the angle of each, in radians, counterclockwise.
    Jaderberg et al. 2015, arXiv:1506.02025.
    """
    _check("largest", largest, 1e-3, math.inf)
    _check("smallest", smallest, 1e-3, largest)

    def change(batch: Batch, generator: Generator) -> Batch:
        image = batch["image"]
        count, _, height, width = image.shape
        if clutter and min(size, height, width) < PIECE:
            raise ValueError(f"size={size}, image: {height}x{width}, expected at least {PIECE} pixels a side")
        angle = _uniform((count,), -math.radians(degrees), math.radians(degrees), generator).to(_pixels(image[:0]).dtype)
        scale = _uniform((count,), smallest, largest, generator)
        right, down = (
            _uniform((count,), -1, 1, generator) * (1 - scale * side / size).clamp(min=0) for side in (width, height)
        )
        cos, sin = angle.cos() / scale, angle.sin() / scale
        x = torch.stack([cos, -sin, sin * down - cos * right], -1) * (size / width)
        y = torch.stack([sin, cos, -sin * right - cos * down], -1) * (size / height)
        affine = torch.stack([x, y], 1)
        placed = _sample(image, affine, "zeros", (size, size))
        if clutter:
            placed = torch.maximum(placed, _clutter(image, size, clutter, generator))
        return {**_carried(batch, placed, affine), "angle": angle}

    return change


PIECE = 6  # pixels a side of a piece of clutter


def _clutter(image: Tensor, size: int, pieces: int, generator: Generator) -> Tensor:
    """Pieces of any of the images at random places of empty squares, one an image."""
    count, channels, height, width = image.shape
    windows = image.unfold(2, PIECE, 1).unfold(3, PIECE, 1)  # a view: [batch channel row column PIECE PIECE]

    def draw(most: int) -> Tensor:
        return torch.randint(most, (count, pieces), generator=generator)

    torn = windows[draw(count), :, draw(height - PIECE + 1), draw(width - PIECE + 1)]  # [batch piece channel PIECE PIECE]
    inside = torch.arange(PIECE)
    row, column = (draw(size - PIECE + 1)[..., None] + inside for _ in range(2))
    place = (row[..., None] * size + column[..., None, :])[:, :, None].expand_as(torn)  # in the flat square
    flat = image.new_zeros(count, channels, size * size)
    place, torn = (x.movedim(2, 1).flatten(2) for x in (place, torn))
    return flat.scatter_reduce(2, place, torn, "amax").unflatten(2, (size, size))


def resized_crop(smallest: float = 0.35, ratio: float = 4 / 3) -> Augment:
    """A random part of the image, scaled to the old size.   Szegedy et al. 2014, arXiv:1409.4842

    Its area is uniform from `smallest` of the image's to all of it; its width over its height is log-uniform from
    1 / ratio to ratio times the image's own; a side that would be longer than the image's is cut to it.
    """
    _check("smallest", smallest, 0.01, 1.0)
    _check("ratio", ratio, 1.0, math.inf)

    def change(batch: Batch, generator: Generator) -> Batch:
        image = batch["image"]
        count = len(image)
        area = _uniform((count,), smallest, 1.0, generator).to(_pixels(image[:0]).dtype)
        aspect = _uniform((count,), -math.log(ratio), math.log(ratio), generator).exp()
        width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
        x = _uniform((count,), -1, 1, generator) * (1 - width)
        y = _uniform((count,), -1, 1, generator) * (1 - height)
        still = torch.zeros_like(width)
        affine = torch.stack([torch.stack([width, still, x], -1), torch.stack([still, height, y], -1)], 1)
        return _carried(batch, _sample(image, affine, "border"), affine)

    return change


def zoom_out(largest: float = 2.0, probability: float = 0.5) -> Augment:
    """The image made smaller, anywhere on a ground of its mean colour: small things to be found.

    It becomes 1 to 1 / `largest` as wide and high, bilinearly, with no smoothing before.   Liu et al. 2015, arXiv:1512.02325
    """
    _check("largest", largest, 1.0, math.inf)
    _check("probability", probability, 0.0, 1.0)

    def change(batch: Batch, generator: Generator) -> Batch:
        image = batch["image"]
        count, pixels = len(image), _pixels(image)
        chosen = torch.rand(count, generator=generator) < probability
        scale = _uniform((count,), 1.0, largest, generator).where(chosen, 1.0).to(pixels.dtype)
        x, y = (_uniform((count,), -1, 1, generator) * (scale - 1) for _ in range(2))
        still = torch.zeros_like(scale)
        affine = torch.stack([torch.stack([scale, still, x], -1), torch.stack([still, scale, y], -1)], 1)
        ground = pixels.mean((2, 3), keepdim=True)
        return _carried(batch, _as(_sample(pixels - ground, affine, "zeros") + ground, image), affine)

    return change


def colour(brightness: float = 0.2, contrast: float = 0.2, saturation: float = 0.2) -> Augment:
    """Scales brightness, then contrast, then saturation by factors from 1 - the number to 1 + it.

    x = b x;   x = m + c (x - m), m the mean of the image;   x = g + s (x - g), g the mean of the channels of each pixel;
    then x is cut to the range of its type.
    """
    for name, value in {"brightness": brightness, "contrast": contrast, "saturation": saturation}.items():
        _check(name, value, 0.0, 1.0)

    def change(batch: Batch, generator: Generator) -> Batch:
        image = batch["image"]
        pixels = _pixels(image)

        def factor(strength: float) -> Tensor:
            return _uniform((len(image), 1, 1, 1), 1 - strength, 1 + strength, generator).to(pixels.dtype)

        pixels = pixels * factor(brightness)
        pixels = torch.lerp(pixels.mean((1, 2, 3), keepdim=True), pixels, factor(contrast))
        pixels = torch.lerp(pixels.mean(1, keepdim=True), pixels, factor(saturation))
        return _with(batch, _as(pixels.clamp_(0, 1 if image.is_floating_point() else 255), image))

    return change


def erase(fraction: float = 0.25, probability: float = 0.5) -> Augment:
    """Blanks a random square of up to `fraction` of the largest square, cut at the border.

    Cutout (DeVries, Taylor 2017, arXiv:1708.04552) with the random size of random erasing (arXiv:1708.04896).
    """
    _check("fraction", fraction, 0.0, 1.0)
    _check("probability", probability, 0.0, 1.0)

    def change(batch: Batch, generator: Generator) -> Batch:
        image = batch["image"]
        count, _, height, width = image.shape
        half = _uniform((count,), 0, fraction, generator).sqrt() * min(height, width) / 2
        half = half * (torch.rand(count, generator=generator) < probability)
        return _with(batch, image.masked_fill(_box(image, half, half, generator), 0))

    return change


def mixup(num_classes: int, alpha: float = 0.2) -> Augment:
    """Mixes each image with another and their labels alike.   x = w x1 + (1 - w) x2, w ~ Beta(alpha, alpha)

    The label becomes a probability a class, [batch class].   Zhang et al. 2017, arXiv:1710.09412.
    """
    _check("alpha", alpha, 1e-3, math.inf)

    def change(batch: Batch, generator: Generator) -> Batch:
        image, label = _pixels(batch["image"]), _probability(batch["label"], num_classes)
        weight, other = _beta(len(image), alpha, generator), torch.randperm(len(image), generator=generator)
        mixed = torch.lerp(image[other], image, weight[:, None, None, None].to(image.dtype))
        label = torch.lerp(label[other], label, weight[:, None])
        return {**batch, "image": _as(mixed, batch["image"]), "label": label}

    return change


def cutmix(num_classes: int, alpha: float = 1.0) -> Augment:
    """Pastes a box of another image, and mixes the labels by area.   Yun et al. 2019, arXiv:1905.04899.

    The box has the image's own aspect, the area (1 - w), w ~ Beta(alpha, alpha), and is cut at the border.
    The label becomes a probability a class, [batch class].
    """
    _check("alpha", alpha, 1e-3, math.inf)

    def change(batch: Batch, generator: Generator) -> Batch:
        image, label = batch["image"], _probability(batch["label"], num_classes)
        count, _, height, width = image.shape
        half = (1 - _beta(count, alpha, generator)).sqrt() / 2
        other = torch.randperm(count, generator=generator)
        inside = _box(image, half * height, half * width, generator)
        kept = 1 - inside.float().mean((1, 2, 3))[:, None]
        return {**batch, "image": torch.where(inside, image[other], image), "label": torch.lerp(label[other], label, kept)}

    return change


def _box(image: Tensor, half_height: Tensor, half_width: Tensor, generator: Generator) -> Tensor:
    """Whether a pixel's centre is inside a box around a random place in the image.   [batch 1 height width]"""
    count, _, height, width = image.shape
    y, x = (torch.rand(2, count, generator=generator) * torch.tensor([[height], [width]])).unbind(0)
    rows = (torch.arange(height) + 0.5 - y[:, None]).abs() < half_height[:, None]
    columns = (torch.arange(width) + 0.5 - x[:, None]).abs() < half_width[:, None]
    return rows[:, None, :, None] & columns[:, None, None, :]


def _probability(label: Tensor, num_classes: int) -> Tensor:
    """A probability a class: as it is where images were mixed before."""
    return one_hot(label, num_classes).float() if label.ndim == 1 else label


def _beta(count: int, alpha: float, generator: Generator) -> Tensor:
    """Beta(alpha, alpha) by two gamma samples, from the generator given."""
    first, second = torch._standard_gamma(torch.full((2, count), alpha), generator=generator)
    return first / (first + second).clamp(min=1e-12)

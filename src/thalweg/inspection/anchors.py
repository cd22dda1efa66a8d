"""The anchor boxes of a recipe's detector, on one of its images: what it can find, scale by scale.   D2L 13.4, 13.5"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg.figures import draw_boxes
from thalweg.layers.boxes import to_centres
from thalweg.training import Experiment


def scales(experiment: Experiment) -> tuple[Tensor, list[tuple[int, int, Tensor]]]:
    """An image [1 channel height width] as the detector sees it, and rows, columns and anchors [anchor 4] of every map.

    Anchors are in pixels of that image, map pixel by map pixel.   ValueError if the recipe's model has no anchors.
    """
    task: Any = experiment.task
    detector: Any = next((module for module in task.modules() if hasattr(module, "maps")), None)
    if detector is None:
        raise ValueError(f"{type(task).__name__}: expected a recipe whose detector has anchors, such as ssd-bccd")
    image = next(iter(experiment.train.batches(0)))["image"][:1]
    task.eval()
    with torch.inference_mode():
        seen = task.model.standardize(image)
        maps = detector.maps(seen)
        around = detector.anchors(maps, seen.shape[-2:])
    extent = torch.tensor(image.shape[-2:]) / torch.tensor(seen.shape[-2:])
    return image, [(x.shape[-2], x.shape[-1], boxes * extent.flip(0).repeat(2)) for x, boxes in zip(maps, around, strict=True)]


def draw_anchors(experiment: Experiment, path: Path) -> str:
    """Draws the anchors around the middle pixel of each map and the middles of all, and returns their numbers, a line a map."""
    torch.manual_seed(0)
    image, found = scales(experiment)
    height, width = image.shape[-2:]
    middle, lines = [], []
    for rows, columns, boxes in found:
        shapes = len(boxes) // (rows * columns)
        place = rows // 2 * columns + columns // 2
        middle.append(boxes[place * shapes : (place + 1) * shapes])
        lines.append(f"map {rows}x{columns}: {shapes} anchors a pixel, {len(boxes):,} in all")
    colours = [[f"C{number % 10}" for number in range(len(boxes))] for boxes in middle]
    figure = draw_boxes(image.expand(len(found), -1, -1, -1), middle, colours=colours, columns=min(3, len(found)), width=4)
    for axis, (_, _, boxes), line in zip(figure.axes, found, lines, strict=False):
        x, y = to_centres(boxes)[:, :2].unique(dim=0).T
        axis.plot(x.numpy(), y.numpy(), ".", color="white", markersize=2)
        axis.set_title(line, fontsize=8)
        axis.set_xlim(-width / 4, 1.25 * width)  # anchors may stick out of the image
        axis.set_ylim(1.25 * height, -height / 4)
    figure.savefig(path)
    total = sum(len(boxes) for *_, boxes in found)
    every = f"{height}x{width}, five around every pixel: {5 * height * width:,}; of 561x728: {5 * 561 * 728:,}"
    return "\n".join([*lines, f"{total:,} anchors; {every}"])

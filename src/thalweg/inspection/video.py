"""A trained task looks at a video: every picture of it, with what was predicted painted on it."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from tqdm import tqdm

from thalweg.data.video import about, read_video, write_video
from thalweg.figures import palette, tinted, topmost
from thalweg.training import Task
from thalweg.vocabulary import Batch

TOGETHER = 8  # pictures that are looked at together


def annotate(task: Task, source: Path, target: Path, **arguments: Any) -> str:
    """Writes the video with what the task predicts for each picture painted on it; a line on what was written.

    arguments: those of the task's predict.   Errors as of `thalweg.data.video.about`; ValueError if the task says of an image
    nothing that can be painted.
    """
    video, count = about(source), 0

    def painting() -> Iterator[tuple[Tensor, float]]:
        nonlocal count
        for inputs, seconds, predicted in looked_at(task, source, **arguments):
            if "image" not in predicted and not hasattr(task, "classes"):
                raise ValueError(f"{source}: {type(task).__name__} says nothing that is painted on a video, expected one that "
                                 "names or finds things, segments or restores; as JSON it tells of each picture")  # fmt: skip
            count += len(seconds)
            yield from zip(painted(task, inputs["image"], predicted), seconds, strict=True)

    write_video(target, painting(), video.rate)
    return f"{target} ({count:,} pictures{', without the sound' * video.sound})"


def looked_at(task: Task, source: Path, **arguments: Any) -> Iterator[tuple[Batch, list[float], dict[str, Any]]]:
    """Pictures of a video, some at a time, when each is shown, and what the task predicts for them."""
    total = about(source).frames or None
    pictures = iter(tqdm(read_video(source), total=total, unit="picture", leave=False, disable=None))
    while some := list(islice(pictures, TOGETHER)):
        inputs: Batch = {"image": torch.stack([image for image, _ in some])}
        yield inputs, [seconds for _, seconds in some], task.predict(inputs, **arguments)


def painted(task: Task, image: Tensor, predicted: dict[str, Any]) -> Tensor:
    """Images with what was predicted of them: made anew, or their pixels tinted, boxes around things, and names.

    image: uint8 [batch 3 height width] -> the same, or of another extent where the task makes it so.
    """
    if "image" in predicted:
        return predicted["image"].expand(-1, 3, -1, -1)
    classes: Sequence[str] = task.classes  # type: ignore[assignment]
    colours = palette(len(classes))
    number = {name: place for place, name in enumerate(classes)}
    if "segmentation" in predicted:
        names = [[(name, f"{100 * share:.0f} %") for name, share in shares.items()] for shares in predicted["share"]]
        image = _bytes(tinted(image, predicted["segmentation"], colours))
    else:
        names = [[(name, f"{p:.2f}") for name, p in zip(each, probability.tolist(), strict=True)]
                 for each, probability in zip(predicted["label"], predicted["probability"], strict=True)]  # fmt: skip
    if "masks" in predicted:
        labels = [[number[name] for name in each] for each in predicted["label"]]
        held = [topmost(masks, label) for masks, label in zip(predicted["masks"], labels, strict=True)]
        image = _bytes(tinted(image, torch.stack(held), colours))
    shades = [tuple(colour) for colour in (colours * 255).byte().tolist()]
    pictures = []
    for place, pixels in enumerate(image):
        canvas = Image.fromarray(pixels.movedim(0, -1).numpy())
        draw, size = ImageDraw.Draw(canvas), max(10, canvas.height // 40)
        font = ImageFont.load_default(size)
        for row, (name, value) in enumerate(names[place]):
            shade, corner = shades[number[name]], (size // 4, size // 4 + row * (size + size // 2))
            if "boxes" in predicted:
                left, top, right, bottom = predicted["boxes"][place][row].tolist()
                draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=shade, width=max(1, size // 8))
                corner = (left, max(0, top - size - 2))
            text = f"{name} {value}"
            draw.rectangle(draw.textbbox(corner, text, font), fill=shade)
            draw.text(corner, text, "white" if sum(shade) < 400 else "black", font)
        pictures.append(torch.from_numpy(numpy.array(canvas)).movedim(-1, 0))
    return torch.stack(pictures)


def _bytes(image: Tensor) -> Tensor:
    return (image * 255).round().to(torch.uint8)

"""A trained task answers a person: inputs as they are typed, answers as lines of text."""

import ast
import base64
import inspect
import json
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg.data import run_lengths
from thalweg.data.images import png, read_image
from thalweg.data.video import VIDEOS, read_video
from thalweg.figures import palette
from thalweg.inspection.video import annotate, looked_at
from thalweg.training import Task


def options(task: Task) -> dict[str, tuple[str, Any]]:
    """The keyword arguments of the task's predict: name -> annotation and default."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(type(task).predict))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    return {
        argument.arg: (ast.unparse(argument.annotation) if argument.annotation else "str", ast.literal_eval(default))
        for argument, default in zip(tree.args.kwonlyargs, tree.args.kw_defaults, strict=True)
        if default is not None
    }


def read(task: Task, typed: str) -> dict[str, Any]:
    """What the task's predict takes, from what a person typed: the name of an image or video file, a text, or numbers."""
    if task.reads == "image":
        return {"image": read_image(typed)[None]}
    if task.reads == "video":
        return {"frames": torch.stack([picture for picture, _ in read_video(Path(typed))])[None]}
    if task.reads == "text":
        return {"text": [typed]}
    try:
        numbers = [float(word) for word in typed.replace(",", " ").split()]
    except ValueError as error:
        raise ValueError(f"{typed!r}: expected numbers, {task.reads}") from error
    return {task.reads: torch.tensor([numbers])}


def answer(task: Task, inputs: Sequence[str], *, as_json: bool = False, **arguments: Any) -> Iterator[str]:
    """A line or more an input: labels and probabilities, best first, with their boxes, or whatever the task predicts.

    What the task draws of it lies in the working folder as a PNG file, named after the input; of a video, as an MP4 file.
    """
    for typed in inputs:
        if task.reads == "image" and Path(typed).suffix.lower() in VIDEOS:
            yield from _watch(task, Path(typed), as_json, arguments)
            continue
        asked = read(task, typed)
        found = task.predict(asked, **arguments)
        predicted = plain(found)
        if as_json:
            yield json.dumps({"input": typed, **predicted}, ensure_ascii=False)
        elif "boxes" in predicted:
            for name, probability, box in zip(*(predicted[part][0] for part in ("label", "probability", "boxes")), strict=True):
                yield f"{typed}: {name} {probability:.4f}  " + " ".join(f"{side:.0f}" for side in box)
            yield f"{typed}: {_drawn(task, typed, asked, found, arguments)}"
        elif "label" in predicted:
            ranked = zip(predicted["label"][0], predicted["probability"][0], strict=True)
            yield f"{typed}: " + ("  ".join(f"{label} {probability:.4f}" for label, probability in ranked) or "no label")
        elif path := _drawn(task, typed, asked, found, arguments):
            if task.reads == "text":
                yield predicted["text"][0]
            yield f"{typed}: {path}"
        elif "text" in predicted:
            yield predicted["text"][0]
        else:
            yield f"{typed}: " + "  ".join(f"{name} {value}" for name, value in predicted.items())


def _drawn(task: Task, typed: str, asked: Any, found: dict[str, Any], arguments: dict[str, Any]) -> Path | None:
    """The file that holds what the task draws, if it does."""
    path = _named(typed, arguments, ".png")
    if (figure := task.draw(asked, found)) is None:
        return None
    figure.savefig(path)
    return path


def _named(typed: str, arguments: dict[str, Any], ending: str) -> Path:
    return Path("-".join([Path(typed).stem[:60], "predicted", *map(str, arguments.values())]) + ending)


def _watch(task: Task, video: Path, as_json: bool, arguments: dict[str, Any]) -> Iterator[str]:
    """The file of the painted video, or an object a picture."""
    if not as_json:
        yield f"{video}: {annotate(task, video, _named(str(video), arguments, '.mp4'), **arguments)}"
        return
    for _, times, predicted in looked_at(task, video, **arguments):
        told = plain(predicted)
        for place, seconds in enumerate(times):
            row = {name: values[place : place + 1] for name, values in told.items()}
            yield json.dumps({"input": str(video), "seconds": round(seconds, 6), **row}, ensure_ascii=False)


def plain(predicted: dict[str, Any]) -> dict[str, Any]:
    """What was predicted, as JSON holds it: numbers and words, and pixels in the forms that other programs read.

    image: PNG files in base64.   segmentation: such too, whose pixels are the numbers of their classes, shown in colours.
    masks: COCO's run lengths, compressed, a thing each.
    """
    written: dict[str, Callable[[Any], Any]] = {
        "image": lambda images: [_base64(png(image)) for image in images],
        "segmentation": lambda numbers: [_base64(png(each, palette(1 + int(each.max())))) for each in numbers],
        "masks": lambda images: [[run_lengths.encode(mask) for mask in things] for things in images],
    }
    return {name: written.get(name, _listed)(value) for name, value in predicted.items()}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _listed(value: Any) -> Any:
    if isinstance(value, list):
        return [_listed(part) for part in value]
    return value.tolist() if isinstance(value, Tensor) else value

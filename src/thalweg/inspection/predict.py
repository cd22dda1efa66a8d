"""A trained task answers a person: inputs as they are typed, answers as lines of text."""

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg.data.images import read_image
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
    """What the task's predict takes, from what a person typed: the name of an image file, a text, or numbers."""
    if task.reads == "image":
        return {"image": read_image(typed)[None]}
    if task.reads == "text":
        return {"text": [typed]}
    try:
        numbers = [float(word) for word in typed.replace(",", " ").split()]
    except ValueError as error:
        raise ValueError(f"{typed!r}: expected numbers, {task.reads}") from error
    return {task.reads: torch.tensor([numbers])}


def answer(task: Task, inputs: Sequence[str], *, as_json: bool = False, **arguments: Any) -> Iterator[str]:
    """A line or more an input: labels and probabilities, best first, with their boxes, or whatever the task predicts.

    What the task draws of it lies in the working folder as a PNG file, named after the input.
    """
    for typed in inputs:
        asked = read(task, typed)
        found = task.predict(asked, **arguments)
        predicted = {name: _plain(value) for name, value in found.items()}
        if as_json:
            yield json.dumps({"input": typed, **predicted}, ensure_ascii=False)
        elif "boxes" in predicted:
            for name, probability, box in zip(*(predicted[part][0] for part in ("label", "probability", "boxes")), strict=True):
                yield f"{typed}: {name} {probability:.4f}  " + " ".join(f"{side:.0f}" for side in box)
            yield f"{typed}: {_drawn(task, typed, asked, found, arguments)}"
        elif "label" in predicted:
            ranked = zip(predicted["label"][0], predicted["probability"][0], strict=True)
            yield f"{typed}: " + "  ".join(f"{label} {probability:.4f}" for label, probability in ranked)
        elif path := _drawn(task, typed, asked, found, arguments):
            if task.reads == "text":
                yield predicted["text"][0]
            yield f"{typed}: {path}"
        elif task.reads == "text":
            yield predicted["text"][0]
        else:
            yield f"{typed}: " + "  ".join(f"{name} {value}" for name, value in predicted.items())


def _drawn(task: Task, typed: str, asked: Any, found: dict[str, Any], arguments: dict[str, Any]) -> Path | None:
    """The file that holds what the task draws, if it does."""
    path = Path("-".join([Path(typed).stem[:60], "predicted", *map(str, arguments.values())]) + ".png")
    if (figure := task.draw(asked, found)) is None:
        return None
    figure.savefig(path)
    return path


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value.tolist() if isinstance(value, Tensor) else value

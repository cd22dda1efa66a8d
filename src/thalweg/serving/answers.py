"""The work behind a request: what a task says of the bytes or the words that came in."""

import random
import time
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import torch
from fastapi import HTTPException
from PIL import Image
from torch import Tensor

from thalweg.data.images import FORMATS, PIXELS, UnreadableImage, read_image
from thalweg.inspection.predict import plain
from thalweg.serving.schema import (
    Box,
    Continuation,
    Judgement,
    Picture,
    Prediction,
    Prompt,
    Said,
    Scene,
    Seen,
    Segments,
    Share,
    Told,
)
from thalweg.tasks.classification import Classification
from thalweg.tasks.detection import Detection
from thalweg.tasks.judgement import TextJudgement
from thalweg.tasks.reading import Reading
from thalweg.tasks.segmentation import Segmentation
from thalweg.tasks.tagging import Tagging
from thalweg.tasks.text_classification import TextClassification
from thalweg.training import Task


@torch.inference_mode()
def classify(
    task: Classification | Reading | Tagging, files: Sequence[tuple[str, bytes]], asked: Mapping[str, Any], max_pixels: float
) -> tuple[list[Seen], float]:
    """What is seen in image files (name, content), and the milliseconds it took; images of one size go together.

    asked: arguments of the task's predict.
    HTTPException, before pixels are decoded, if they have too many (413); if one is no image (422).
    """
    start = time.perf_counter()
    images = _images(files, max_pixels)
    alike: dict[torch.Size, list[int]] = {}
    for index, image in enumerate(images):
        alike.setdefault(image.shape, []).append(index)
    seen: dict[int, Seen] = {}
    for (_, height, width), indices in alike.items():
        predicted = task.predict({"image": torch.stack([images[index] for index in indices])}, **asked)
        for index, labels, probabilities in zip(indices, predicted["label"], predicted["probability"], strict=True):
            ranked = [Prediction(label=name, probability=p) for name, p in zip(labels, probabilities.tolist(), strict=True)]
            seen[index] = Seen(predictions=ranked, width=width, height=height)
    return [seen[index] for index in range(len(files))], (time.perf_counter() - start) * 1e3


@torch.inference_mode()
def detect(task: Detection, file: tuple[str, bytes], least: float, max_pixels: float) -> Scene:
    """What is where in an image file (name, content).   HTTPException as in classify."""
    start = time.perf_counter()
    (image,) = _images([file], max_pixels)
    told = {name: each[0] for name, each in plain(task.predict({"image": image[None]}, least=least)).items()}
    masks = told.get("masks", [None] * len(told["boxes"]))
    rows = zip(told["label"], told["probability"], told["boxes"], masks, strict=True)
    found = [Box(label=label, probability=probability, box=box, mask=mask) for label, probability, box, mask in rows]
    _, height, width = image.shape
    return Scene(predictions=found, width=width, height=height, milliseconds=(time.perf_counter() - start) * 1e3)


@torch.inference_mode()
def segment(task: Segmentation, file: tuple[str, bytes], max_pixels: float) -> Segments:
    """The classes of the pixels of an image file (name, content).   HTTPException as in classify."""
    start = time.perf_counter()
    (image,) = _images([file], max_pixels)
    told = plain(task.predict({"image": image[None]}))
    shares = [Share(label=name, share=share, value=task.classes.index(name)) for name, share in told["share"][0].items()]
    _, height, width = image.shape
    return Segments(predictions=shares, mask=told["segmentation"][0], width=width, height=height,
                    milliseconds=(time.perf_counter() - start) * 1e3)  # fmt: skip


@torch.inference_mode()
def repaint(task: Task, file: tuple[str, bytes], max_pixels: float) -> Picture:
    """The picture that is made of an image file (name, content).   HTTPException as in classify."""
    start = time.perf_counter()
    (image,) = _images([file], max_pixels)
    predicted = task.predict({"image": image[None]})
    height, width = predicted["image"].shape[-2:]
    return Picture(image=plain(predicted)["image"][0], width=width, height=height,
                   milliseconds=(time.perf_counter() - start) * 1e3)  # fmt: skip


@torch.inference_mode()
def draw(task: Task, file: tuple[str, bytes], max_pixels: float) -> bytes:
    """A PNG file of what the task draws of its prediction for an image file.   HTTPException as in classify."""
    (image,) = _images([file], max_pixels)
    inputs = {"image": image[None]}
    figure, written = task.draw(inputs, task.predict(inputs)), BytesIO()
    assert figure is not None, "a task that overrides draw draws"
    figure.savefig(written, format="png")
    return written.getvalue()


def _images(files: Sequence[tuple[str, bytes]], max_pixels: float) -> list[Tensor]:
    """The images in files, which are counted before they are decoded."""
    if (found := sum(_pixels(content) for _, content in files)) > max_pixels:
        names = ", ".join(name for name, _ in files)
        raise HTTPException(413, f"{names:.200}: {found:,} pixels, expected at most {max_pixels:,.0f}")
    return [_read(name, content) for name, content in files]


def _pixels(content: bytes) -> int:
    """How many pixels the header of an image file promises; 0 if it is none."""
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            return image.width * image.height
    except Image.DecompressionBombError:
        return PIXELS + 1
    except Exception:  # decoders raise almost anything; to read it says what is wrong
        return 0


def _read(name: str, content: bytes) -> Tensor:
    try:
        return read_image(content)
    except UnreadableImage as error:
        words = f"{name:.200}: {error.reason}; expected an image file ({', '.join(FORMATS)})"
        raise HTTPException(422, words) from error


@torch.inference_mode()
def judge(task: TextClassification | TextJudgement, told: Told, top_k: int) -> Judgement:
    """The labels of a text."""
    start = time.perf_counter()
    try:
        predicted = task.predict({"text": [told.text]}, top_k=top_k)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
    ranked = zip(predicted["label"][0], predicted["probability"][0].tolist(), strict=True)
    found = [Prediction(label=name, probability=probability) for name, probability in ranked]
    return Judgement(predictions=found, milliseconds=(time.perf_counter() - start) * 1e3)


@torch.inference_mode()
def say(task: Task, told: Told) -> Said:
    """What a task says of a text. HTTPException (422) if it cannot read it."""
    start = time.perf_counter()
    try:
        predicted = plain(task.predict({"text": [told.text]}))
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
    answer = {name: value[0] for name, value in predicted.items()}
    return Said(answer=answer, milliseconds=(time.perf_counter() - start) * 1e3)


@torch.inference_mode()
def continue_text(task: Task, prompt: Prompt) -> Continuation:
    """What the task makes of a prompt. HTTPException (422) if it cannot read it."""
    start = time.perf_counter()
    options: dict[str, Any] = {"length": prompt.length, "temperature": prompt.temperature}
    options["seed"] = seed = random.getrandbits(32) if prompt.seed is None else prompt.seed
    try:
        predicted = task.predict({"text": [prompt.text]}, **options)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
    return Continuation(text=predicted["text"][0], seed=seed, milliseconds=(time.perf_counter() - start) * 1e3)

"""Retrieval: what a network makes of images, or of texts, lies near where they show or say the same.   D2L 13.14"""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import normalize

from thalweg import figures
from thalweg.data.images import UnreadableImage, read_image
from thalweg.tasks.sentence_vectors import SentenceVectors

SHOWN = (160, 160)  # height and width of an image in the drawing


@torch.inference_mode()
def embedding(model: nn.Module, image: Tensor) -> Tensor:
    """The last map of a backbone, averaged over its places, at length 1.   image: [batch channel height width]"""
    return normalize(model.features(image)[-1].float().mean((2, 3)), dim=-1)  # type: ignore[operator]


def similar(model: nn.Module, folder: Path, query: Path, *, count: int = 8) -> list[tuple[Path, float]]:
    """The images below a folder that a model sees most like another, the most like first, with the cosine of the angle.

    model: a backbone, or a task that holds one as `model`. Files that are no images are left out, and counted in a warning.
    ValueError if the model has no `features`, if count is below 1, if the query is no image or the folder holds none.
    """
    seeing = getattr(model, "model", model) if not hasattr(model, "features") else model
    if not hasattr(seeing, "features"):
        raise ValueError(f"model: {type(model).__name__} is no backbone, it has no features to compare images by")
    if count < 1:
        raise ValueError(f"count={count}: expected at least 1")
    wanted = embedding(seeing, read_image(query)[None])[0]
    names = [Path(path, name) for path, _, names in os.walk(folder) for name in names if not name.startswith(".")]
    names = sorted(name for name in names if name.resolve() != Path(query).resolve())
    read, cosines = list[Path](), list[float]()
    for path, image in _readable(names):
        read.append(path)
        cosines.append(float(embedding(seeing, image[None])[0] @ wanted))
    if not read:
        raise ValueError(f"folder={folder}: holds no image beside the query")
    if len(read) < len(names):
        warnings.warn(f"{folder}: {len(names) - len(read):,} of {len(names):,} files are no images", stacklevel=2)
    best = sorted(zip(read, cosines, strict=True), key=lambda pair: -pair[1])
    return best[:count]


def _readable(names: Iterable[Path]) -> Iterator[tuple[Path, Tensor]]:
    for path in names:
        try:
            yield path, read_image(path)
        except UnreadableImage:
            continue


def draw(query: Path, found: Sequence[tuple[Path, float]]) -> Figure:
    """The image and those that were found, with their cosines."""
    image = torch.stack([read_image(path, SHOWN) for path in (query, *(path for path, _ in found))])
    titles = ["query", *(f"{path.parent.name}/{path.name}\n{cosine:.3f}" for path, cosine in found)]
    return figures.image_grid(image, titles, columns=5)


def documents(place: Path) -> list[tuple[str, str]]:
    """Where each document stands, and what it says: of a file each line, of a folder each file below it.

    What is empty or no UTF-8 is left out, and the latter counted in a warning.   ValueError if nothing is left.
    """
    if place.is_dir():
        files = sorted(Path(path, name) for path, _, names in os.walk(place) for name in names if not name.startswith("."))
        contents = [(str(path), path.read_bytes()) for path in files]
    else:
        contents = [(f"{place}:{number}", line) for number, line in enumerate(place.read_bytes().split(b"\n"), 1)]
    found, foreign = list[tuple[str, str]](), 0
    for name, content in contents:
        try:
            if text := " ".join(content.decode("utf-8-sig").split()):
                found.append((name, text))
        except UnicodeDecodeError:
            foreign += 1
    if not found:
        raise ValueError(f"{place}: holds no text in UTF-8")
    if foreign:
        warnings.warn(f"{place}: {foreign:,} of {len(contents):,} documents are not in UTF-8", stacklevel=2)
    return found


def ranked(task: SentenceVectors, place: Path, query: str, *, count: int = 8) -> list[tuple[str, str, float]]:
    """The documents of a file or folder that say most nearly what a query says: where, what, and the cosine of the angle.

    ValueError if count is below 1, or if there is no document.
    """
    if count < 1:
        raise ValueError(f"count={count}: expected at least 1")
    texts = documents(place)
    vectors = task.vectors([query, *(text for _, text in texts)])
    cosine, order = (vectors[1:] @ vectors[0]).sort(descending=True, stable=True)
    return [(*texts[index], value) for index, value in zip(order[:count].tolist(), cosine[:count].tolist(), strict=True)]

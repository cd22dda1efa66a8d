"""A classifier or tagger names the images of a folder in the form in which competitions take it.   D2L 13.13, 13.14"""

import re
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from thalweg.data.folders import ahead, image_files
from thalweg.data.images import UnreadableImage, read_image
from thalweg.data.tables import write_table
from thalweg.tasks.classification import Classification
from thalweg.tasks.tagging import Tagging
from thalweg.training import Task

TOGETHER, PIXELS = 256, 20_000_000  # images of one extent that are looked at together, and the most pixels of them


def submission(task: Task, folder: Path, path: Path, *, probabilities: bool = False, least: float | None = None) -> str:
    """Writes a CSV file with a row for each image in the folder, in the order of their numbers; a line on what was written.

    id, the name of the file without its ending, and label, of a tagger all labels with spaces between, or | where a label has
    spaces itself; or, for competitions scored by the log-loss, a column of probabilities a class. Files that cannot be read
    are left out and named.   least: of a tagger, see its predict.   ValueError without images, or if the task names none.
    """
    if not isinstance(task, Classification | Tagging) or task.reads != "image":
        raise ValueError(f"csv={path}: {type(task).__name__} names no images, expected a classifier or tagger of images")
    files = [file for same in image_files(folder).values() for file in same]
    files.sort(key=lambda file: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.stem)])
    if not files:
        raise ValueError(f"{folder}: no image in it")
    named, faults = list[Path](), list[str]()

    def readable() -> Iterator[Tensor]:
        images = tqdm(ahead(_read, files, 16), total=len(files), unit="image", leave=False, disable=None)
        for file, image in zip(files, images, strict=True):
            if isinstance(image, str):
                faults.append(f"{file.relative_to(folder)} ({image})")
            else:
                named.append(file)
                yield image

    between = "|" if any(" " in name for name in task.classes) else " "
    labels, chances = list[str](), [torch.zeros(0, len(task.classes))]
    with torch.inference_mode():
        for (_, height, width), alike in groupby(readable(), key=lambda image: image.shape):
            while some := list(islice(alike, min(TOGETHER, 1 + PIXELS // (height * width)))):
                images = {"image": torch.stack(some)}
                if probabilities:
                    chances.append(task.chances(images))
                else:
                    told = task.predict(images, least=least) if isinstance(task, Tagging) else task.predict(images, top_k=1)
                    labels += map(between.join, told["label"])
    chance = torch.cat(chances)
    answers = ({name: chance[:, place] for place, name in enumerate(task.classes)} if probabilities else
               {"label": labels})  # fmt: skip
    write_table(path, {"id": [file.stem for file in named], **answers})
    left_out = f"; {len(faults):,} files left out: {', '.join(faults[:3])}" if faults else ""
    return f"{path}: {len(named):,} images{left_out}"


def _read(file: Path) -> Tensor | str:
    try:
        return read_image(file)
    except (OSError, UnreadableImage) as error:
        return getattr(error, "reason", str(error))

"""A folder of images with one subfolder a class becomes streams of batches.   D2L 13.13-13.14

    FOLDER/cat/1.jpg  FOLDER/dog/2.png ...              split by us: 70 % training, 15 % validation, 15 % test of a class
    FOLDER/train/cat/1.jpg  FOLDER/valid/cat/2.jpg ...  as it is split ("val" and "validation" too; "test" if there is one)

Files that are no images, or damaged, are left out and reported.
"""

import hashlib
import os
import statistics
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice, tee
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from thalweg.data.images import UnreadableImage, opened, read_image
from thalweg.data.streams import Augment, Splits, Stream, TensorStream
from thalweg.vocabulary import Batch

MEMORY = 2**30  # bytes of pixels that are kept; a larger folder is decoded again in every pass
AHEAD = 2  # batches that are decoded before they are asked for
PARTS = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}

Item = TypeVar("Item")
Result = TypeVar("Result")


class Picture(NamedTuple):
    """An image file: its part ("train", "valid", "test", or "" where we split), class, extent, and whether it is grey."""

    path: Path
    part: str
    label: int
    height: int
    width: int
    grey: bool


class ImageFolder:
    """What lies in a folder of images, by the headers of the files.

    classes: the names of the subfolders, sorted.   pictures: the images.   skipped: other files, and why.
    channels: 1 if every image is grey, else 3.   extent: the typical side, the median of sqrt(height width).
    ValueError if there is no such folder, or it holds fewer than two classes, or too few images of one.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ValueError(f"data={folder}: {'a file, expected a folder' if self.folder.exists() else 'no such folder'}")
        parts = self._parts()
        self.classes = tuple(path.name for path in _subfolders(parts.get("train", self.folder)))
        if len(self.classes) < 2:
            raise ValueError(f"data={folder}: expected at least two subfolders, one a class, and found {list(self.classes)}")
        self.pictures: list[Picture] = []
        self.skipped: list[tuple[Path, str]] = []
        for found in _ahead(self._look, self._files(parts), 100):
            self.pictures.append(found) if isinstance(found, Picture) else self.skipped.append(found)
        given = {picture.part for picture in self.pictures}
        self._check(1 if "valid" in given else 2 if parts else 3)
        self.channels = 1 if all(picture.grey for picture in self.pictures) else 3
        self.extent = round(statistics.median((picture.height * picture.width) ** 0.5 for picture in self.pictures))

    def _parts(self) -> dict[str, Path]:
        """The folders of training, validation and test images, where the person has split them."""
        train = self.folder / "train"
        if not (train.is_dir() and _subfolders(train)):
            return {}
        known = {path.name for path in _subfolders(train)}
        found = {part: self.folder / name for part, names in PARTS.items() for name in names if (self.folder / name).is_dir()}
        for path in found.values():
            if unknown := sorted({sub.name for sub in _subfolders(path)} - known):
                raise ValueError(f"data={self.folder}: {path.name} holds the classes {unknown}, which train does not")
        return found

    def _files(self, parts: dict[str, Path]) -> Iterator[tuple[Path, str, int]]:
        for part, root in (parts or {"": self.folder}).items():
            for label, name in enumerate(self.classes):
                for path, folders, names in os.walk(root / name):
                    folders.sort()
                    yield from ((Path(path, file), part, label) for file in sorted(names) if not file.startswith("."))

    def _look(self, file: tuple[Path, str, int]) -> Picture | tuple[Path, str]:
        path, part, label = file
        try:
            if path.stat().st_size == 0:
                return path, "empty"
            with opened(str(path), path) as image:
                grey = image.mode in ("1", "L", "LA") or image.mode.startswith("I;16")
                return Picture(path, part, label, image.height, image.width, grey)
        except (OSError, UnreadableImage) as error:
            return path, getattr(error, "reason", str(error))

    def _check(self, least: int) -> None:
        """ValueError if a class has fewer training images than `least`."""
        counts = Counter(picture.label for picture in self.pictures if picture.part in ("", "train"))
        for label, name in enumerate(self.classes):
            if counts[label] < least:
                skipped = f"; {self.report()}" if self.skipped else ""
                raise ValueError(f"data={self.folder}: the class {name!r} has {counts[label]} images to train on, expected at "
                                 f"least {least}{skipped}")  # fmt: skip

    def report(self) -> str:
        """One line on the files left out."""
        first = ", ".join(f"{path.relative_to(self.folder)} ({reason})" for path, reason in sorted(self.skipped)[:3])
        more = f" and {len(self.skipped) - 3:,} more" if len(self.skipped) > 3 else ""
        return f"skipped {len(self.skipped):,} of {len(self.skipped) + len(self.pictures):,} files: {first}{more}"

    def streams(self, size: Sequence[int], batch_size: int, *, augment: Sequence[Augment] = (), memory: int = MEMORY) -> Splits:
        """Decodes every image once, at size [height width], and gives streams of training, validation and test images.

        Where the pixels fit into `memory` bytes they are kept, else decoded again in every pass; the batches are the same.
        What cannot be decoded goes to `skipped`; `repeated` counts images that another part or class holds as well.
        The test stream is None where a person split the data without one.
        """
        pictures, good = self._split(), list[Picture]()
        same = defaultdict[bytes, set[tuple[str, int]]](set)
        kept = len(pictures) * self.channels * size[0] * size[1] <= memory
        pixels = torch.empty(len(pictures) if kept else 0, self.channels, *size, dtype=torch.uint8)
        decoded = _ahead(lambda picture: _decode(picture.path, size), pictures, 100)
        for picture in tqdm(pictures, unit="image", leave=False, disable=None):
            match next(decoded):
                case str(reason):
                    self.skipped.append((picture.path, reason))
                case image, digest:
                    if kept:
                        pixels[len(good)] = image[: self.channels]
                    same[digest].add((picture.part, picture.label))
                    good.append(picture)
        self.pictures, self.repeated = good, sum(len(places) > 1 for places in same.values())
        self._check(1)
        label = torch.tensor([picture.label for picture in good])

        def stream(part: str, *, shuffle: bool = False, augment: Sequence[Augment] = ()) -> Stream | None:
            held = [index for index, picture in enumerate(good) if picture.part == part]  # one piece: _split sorts by part
            if not held:
                return None
            piece = slice(held[0], held[-1] + 1)
            if kept:
                return TensorStream(
                    {"image": pixels[piece], "label": label[piece]}, batch_size, shuffle=shuffle, augment=augment
                )
            files = [picture.path for picture in good[piece]]
            return FolderStream(files, label[piece], size, batch_size, channels=self.channels, shuffle=shuffle, augment=augment)

        return Splits(stream("train", shuffle=True, augment=augment), stream("valid"), stream("test"), self.classes)

    def _split(self) -> list[Picture]:
        """The pictures by part: training, validation, test. What a person has not split is, by the hash of the name.

        So every run has the same split, and a file more or less moves hardly any other.
        """
        given = {picture.part for picture in self.pictures}
        wanted = ["valid", "test"] if "" in given else [] if "valid" in given else ["valid"]
        placed = [picture for picture in self.pictures if picture.part in ("valid", "test")]
        for label in range(len(self.classes)):
            training = [picture for picture in self.pictures if picture.label == label and picture.part in ("", "train")]
            training.sort(key=lambda picture: hashlib.sha256(str(picture.path.relative_to(self.folder)).encode()).digest())
            cut = max(1, round(0.15 * len(training)))
            for part in wanted:
                placed += [picture._replace(part=part) for picture in training[:cut]]
                training = training[cut:]
            placed += [picture._replace(part="train") for picture in training]
        return sorted(placed, key=lambda picture: (list(PARTS).index(picture.part), picture.path))


class FolderStream(Stream):
    """Batches of image files, decoded at an extent [height width] by threads while the batches before them are used.

    files: n paths.   label: [n].   At most AHEAD batches are in memory before they are asked for.
    """

    def __init__(
        self,
        files: Sequence[Path],
        label: Tensor,
        extent: Sequence[int],
        batch_size: int,
        *,
        channels: int = 3,
        shuffle: bool = False,
        augment: Sequence[Augment] = (),
    ):
        super().__init__(len(files), batch_size, shuffle=shuffle, augment=augment)
        self.files, self.label, self.extent, self.channels = files, label, extent, channels

    def image(self, index: int) -> Tensor:
        return read_image(self.files[index], self.extent)[: self.channels]

    def fetch(self, indices: Tensor) -> Batch:
        image = torch.stack(list(_ahead(self.image, indices.tolist(), len(indices))))
        return {"image": image, "label": self.label[indices]}

    def produce(self, numbers: Iterable[int]) -> Iterator[Batch]:
        numbers, coming = tee(numbers)
        indices = (index for number in coming for index in self.indices(number).tolist())
        images = _ahead(self.image, indices, AHEAD * self.batch_size)
        for number in numbers:
            label = self.label[self.indices(number)]
            yield self.augmented({"image": torch.stack(list(islice(images, len(label)))), "label": label}, number)


def _decode(path: Path, size: Sequence[int]) -> tuple[Tensor, bytes] | str:
    """The pixels of a file and the SHA-256 of its content, or why there are none."""
    try:
        content = path.read_bytes()
        return read_image(content, size), hashlib.sha256(content).digest()
    except (OSError, UnreadableImage) as error:
        return getattr(error, "reason", str(error))


def _ahead(function: Callable[[Item], Result], items: Iterable[Item], limit: int) -> Iterator[Result]:
    """function of each item, in order; threads compute up to `limit` results before they are asked for."""
    threads = ThreadPoolExecutor(os.cpu_count())
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(threads.submit(function, item))
            if len(waiting) > limit:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))

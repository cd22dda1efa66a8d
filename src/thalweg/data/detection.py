"""Images with boxes around what is in them: public data sets, and the three forms in which people keep their own.

Images are scaled to one extent, the whole image, whatever its aspect, as a model does with what it sees later; boxes and
outlines alike.   D2L 13.3, 13.6
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from thalweg.data.images import read_image
from thalweg.data.sources import archive
from thalweg.data.streams import Splits
from thalweg.vocabulary import Batch

BCCD_CLASSES = ("RBC", "WBC", "Platelets")


class Thing(NamedTuple):
    """An object: the name of its class, its box (left, top, right, bottom), and its outline where that is known.

    outline: polygons, each [corner 2] of x and y, or its pixels, [height width].
    """

    name: str
    box: tuple[float, float, float, float]
    outline: list[Tensor] | Tensor | None = None


class Annotation(NamedTuple):
    """What is said to be in an image file.   extent: [height width] in which boxes and outlines are measured"""

    file: str
    extent: tuple[float, float]
    things: list[Thing]


class Faults(defaultdict[str, list[str]]):
    """What is wrong with a data set: the fault -> where."""

    def __init__(self) -> None:
        super().__init__(list)

    def lines(self, first: int = 3) -> list[str]:
        """A line a fault: how often, what, and where first."""
        return [f"{len(places):,} {fault}: {', '.join(places[:first])}"
                + (f" and {len(places) - first:,} more" if len(places) > first else "")
                for fault, places in sorted(self.items())]  # fmt: skip


def pascal_voc(content: bytes, where: str, faults: Faults) -> Annotation:
    """The annotation in an xml file of Pascal VOC, whose pixels are counted from 1 and whose right and bottom ones belong.

    ValueError if it is none.   Everingham et al. 2010.
    """
    try:
        root = ElementTree.fromstring(content)
        extent = (float(root.findtext("size/height", "0")), float(root.findtext("size/width", "0")))
        file = root.findtext("filename", "").strip()
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{where}: not an annotation of Pascal VOC: {error}") from error
    things = []
    for part in root.iter("object"):
        try:
            left, top, right, bottom = (float(part.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax"))
        except ValueError:
            faults["boxes that are not four numbers, left out"].append(where)
            continue
        box = (left - 1, top - 1, right, bottom) if left < right and top < bottom else (left, top, left, top)
        things.append(Thing(part.findtext("name", "").strip(), box))
    return Annotation(file, extent, things)


def coco(content: bytes, where: str, faults: Faults) -> tuple[list[Annotation], tuple[str, ...]]:
    """The annotations in a json file of COCO, and its classes.   A crowd is no single object and is left out.

    ValueError if it is none.   Lin et al. 2014, arXiv:1405.0312.
    """
    try:
        held = json.loads(content)
        names = {category["id"]: str(category["name"]) for category in held["categories"]}
        found = {image["id"]: Annotation(str(image["file_name"]), (image.get("height") or 0, image.get("width") or 0), [])
                 for image in held["images"]}  # fmt: skip
        rows = list(held["annotations"])
    except (ValueError, KeyError, TypeError) as error:
        expected = "expected images, annotations and categories"
        raise ValueError(f"{where}: not an annotation file of COCO, {expected}: {type(error).__name__} {error}") from error
    for number, row in enumerate(rows):
        place = f"{where} annotation {row.get('id', number)}"
        if row.get("iscrowd"):
            faults["crowds, left out"].append(place)
        elif row.get("image_id") not in found:
            faults["annotations of no image"].append(place)
        elif row.get("category_id") not in names:
            faults[f"objects of the unknown class {row.get('category_id')}, left out"].append(place)
        else:
            try:
                left, top, width, height = map(float, row["bbox"])
            except (KeyError, TypeError, ValueError):
                faults["boxes that are not four numbers, left out"].append(place)
                continue
            try:
                outline = _outline(row.get("segmentation"))
            except (KeyError, TypeError, ValueError, RuntimeError):
                faults["outlines that cannot be read, whose boxes are kept"].append(place)
                outline = None
            box = (left, top, left + max(width, 0), top + max(height, 0))
            found[row["image_id"]].things.append(Thing(names[row["category_id"]], box, outline))
    return list(found.values()), tuple(names.values())


def _outline(written: list | dict | None) -> list[Tensor] | Tensor | None:
    """COCO's polygons, or its run lengths of pixels that are out and in by turns, down the columns."""
    if isinstance(written, dict):
        height, width = written["size"]
        runs = torch.tensor(written["counts"])
        return (torch.arange(len(runs)) % 2 == 1).repeat_interleave(runs).reshape(width, height).T
    return [torch.tensor(polygon, dtype=torch.float64).reshape(-1, 2) for polygon in written] if written else None


def polygons(outline: Sequence[Tensor], height: int, width: int) -> Tensor:
    """The pixels whose centres are within any of the polygons.   each [corner 2] of x and y in pixels -> [height width]

    A centre is within a polygon if a ray from it crosses the edges an odd number of times.
    """
    inside = torch.zeros(height, width, dtype=torch.bool)
    centre = torch.arange(height, dtype=torch.float64)[:, None] + 0.5
    for corners in outline:
        (x, y), (next_x, next_y) = corners.double().T, corners.double().roll(-1, 0).T
        crossed = (y <= centre) != (next_y <= centre)  # [row edge]
        along = torch.where(crossed, (centre - y) / torch.where(next_y == y, 1, next_y - y), 0)
        first = (x + along * (next_x - x) - 0.5).ceil().clamp(0, width).long()  # the first centre to the right of the crossing
        passed = torch.zeros(height, width + 1, dtype=torch.long).scatter_add_(1, first, crossed.long()).cumsum(1)
        inside |= passed[:, :width] % 2 == 1
    return inside


def sound(annotation: Annotation, classes: Sequence[str], where: str, faults: Faults) -> list[Thing]:
    """The things with a known class, cut to the image; what has no area left is left out."""
    height, width = annotation.extent
    kept = []
    for thing in annotation.things:
        left, top, right, bottom = thing.box
        box = (max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height))
        if thing.name not in classes:
            faults[f"objects of the unknown class {thing.name}, left out"].append(where)
        elif not (box[0] < box[2] and box[1] < box[3]):  # so is what is not a number
            faults["boxes without an area in the image, left out"].append(where)
        else:
            if max(abs(cut - whole) for cut, whole in zip(box, thing.box, strict=True)) > 1:  # less is rounding
                faults["boxes that reach outside the image, cut"].append(where)
            kept.append(thing._replace(box=box))
    return kept


def target(annotation: Annotation, classes: Sequence[str], size: Sequence[int], most: int, masks: bool = False) -> Batch:
    """Boxes, box_label and, if asked for, masks of a scaled image, filled up to `most` with nothing of the label -1.

    A thing without an outline fills its box.
    """
    down, right = size[0] / annotation.extent[0], size[1] / annotation.extent[1]
    boxes, label = torch.zeros(most, 4), torch.full((most,), -1)
    shape = torch.zeros(most if masks else 0, *size, dtype=torch.bool)
    for number, thing in enumerate(annotation.things):
        boxes[number] = torch.tensor(thing.box) * torch.tensor([right, down, right, down])
        label[number] = classes.index(thing.name)
        if masks and isinstance(thing.outline, Tensor):
            shape[number] = interpolate(thing.outline[None, None].float(), tuple(size))[0, 0].bool()
        elif masks:
            x, y, end, bottom = thing.box
            outline = thing.outline or [torch.tensor([[x, y], [end, y], [end, bottom], [x, bottom]])]
            scale = torch.tensor([right, down], dtype=torch.float64)
            shape[number] = polygons([corners * scale for corners in outline], *size)
    return {"boxes": boxes, "box_label": label} | ({"masks": shape} if masks else {})


def _tensors(
    held: Iterable[Annotation], read: Callable[[str], bytes], classes: Sequence[str], size: Sequence[int], masks: bool = False
) -> Batch:
    """All images of a public data set, each with as many places for boxes as the fullest needs."""
    scenes = list(held)
    most = max(len(scene.things) for scene in scenes)
    targets = [target(scene, classes, size, most, masks) for scene in scenes]
    image = torch.stack([read_image(read(scene.file), size) for scene in scenes])
    return {"image": image} | {name: torch.stack([part[name] for part in targets]) for name in targets[0]}


def bccd(size: Sequence[int] = (240, 320)) -> Splits:
    """364 photographs of blood, 4,886 boxes: red cells, white cells, platelets; 205, 87 and 72 by the lists of its authors.

    Two boxes of its 4,888 have no area.   size: [height width].   github.com/Shenggan/BCCD_Dataset
    """
    sha256 = "8c725f726ca161863a5f1d4234a045d468b6f04162688a6da4771c359ee0d030"
    files, faults = archive("bccd/BCCD.zip", sha256, "https://github.com/Shenggan/BCCD_Dataset"), Faults()

    def part(name: str) -> Batch:
        scenes = []
        for image in files.read(f"BCCD/ImageSets/Main/{name}.txt").decode().split():
            scene = pascal_voc(files.read(f"BCCD/Annotations/{image}.xml"), image, faults)
            scenes.append(scene._replace(file=image, things=sound(scene, BCCD_CLASSES, image, faults)))
        return _tensors(scenes, lambda image: files.read(f"BCCD/JPEGImages/{image}.jpg"), BCCD_CLASSES, size)

    return Splits(part("train"), part("val"), part("test"), BCCD_CLASSES)


def coco_mini(size: Sequence[int] = (256, 256), *, masks: bool = False) -> Splits:
    """142 photographs of COCO 2017 with 1,251 things of its 80 classes: all that is here of training, and half and half of
    validation as validation and as test.

    Its 12 crowds are left out.   size: [height width].   masks: the things' outlines as well.
    Lin et al. 2014, arXiv:1405.0312.   cocodataset.org
    """
    sha256 = "f10168796a42d762a15995f944fe215bea56f5d5d2487282fd4bb0860d79677d"
    files, faults = archive("coco-mini/coco_mini.zip", sha256, "http://images.cocodataset.org"), Faults()

    def part(name: str, chosen: slice) -> tuple[Batch, tuple[str, ...]]:
        scenes, classes = coco(files.read(f"coco_mini/annotations/instances_{name}.json"), name, faults)
        whole = [scene._replace(things=sound(scene, classes, scene.file, faults)) for scene in scenes[chosen]]
        return _tensors(whole, lambda image: files.read(f"coco_mini/{name}/{image}"), classes, size, masks), classes

    (train, classes), (valid, _), (test, _) = (part("train2017", slice(None)), part("val2017", slice(0, None, 2)),
                                               part("val2017", slice(1, None, 2)))  # fmt: skip
    return Splits(train, valid, test, classes)

"""Images with boxes around what is in them: public data sets, and the three forms in which people keep their own.

    FOLDER/annotations/*.json   images anywhere in FOLDER     COCO; or FOLDER/train/_annotations.coco.json beside the images
    FOLDER/Annotations/1.xml    FOLDER/JPEGImages/1.jpg       Pascal VOC, with FOLDER/ImageSets/Main/train.txt ... or without
    FOLDER/labels/1.txt         FOLDER/images/1.jpg           YOLO, the classes in data.yaml or classes.txt

Names of folders and lists that speak of train, valid (val, validation) or test are taken at their word; what nobody has
split is split by us. Images are scaled to one extent, the whole image, whatever its aspect, as a model does with what it
sees later; boxes and outlines alike.   D2L 13.3, 13.6
"""

import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from thalweg.data import run_lengths
from thalweg.data.folders import MEMORY, PARTS, Faults, ahead, divided, image_files, part_of, streams
from thalweg.data.images import UnreadableImage, read_image, upright_extent
from thalweg.data.sources import archive
from thalweg.data.streams import Augment, Splits
from thalweg.vocabulary import Batch

BCCD_CLASSES = ("RBC", "WBC", "Platelets")


class Thing(NamedTuple):
    """An object: the name of its class, its box (left, top, right, bottom), and its outline where that is known.

    outline: polygons, each [corner 2] of x and y, or its pixels as COCO writes them, see `run_lengths`.
    """

    name: str
    box: tuple[float, float, float, float]
    outline: list[Tensor] | dict[str, Any] | None = None


class Annotation(NamedTuple):
    """What is said to be in an image file.   extent: [height width] in which boxes and outlines are measured"""

    file: str
    extent: tuple[float, float]
    things: list[Thing]


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
        found = {
            image["id"]: Annotation(
                str(image["file_name"]), (float(image.get("height") or 0), float(image.get("width") or 0)), []
            )
            for image in held["images"]
        }
        rows = [dict(row) for row in held["annotations"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
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
            except (KeyError, TypeError, ValueError, RuntimeError, OverflowError):
                faults["outlines that cannot be read, whose boxes are kept"].append(place)
                outline = None
            box = (left, top, left + max(width, 0), top + max(height, 0))
            found[row["image_id"]].things.append(Thing(names[row["category_id"]], box, outline))
    return list(found.values()), tuple(names.values())


def _outline(written: list | dict | None) -> list[Tensor] | dict[str, Any] | None:
    """COCO's polygons, or its run lengths, which stay as they are: the pixels of all things of a set are too many to keep."""
    if isinstance(written, dict):
        run_lengths.counts(written)  # else an error, now
        return written
    outline = [torch.tensor(polygon, dtype=torch.float64).reshape(-1, 2) for polygon in written or ()]
    if not all(corners.isfinite().all() for corners in outline):
        raise ValueError("a corner that is no place")
    return outline or None


def yolo(content: str, classes: Sequence[str], where: str, faults: Faults) -> Annotation:
    """The annotation in a text file of YOLO: a line a thing, the number of its class, then centre, width and height of its
    box, or x and y of every corner of its outline, as shares of the image's extent.   Redmon et al. 2015, arXiv:1506.02640.
    """
    things = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        place = f"{where}:{number}"
        try:
            index, *values = map(float, line.split())
        except ValueError:
            values = []
        if not (len(values) == 4 or (len(values) >= 6 and len(values) % 2 == 0)) or not all(map(math.isfinite, values)):
            faults["lines that are not a class and four numbers, left out"].append(place)
        elif index not in range(len(classes)):
            faults[f"objects of the unknown class {index:g}, left out"].append(place)
        elif len(values) == 4:
            x, y, across, down = values[0], values[1], values[2] / 2, values[3] / 2
            things.append(Thing(classes[int(index)], (x - across, y - down, x + across, y + down)))
        else:
            corners = torch.tensor(values, dtype=torch.float64).reshape(-1, 2)
            left, top, right, bottom = *corners.amin(0).tolist(), *corners.amax(0).tolist()
            things.append(Thing(classes[int(index)], (left, top, right, bottom), [corners]))
    return Annotation(Path(where).with_suffix(".jpg").name, (1, 1), things)


def declared(folder: Path) -> tuple[str, ...]:
    """The classes that a folder's yaml file names, else its classes.txt, one a line; none if there is neither."""
    for path in sorted(folder.glob("*.y*ml")):
        text = path.read_text(encoding="utf8", errors="replace")
        if start := re.search(r"^names\s*:", text, re.MULTILINE):
            rest = text[start.end() :]
            inline = re.match(r"\s*[\[{](.*?)[\]}]", rest, re.DOTALL)
            block = re.match(r"[^\n]*\n((?:\s*(?:-|\d+\s*:)[^\n]*\n?)*)", rest)
            entries = inline[1].split(",") if inline else block[1].splitlines() if block else []
            found = [re.fullmatch(r"\s*(?:-|(\d+)\s*:)?\s*(.*?)\s*", entry) for entry in entries]
            numbered = sorted((int(entry[1] or place), entry[2].strip("'\"")) for place, entry in enumerate(found) if entry)
            return tuple(name for _, name in numbered if name)
    path = folder / "classes.txt"
    lines = path.read_text(encoding="utf8", errors="replace").splitlines() if path.exists() else []
    return tuple(line.strip() for line in lines if line.strip())


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
        if not masks:
            continue
        if isinstance(thing.outline, dict):
            pixels = run_lengths.decode(thing.outline)
            shape[number] = interpolate(pixels[None, None].float(), tuple(size))[0, 0].bool()
        else:
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
    image = torch.stack(list(ahead(lambda scene: read_image(read(scene.file), size), scenes, 100)))
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


def coco_mini(size: Sequence[int] = (256, 256), *, masks: bool = False, classes: int | None = None) -> Splits:
    """142 photographs of COCO 2017 with 1,251 things of its 80 classes: all that is here of training, and half and half of
    validation as validation and as test.

    Its 12 crowds are left out.   size: [height width].   masks: the things' outlines as well.   classes: so many, those on
    the most training photographs, the most frequent first; things of others are left out, photographs are not.
    ValueError for more classes than there are.   Lin et al. 2014, arXiv:1405.0312.   cocodataset.org
    """
    sha256 = "f10168796a42d762a15995f944fe215bea56f5d5d2487282fd4bb0860d79677d"
    files, faults = archive("coco-mini/coco_mini.zip", sha256, "http://images.cocodataset.org"), Faults()
    (train, names), (held, _) = (coco(files.read(f"coco_mini/annotations/instances_{part}.json"), part, faults)
                                 for part in ("train2017", "val2017"))  # fmt: skip
    if classes is not None:
        if not 1 <= classes <= len(names):
            raise ValueError(f"classes={classes}: expected 1 to {len(names)}")
        photographs = Counter(name for scene in train for name in {thing.name for thing in scene.things})
        names = tuple(sorted(names, key=lambda name: -photographs[name])[:classes])

    def part(scenes: Sequence[Annotation], folder: str) -> Batch:
        whole = [scene._replace(things=sound(scene, names, scene.file, faults)) for scene in scenes]
        return _tensors(whole, lambda image: files.read(f"coco_mini/{folder}/{image}"), names, size, masks)

    return Splits(part(train, "train2017"), part(held[::2], "val2017"), part(held[1::2], "val2017"), names)


class Scene(NamedTuple):
    """An image file, its part ("train", "valid", "test", or "" where we split), and what is in it."""

    path: Path
    part: str
    annotation: Annotation


class DetectionFolder:
    """What lies in a folder of images with boxes, whichever of the three forms it has.

    form: "COCO", "Pascal VOC" or "YOLO".   classes: as they are declared or, where nothing declares them, found and sorted.
    scenes: the images, by part.   faults: what was wrong -> where.   extent: the median [height, width] of the images.
    ValueError if there is no such folder, it has none of the forms, or no image with an object to train on.
    """

    def __init__(self, folder: Path):
        self.folder, self.faults = Path(folder), Faults()
        if not self.folder.is_dir():
            raise ValueError(f"data={folder}: {'a file, expected a folder' if self.folder.exists() else 'no such folder'}")
        self.form, self.classes, found = self._read()
        self.scenes = divided(list(self._scenes(found)), self.folder)
        examples = Counter(thing.name for scene in self.scenes if scene.part == "train" for thing in scene.annotation.things)
        if not examples:
            raise ValueError(
                f"data={folder}: no image with an object to train on among {len(self.scenes)}"
                f"{'; ' * bool(self.faults)}{self.report()}"
            )
        for name in self.classes:
            if not examples[name]:
                self.faults["classes without an object to train on"].append(name)
        self.extent = [round(statistics.median(scene.annotation.extent[side] for scene in self.scenes)) for side in (0, 1)]

    def _read(self) -> tuple[str, tuple[str, ...], list[tuple[Annotation, Path, str]]]:
        """The form, the classes, and every annotation with the file that holds it and the part that it names."""
        lists = {name: part for path in self.folder.glob("ImageSets/Main/*.txt") for part, names in PARTS.items()
                 if path.stem in names for name in path.read_text(encoding="utf8").split()}  # fmt: skip
        files = sorted(path for path in self.folder.rglob("*") if path.suffix in (".json", ".xml", ".txt"))
        classes = dict.fromkeys(declared(self.folder))
        by_form: dict[str, list[tuple[Annotation, Path, str]]] = {"COCO": [], "Pascal VOC": [], "YOLO": []}
        for path in files:
            inside, content = path.relative_to(self.folder), path.read_bytes()
            try:
                if path.suffix == ".json" and b'"categories"' in content:
                    several, names = coco(content, str(inside), self.faults)
                    classes |= dict.fromkeys(names)
                    by_form["COCO"] += [(found, inside, part_of(inside)) for found in several]
                elif path.suffix == ".xml":
                    found = pascal_voc(content, str(inside), self.faults)
                    part = lists.get(path.stem) or part_of(inside.parent)
                    by_form["Pascal VOC"].append((found._replace(file=path.with_suffix(".jpg").name), inside, part))
                elif path.suffix == ".txt" and "labels" in inside.parts and classes:
                    text = content.decode(errors="replace")
                    by_form["YOLO"].append(
                        (yolo(text, tuple(classes), str(inside), self.faults), inside, part_of(inside.parent))
                    )
            except ValueError as error:
                self.faults["annotation files that cannot be read, left out"].append(str(error))
        for form, annotations in by_form.items():
            if annotations:
                things = sorted({thing.name for annotation, *_ in annotations for thing in annotation.things} - {""})
                return form, tuple(classes) or tuple(things), annotations
        raise ValueError(
            f"data={self.folder}: expected a json file of COCO, xml files of Pascal VOC, or labels/*.txt of YOLO and their "
            f"classes in data.yaml or classes.txt{'; ' * bool(self.faults)}{self.report()}"
        )

    def _scenes(self, found: Sequence[tuple[Annotation, Path, str]]) -> Iterator[Scene]:
        """The annotations that belong to an image, in pixels of that image, their things sound."""
        images = image_files(self.folder)
        paths = [_nearest(images[Path(annotation.file).stem], annotation.file, self.folder / inside)
                 for annotation, inside, _ in found]  # fmt: skip
        seen = set[Path]()
        for (annotation, inside, part), path, extent in zip(found, paths, ahead(_extent, paths, 100), strict=True):
            if path is None:
                self.faults["annotations without an image"].append(f"{annotation.file} ({inside})")
                continue
            where = str(path.relative_to(self.folder))
            said = annotation.extent
            if path in seen:
                self.faults["further annotations of an image, left out"].append(f"{where} ({inside})")
            elif isinstance(extent, str):
                self.faults["images that cannot be read, left out"].append(f"{where} ({extent})")
            elif min(said) > 0 and said not in ((1, 1), extent):
                sizes = [f"{side[1]:g}x{side[0]:g}" for side in (said, extent)]
                self.faults["images of another extent than annotated, left out"].append(f"{where} ({sizes[1]}, not {sizes[0]})")
            else:
                whole = _in_pixels(annotation, extent)
                part = part or part_of(path.parent.relative_to(self.folder))
                yield Scene(path, part, whole._replace(things=sound(whole, self.classes, where, self.faults)))
            seen.add(path)
        for path in sorted({path for alike in images.values() for path in alike} - seen):
            self.faults["images without an annotation, left out"].append(str(path.relative_to(self.folder)))

    def report(self) -> str:
        """One line on what was wrong; empty if nothing was."""
        return "; ".join(self.faults.lines())

    def streams(
        self,
        size: Sequence[int],
        batch_size: int,
        *,
        masks: bool = False,
        augment: Sequence[Augment] = (),
        memory: int = MEMORY,
    ) -> Splits:
        """Streams of training, validation and test images at size [height width]: image, boxes, box_label, and masks if
        asked for. The test stream is None where a person split the data without one.

        Where they fit into `memory` bytes they are kept, else decoded in every pass. Images that cannot be decoded, and those
        that another part holds as well, are added to the faults.   ValueError if none is left to train on.
        """
        most = max(len(scene.annotation.things) for scene in self.scenes)

        def read(scene: Scene, content: bytes) -> Batch:
            return {"image": read_image(content, size)} | target(scene.annotation, self.classes, size, most, masks)

        splits, self.scenes, skipped, same = streams(self.scenes, read, batch_size, augment=augment, memory=memory)
        self.faults.after(self.folder, skipped, same)
        if splits.train is None:
            raise ValueError(f"data={self.folder}: no image is left to train on; {self.report()}")
        return replace(splits, classes=self.classes)


def _nearest(paths: Sequence[Path], file: str, annotation: Path) -> Path | None:
    """The one of the paths that an annotation file must mean by that name."""

    def distance(path: Path) -> tuple[bool, bool, int]:
        shared = sum(one == other for one, other in zip(path.parts, annotation.parts, strict=False))
        return not path.as_posix().endswith(f"/{file}"), part_of(path.parent) != part_of(annotation), -shared

    return min(paths, key=distance, default=None)


def _extent(path: Path | None) -> tuple[int, int] | str:
    """Height and width of an image, or why there are none."""
    try:
        return upright_extent(path) if path else ""
    except (OSError, UnreadableImage) as error:
        return getattr(error, "reason", str(error))


def _in_pixels(annotation: Annotation, extent: tuple[int, int]) -> Annotation:
    """An annotation in shares, in pixels of the image; others are already."""
    if annotation.extent != (1, 1):
        return annotation._replace(extent=extent)
    scale = torch.tensor([extent[1], extent[0]])

    def scaled(thing: Thing) -> Thing:
        left, top, right, bottom = (torch.tensor(thing.box, dtype=torch.float64) * scale.repeat(2)).tolist()
        outline = [corners * scale for corners in thing.outline] if isinstance(thing.outline, list) else None
        return Thing(thing.name, (left, top, right, bottom), outline)

    return annotation._replace(extent=extent, things=[scaled(thing) for thing in annotation.things])

"""Boxes: the three forms say the same, outlines become the pixels within, and what is wrong is told and hurts nothing."""

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from thalweg.data.detection import DetectionFolder, bccd, coco, coco_mini, declared, pascal_voc, polygons, target, yolo
from thalweg.data.folders import Faults, part_of
from thalweg.data.shapes import SHAPES, extents, shapes
from thalweg.data.sources import find
from thalweg.data.streams import TensorStream

HEIGHT, WIDTH = 40, 60


def here(name):
    return pytest.mark.skipif(not find(name), reason=f"THALWEG_DATA ({os.environ.get('THALWEG_DATA')}) holds no {name}")


@pytest.fixture(scope="module")
def drawn():
    return shapes(20, (HEIGHT, WIDTH), seed=4)


def things(drawn, index):
    """Class and box of what is in a drawn image."""
    kept = drawn["box_label"][index] >= 0
    return list(zip(drawn["box_label"][index][kept].tolist(), drawn["boxes"][index][kept].tolist(), strict=True))


def images(folder: Path, drawn, names=None):
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(drawn["image"]):
        Image.fromarray(image.movedim(0, -1).numpy()).save(folder / (names[index] if names else f"{index:02}.png"))


def write_coco(root: Path, drawn, where="annotations/instances.json", **changes):
    path = root / where
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"id": 100 * index + number, "image_id": index, "category_id": 7 + label, "iscrowd": 0,
             "bbox": [x, y, right - x, bottom - y], "segmentation": [[x, y, right, y, right, bottom, x, bottom]]}
            for index in range(len(drawn["image"]))
            for number, (label, (x, y, right, bottom)) in enumerate(things(drawn, index))]  # fmt: skip
    held = {
        "images": [{"id": i, "file_name": f"{i:02}.png", "height": HEIGHT, "width": WIDTH} for i in range(len(drawn["image"]))],
        "categories": [{"id": 7 + number, "name": name} for number, name in enumerate(SHAPES)],
        "annotations": rows,
    } | changes
    path.write_text(json.dumps(held))
    return held


def write_voc(root: Path, drawn):
    (root / "Annotations").mkdir(parents=True)
    for index in range(len(drawn["image"])):
        objects = "".join(
            f"<object><name>{SHAPES[label]}</name><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{right}</xmax>"
            f"<ymax>{bottom}</ymax></bndbox></object>"
            for label, (x, y, right, bottom) in things(drawn, index)
        )
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        xml = f"<annotation><filename>elsewhere.jpg</filename>{size}{objects}</annotation>"
        (root / "Annotations" / f"{index:02}.xml").write_text(xml)


def write_yolo(root: Path, drawn, names="names: [circle, 'square', triangle]\n"):
    (root / "labels").mkdir(parents=True)
    (root / "data.yaml").write_text(f"path: somewhere\ntrain: images\nnc: 3\n{names}")
    for index in range(len(drawn["image"])):
        lines = [f"{label} {(x + r) / 2 / WIDTH:.7f} {(y + b) / 2 / HEIGHT:.7f} {(r - x) / WIDTH:.7f} {(b - y) / HEIGHT:.7f}"
                 for label, (x, y, r, b) in things(drawn, index)]  # fmt: skip
        (root / "labels" / f"{index:02}.txt").write_text("\n".join(lines) + "\n")


FORMS = {
    "COCO": ("images", write_coco),
    "Pascal VOC": ("JPEGImages", write_voc),
    "YOLO": ("images", write_yolo),
}


@pytest.fixture(params=FORMS)
def kept(request, tmp_path, drawn):
    """A sound folder of each form."""
    folder, write = FORMS[request.param]
    images(tmp_path / folder, drawn)
    write(tmp_path, drawn)
    return request.param, tmp_path


def everything(folder: DetectionFolder, splits) -> dict[int, list]:
    """Number of the image -> its class and box, whatever part it is in; scenes are in the order of the streams."""
    found, scenes = {}, iter(folder.scenes)
    for part in (splits.train, splits.valid, splits.test):
        for boxes, labels in zip(part.tensors["boxes"], part.tensors["box_label"], strict=True):
            held = [(label, box) for label, box in zip(labels.tolist(), boxes.tolist(), strict=True) if label >= 0]
            found[int(next(scenes).path.stem)] = held
    return found


def test_every_form_gives_the_same_boxes(kept, drawn):
    form, root = kept
    folder = DetectionFolder(root)
    assert (folder.form, folder.classes, folder.extent, folder.report()) == (form, SHAPES, [HEIGHT, WIDTH], "")
    splits = folder.streams((2 * HEIGHT, 3 * WIDTH), 4)
    assert isinstance(splits.train, TensorStream)
    assert [part.size for part in (splits.train, splits.valid, splits.test)] == [14, 3, 3]
    assert splits.classes == SHAPES
    found = everything(folder, splits)
    assert sorted(found) == list(range(20))
    for index in range(20):
        expected = [(label, [3 * x, 2 * y, 3 * right, 2 * bottom]) for label, (x, y, right, bottom) in things(drawn, index)]
        assert [label for label, _ in found[index]] == [label for label, _ in expected]
        torch.testing.assert_close(
            torch.tensor([box for _, box in found[index]]), torch.tensor([box for _, box in expected]), rtol=0, atol=1e-3
        )


def test_kept_and_read_in_every_pass_are_the_same_and_masks_come_if_asked_for(kept):
    _, root = kept

    def streams(memory):
        torch.manual_seed(5)
        return DetectionFolder(root).streams((HEIGHT, WIDTH), 4, masks=True, memory=memory)

    kept, read = streams(2**30), streams(0)
    for one, other in zip(kept.train, read.train, strict=True):
        assert sorted(one) == ["box_label", "boxes", "image", "masks"]
        for name in one:
            assert torch.equal(one[name], other[name])
        there = one["box_label"] >= 0
        torch.testing.assert_close(extents(one["masks"])[there], one["boxes"][there], rtol=0, atol=0.51)
        assert not one["masks"][~there].any()


def test_parts_are_taken_from_folders_lists_and_names(tmp_path, drawn):
    for part in ("train", "val"):  # as Roboflow writes COCO
        images(tmp_path / "a" / part, drawn)
        write_coco(tmp_path / "a", drawn, f"{part}/_annotations.coco.json")
    folder = DetectionFolder(tmp_path / "a")
    assert {scene.part for scene in folder.scenes} == {"train", "valid"}
    assert all(part_of(scene.path) == scene.part for scene in folder.scenes)
    splits = folder.streams((8, 8), 4)
    assert splits.test is None
    assert "20 images in more than one part, so that no accuracy can be trusted: train/00.png = val/00.png" in folder.report()

    images(tmp_path / "b" / "train2017", drawn)  # as COCO itself does
    write_coco(tmp_path / "b", drawn, "annotations/instances_train2017.json")
    assert {part for _, part, _ in DetectionFolder(tmp_path / "b").scenes} == {"train", "valid"}

    images(tmp_path / "c" / "JPEGImages", drawn)  # as Pascal VOC does
    write_voc(tmp_path / "c", drawn)
    lists = tmp_path / "c" / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for name, numbers in {"train": range(12), "val": range(12, 15), "test": range(15, 20)}.items():
        (lists / f"{name}.txt").write_text("".join(f"{number:02}\n" for number in numbers))
    parts = [scene.part for scene in DetectionFolder(tmp_path / "c").scenes]
    assert [parts.count(part) for part in ("train", "valid", "test")] == [12, 3, 5]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [a, 'b c', \"d\"]\nnc: 3\n", ("a", "b c", "d")),
        ("nc: 2\nnames:\n  - a\n  - b c\nother: 1\n", ("a", "b c")),
        ("names:\n  0: a\n  1: b\n", ("a", "b")),
        ("names: {1: b, 0: a}\n", ("a", "b")),
        ("train: here\n", ()),
    ],
)
def test_classes_are_read_from_every_way_to_write_them(tmp_path, text, names):
    (tmp_path / "data.yaml").write_text(text)
    assert declared(tmp_path) == names


def test_names_with_dots_and_outlines_in_yolo(tmp_path, drawn):
    names = [f"{index:02}_png.rf.{index}abc.png" for index in range(20)]
    images(tmp_path / "train" / "images", drawn, names)
    (tmp_path / "train" / "labels").mkdir()
    (tmp_path / "classes.txt").write_text("thing\n")
    for name in names:
        (tmp_path / "train" / "labels" / f"{name[:-4]}.txt").write_text("0 0.25 0.5 0.5 0.5 0.5 0.75\n")
    folder = DetectionFolder(tmp_path)
    assert folder.report() == ""
    batch = next(iter(folder.streams((40, 80), 2, masks=True).train))
    assert batch["boxes"][0].tolist() == [[20, 20, 40, 30]]
    corner = batch["masks"][0, 0]
    assert corner[20, 21]
    assert corner[20, 38]
    assert not corner[28, 22]
    assert abs(int(corner.sum()) - 100) <= 10


def test_what_is_wrong_is_counted_and_named_and_the_rest_is_used(tmp_path, drawn):
    images(tmp_path / "images", drawn)
    held = write_coco(tmp_path, drawn)
    rows = [
        {"id": 1, "image_id": 0, "category_id": 7, "bbox": [-9, 5, 20, 10]},
        {"id": 2, "image_id": 0, "category_id": 7, "bbox": [30, 20, 0, 10]},
        {"id": 3, "image_id": 1, "category_id": 7, "bbox": [70, 5, 20, 10]},
        {"id": 4, "image_id": 1, "category_id": 99, "bbox": [0, 0, 9, 9]},
        {"id": 5, "image_id": 777, "category_id": 7, "bbox": [0, 0, 9, 9]},
        {"id": 6, "image_id": 2, "category_id": 7, "bbox": [0, 0, "wide", 9]},
        {"id": 7, "image_id": 2, "category_id": 8, "bbox": [float("nan"), 0, 5, 9]},
        {"id": 8, "image_id": 2, "category_id": 8, "bbox": [0, 0, 5, 9], "iscrowd": 1},
        {"id": 9, "image_id": 2, "category_id": 8, "bbox": [0, 0, 5, 9], "segmentation": [[1, 2, 3]]},
        {"id": 10, "image_id": 2, "category_id": 8, "bbox": [0, 0, 5, 9], "segmentation": [[1, 2, 3, float("inf"), 2, 2]]},
        {"id": 11, "image_id": 2, "category_id": 8, "bbox": [0, 0, 5, 9], "segmentation": {"size": [40, 60], "counts": "51P"}},
        {"id": 12, "image_id": 2, "category_id": 8, "bbox": [0, 0, 5, 9], "segmentation": {"counts": [2**80]}},
    ]
    lost = {"id": 500, "file_name": "lost.png", "height": HEIGHT, "width": WIDTH}
    other = {"id": 501, "file_name": "other.png", "height": WIDTH, "width": HEIGHT}
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / "other.png")
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / "plain.png")
    (tmp_path / "images" / "03.png").write_bytes(b"words")
    whole = (tmp_path / "images" / "04.png").read_bytes()
    (tmp_path / "images" / "04.png").write_bytes(whole[: len(whole) // 2])
    write_coco(tmp_path, drawn, annotations=[*held["annotations"], *rows], images=[*held["images"], lost, other],
               categories=[*held["categories"], {"id": 50, "name": "unicorn"}])  # fmt: skip
    (tmp_path / "annotations" / "broken.json").write_text('{"categories": ')
    folder = DetectionFolder(tmp_path)
    splits = folder.streams((HEIGHT, WIDTH), 4)
    report = folder.report()
    for line in (
        "1 boxes that reach outside the image, cut: images/00.png",
        "3 boxes without an area in the image, left out: images/00.png, images/01.png, images/02.png",
        "1 objects of the unknown class 99, left out: annotations/instances.json annotation 4",
        "1 annotations of no image: annotations/instances.json annotation 5",
        "1 boxes that are not four numbers, left out: annotations/instances.json annotation 6",
        "1 crowds, left out: annotations/instances.json annotation 8",
        "4 outlines that cannot be read, whose boxes are kept: annotations/instances.json annotation 9",
        "1 annotations without an image: lost.png (annotations/instances.json)",
        "1 images of another extent than annotated, left out: images/other.png (60x40, not 40x60)",
        "1 images without an annotation, left out: images/plain.png",
        "2 images that cannot be read, left out: images/03.png (not an image of a known format), images/04.png (",
        "1 classes without an object to train on: unicorn",
        "1 annotation files that cannot be read, left out: annotations/broken.json: not an annotation file of COCO",
    ):
        assert line in report
    assert "\n" not in report
    found = everything(folder, splits)
    assert sorted(found) == [index for index in range(20) if index not in (3, 4)]
    assert (0, [0.0, 5.0, 11.0, 15.0]) in found[0]
    assert len(found[0]) == 1 + len(things(drawn, 0))
    assert len(found[1]) == len(things(drawn, 1))


def test_lines_of_yolo_that_say_nothing_are_counted():
    faults = Faults()
    lines = ["0 0.5 0.5 0.2 0.2", "", "1 0.5 0.5 nan 0.1", "x 0.5 0.5 0.1 0.1", "5 0.5 0.5 0.1 0.1", "-1 0.5 0.5 0.1 0.1",
             "0.5 0.5 0.5 0.1 0.1"]  # fmt: skip
    found = yolo("\n".join(lines), ("a", "b"), "labels/1.txt", faults)
    assert [(thing.name, thing.box) for thing in found.things] == [("a", (0.4, 0.4, 0.6, 0.6))]
    assert faults == {
        "lines that are not a class and four numbers, left out": ["labels/1.txt:3", "labels/1.txt:4"],
        "objects of the unknown class 5, left out": ["labels/1.txt:5"],
        "objects of the unknown class -1, left out": ["labels/1.txt:6"],
        "objects of the unknown class 0.5, left out": ["labels/1.txt:7"],
    }


def test_an_annotation_that_is_none_is_refused_by_name():
    with pytest.raises(ValueError, match=r"1\.xml: not an annotation of Pascal VOC"):
        pascal_voc(b"<annotation>", "1.xml", Faults())
    with pytest.raises(ValueError, match=r"1\.json: not an annotation file of COCO, expected images, annotations and cat"):
        coco(b'{"images": []}', "1.json", Faults())
    with pytest.raises(ValueError, match=r"1\.json: not an annotation file of COCO"):
        coco(b'{"images": [], "categories": [], "annotations": [1]}', "1.json", Faults())


def test_a_folder_that_holds_nothing_to_learn_from_is_refused(tmp_path, drawn):
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        DetectionFolder(tmp_path / "nowhere")
    images(tmp_path / "images", drawn)
    with pytest.raises(ValueError, match=r"expected a json file of COCO, xml files of Pascal VOC, or labels/\*\.txt of YOLO"):
        DetectionFolder(tmp_path)
    write_coco(tmp_path, drawn, annotations=[])
    with pytest.raises(ValueError, match="no image with an object to train on among 20"):
        DetectionFolder(tmp_path)


def test_the_pixels_in_a_polygon_are_those_whose_centres_are():
    random = torch.Generator().manual_seed(0)
    corners_of = [14 * torch.rand(count, 2, generator=random, dtype=torch.float64) - 1 for count in (3, 5, 9)]
    made = polygons(corners_of, 9, 12)

    def within(corners, x, y):
        odd = False
        for (x1, y1), (x2, y2) in zip(corners.tolist(), corners.roll(-1, 0).tolist(), strict=True):
            if (y1 > y) != (y2 > y) and x < x1 + (y - y1) / (y2 - y1) * (x2 - x1):
                odd = not odd
        return odd

    for row in range(9):
        for column in range(12):
            assert made[row, column] == any(within(corners, column + 0.5, row + 0.5) for corners in corners_of)
    assert 0 < made.sum() < made.numel()


@pytest.mark.parametrize("counts", [[1, 2, 2, 1], "122O"])
def test_run_lengths_are_the_pixels_of_a_thing_in_either_form(counts):
    row = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [0, 0, 3, 2], "segmentation": {"size": [2, 3], "counts": counts}}
    content = {"images": [{"id": 0, "file_name": "a.png", "height": 2, "width": 3}], "annotations": [row],
               "categories": [{"id": 1, "name": "a"}]}  # fmt: skip
    faults = Faults()
    (scene,), classes = coco(json.dumps(content).encode(), "a.json", faults)
    assert not faults
    assert target(scene, classes, (2, 3), 1, masks=True)["masks"][0].tolist() == [[False, True, False], [True, False, True]]
    large = target(scene, classes, (4, 6), 1, masks=True)["masks"][0]
    assert large[:, :2].tolist() == [[False] * 2, [False] * 2, [True] * 2, [True] * 2]


@here("bccd/BCCD.zip")
def test_bccd_is_364_photographs_with_4886_boxes():
    splits = bccd((60, 80))
    parts = (splits.train, splits.valid, splits.test)
    assert [len(part["image"]) for part in parts] == [205, 87, 72]
    counts = sum((part["box_label"] + 1).flatten().bincount(minlength=4) for part in parts)
    assert counts[1:].tolist() == [4153, 372, 361]
    for part in parts:
        assert part["image"].shape[1:] == (3, 60, 80)
        boxes = part["boxes"][part["box_label"] >= 0]
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert boxes.min() == 0
        assert boxes.amax(0)[2:].tolist() == [80, 60]


@here("coco-mini/coco_mini.zip")
def test_coco_mini_is_142_photographs_with_1251_things_and_their_outlines():
    splits = coco_mini((64, 64), masks=True)
    parts = (splits.train, splits.valid, splits.test)
    assert len(splits.classes) == 80
    assert [len(part["image"]) for part in parts] == [82, 30, 30]
    assert sum(int((part["box_label"] >= 0).sum()) for part in parts) == 1251
    for part in parts:  # an outline fills its box from side to side, wherever it is more than a pixel
        large = ((part["boxes"][..., 2:] - part["boxes"][..., :2]).amin(-1) > 4) & (part["box_label"] >= 0)
        gap = (extents(part["masks"]) - part["boxes"])[large].abs()
        assert gap.quantile(0.95) < 1.5


@here("coco-mini/coco_mini.zip")
def test_of_coco_mini_the_classes_on_most_photographs_can_be_taken_alone():
    whole, some = coco_mini((32, 32)), coco_mini((32, 32), classes=3)
    assert some.classes == ("person", "sink", "bottle")
    held = {name: (whole.train["box_label"] == whole.classes.index(name)).any(1).sum() for name in whole.classes}
    assert [int(held[name]) for name in some.classes] == sorted(map(int, held.values()), reverse=True)[:3] == [35, 21, 20]
    for part in ("train", "valid", "test"):
        ours, theirs = getattr(some, part), getattr(whole, part)
        assert torch.equal(ours["image"], theirs["image"])  # those with none of them too
        for label, name in enumerate(some.classes):
            mine = ours["boxes"][ours["box_label"] == label]
            assert torch.equal(mine, theirs["boxes"][theirs["box_label"] == whole.classes.index(name)])
    for wrong in (0, 81):
        with pytest.raises(ValueError, match=f"classes={wrong}: expected 1 to 80"):
            coco_mini(classes=wrong)

"""Pixel classes: numbers, palettes and colours give the same, and what is wrong is told and hurts nothing."""

import os
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from thalweg.data.images import UnreadableImage
from thalweg.data.segmentation import SegmentationFolder, camvid, read_mask, to_classes, to_colours, voc_colours
from thalweg.data.shapes import SCENE_CLASSES, shapes
from thalweg.data.sources import find

HEIGHT, WIDTH = 24, 36


@pytest.fixture(scope="module")
def drawn():
    return shapes(20, (HEIGHT, WIDTH), seed=3)


def save(array, path: Path, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(numpy.asarray(array))
    if mode == "P":
        image.putpalette(voc_colours().flatten().tolist())
    elif mode:
        image = image.convert(mode)
    image.save(path)


def write(root: Path, drawn, form: str, numbers=range(20), part=""):
    """Images and masks as numbers, as a palette's indices, or as colours."""
    for index in numbers:
        save(drawn["image"][index].movedim(0, -1), root / part / "images" / f"{index:02}.png")
        mask = drawn["segmentation"][index].byte()
        if form == "colours":
            save(to_colours(mask, voc_colours(4)), root / part / "masks" / f"{index:02}.png")
        else:
            save(mask, root / part / "masks" / f"{index:02}.png", "P" if form == "palette" else None)


def names(root: Path, form: str):
    lines = [" ".join([name, *map(str, colour)]) if form == "colours" else name
             for name, colour in zip(SCENE_CLASSES, voc_colours(4).tolist(), strict=True)]  # fmt: skip
    (root / "classes.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("form", ["numbers", "palette", "colours"])
def test_every_form_gives_the_same_classes(tmp_path, drawn, form):
    write(tmp_path, drawn, form)
    names(tmp_path, form)
    folder = SegmentationFolder(tmp_path)
    assert (folder.classes, folder.extent, folder.report()) == (SCENE_CLASSES, [HEIGHT, WIDTH], "")
    for memory in (2**30, 0):
        splits = folder.streams((HEIGHT, WIDTH), 4, memory=memory)
        assert [part.size for part in (splits.train, splits.valid, splits.test)] == [14, 3, 3]
        scenes = iter(folder.scenes[14:])
        for part in (splits.valid, splits.test):
            for batch in part:
                for image, segmentation in zip(batch["image"], batch["segmentation"], strict=True):
                    index = int(next(scenes).path.stem)
                    assert torch.equal(image, drawn["image"][index])
                    assert torch.equal(segmentation, drawn["segmentation"][index])


def test_scaling_invents_no_class(tmp_path, drawn):
    write(tmp_path, drawn, "numbers")
    batch = next(iter(SegmentationFolder(tmp_path).streams((3 * HEIGHT, 2 * WIDTH), 20).train))
    assert batch["image"].shape[2:] == batch["segmentation"].shape[1:] == (3 * HEIGHT, 2 * WIDTH)
    assert set(batch["segmentation"].unique().tolist()) <= {0, 1, 2, 3}
    order = [int(scene.path.stem) for scene in SegmentationFolder(tmp_path).scenes[:14]]
    whole = drawn["segmentation"][order].repeat_interleave(3, 1).repeat_interleave(2, 2)
    assert torch.equal(batch["segmentation"].flatten(1).sum(1).sort().values, whole.flatten(1).sum(1).sort().values)


def test_parts_of_the_person_are_kept_and_leakage_is_told(tmp_path, drawn):
    write(tmp_path, drawn, "numbers", range(10), "train")
    write(tmp_path, drawn, "numbers", range(9, 14), "val")
    folder = SegmentationFolder(tmp_path)
    splits = folder.streams((8, 8), 4)
    assert (splits.train.size, splits.valid.size, splits.test) == (10, 5, None)
    line = "1 images in more than one part, so that no accuracy can be trusted: train/images/09.png = val/images/09.png"
    assert folder.report() == line
    write(tmp_path / "other", drawn, "numbers", range(20))
    (tmp_path / "other" / "images").rename(tmp_path / "other" / "x")
    (tmp_path / "other" / "images").mkdir()
    (tmp_path / "other" / "x").rename(tmp_path / "other" / "images" / "train")
    (tmp_path / "other" / "masks").rename(tmp_path / "other" / "y")
    (tmp_path / "other" / "masks").mkdir()
    (tmp_path / "other" / "y").rename(tmp_path / "other" / "masks" / "train")
    assert {scene.part for scene in SegmentationFolder(tmp_path / "other").scenes} == {"train", "valid"}


def test_what_is_wrong_is_counted_and_named_and_the_rest_is_used(tmp_path, drawn):
    write(tmp_path, drawn, "numbers")
    (tmp_path / "classes.txt").write_text("\n".join([*SCENE_CLASSES, "unicorn"]))
    save(drawn["segmentation"][0].byte()[:-1], tmp_path / "masks" / "00.png")
    odd = drawn["segmentation"][1].byte().clone()
    odd[0, :3] = torch.tensor([9, 255, 9])
    save(odd, tmp_path / "masks" / "01.png")
    (tmp_path / "masks" / "02.png").write_bytes(b"words")
    (tmp_path / "masks" / "03.png").unlink()
    (tmp_path / "images" / "04.png").unlink()
    save(drawn["image"][5].movedim(0, -1), tmp_path / "masks" / "05.png")
    whole = (tmp_path / "images" / "06.png").read_bytes()
    (tmp_path / "images" / "06.png").write_bytes(whole[: len(whole) // 2])
    folder = SegmentationFolder(tmp_path)
    streams = folder.streams((HEIGHT, WIDTH), 4)
    report = folder.report()
    for line in (
        "3 images or masks that cannot be used, left out: images/00.png (36x24, its mask 36x23), ",
        "images/02.png (not an image of a known format), images/05.png (colours, expected a number a pixel, or classes.txt",
        "1 masks with the number 9 that no class has and that does not count: masks/01.png",
        "1 images without one of the same name in masks, left out: images/03.png",
        "1 masks without one of the same name in images, left out: masks/04.png",
        "1 images that cannot be read, left out: images/06.png (",
        "1 classes without a pixel to train on: unicorn",
    ):
        assert line in report
    assert "\n" not in report
    assert sum(part.size for part in (streams.train, streams.valid, streams.test)) == 14
    scene = next(number for number, scene in enumerate(folder.scenes) if scene.path.stem == "01")
    kept = torch.cat([part.tensors["segmentation"] for part in (streams.train, streams.valid, streams.test)])[scene]
    assert (kept[0, :3] == 255).all()


def test_black_and_white_masks_are_of_two_classes(tmp_path, drawn):
    for index in range(6):
        save(drawn["image"][index].movedim(0, -1), tmp_path / "images" / f"{index}.jpg")
        save(drawn["segmentation"][index] > 0, tmp_path / "masks" / f"{index}_mask.png")
    folder = SegmentationFolder(tmp_path)
    assert folder.classes == ("background", "foreground")
    assert folder.report() == ""
    batch = next(iter(folder.streams((HEIGHT, WIDTH), 6).train))
    assert batch["segmentation"].unique().tolist() == [0, 1]


def test_colours_that_no_line_names_do_not_count_nor_does_what_is_called_void(tmp_path, drawn):
    write(tmp_path, drawn, "colours")
    lines = [
        f"{name},{','.join(map(str, colour))}" for name, colour in zip(SCENE_CLASSES, voc_colours(4).tolist(), strict=True)
    ]
    (tmp_path / "class_dict.csv").write_text("\n".join(["name,r,g,b", lines[0].replace("background", "Void"), *lines[1:3]]))
    folder = SegmentationFolder(tmp_path)
    assert folder.classes == SCENE_CLASSES[1:3]
    assert "masks with a colour that no class has and that does not count: masks/" in folder.report()
    batch = next(iter(folder.streams((HEIGHT, WIDTH), 14).train))
    assert batch["segmentation"].unique().tolist() == [0, 1, 255]
    (tmp_path / "class_dict.csv").unlink()
    with pytest.raises(ValueError, match=r"no mask to train on.*20 images or masks that cannot be used.*classes\.txt to name"):
        SegmentationFolder(tmp_path)


def test_a_folder_that_holds_nothing_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        SegmentationFolder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no mask to train on, expected images/1\.jpg and masks/1\.png"):
        SegmentationFolder(tmp_path)
    (tmp_path / "classes.txt").write_text("a 0 0 300")
    with pytest.raises(ValueError, match=r"classes\.txt: a colour of 300"):
        SegmentationFolder(tmp_path)


def test_the_colours_of_voc_go_there_and_back():
    colours = voc_colours()
    assert colours[[0, 1, 2, 15, 20, 255]].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [0, 64, 128],
                                                        [224, 224, 192]]  # fmt: skip
    assert len(colours.unique(dim=0)) == 256
    segmentation = torch.randint(0, 21, (2, 9, 7))
    assert torch.equal(to_classes(to_colours(segmentation, colours[:21]), colours[:21]), segmentation)
    assert to_classes(torch.tensor([[[1, 2, 3]]], dtype=torch.uint8), colours[:21]).tolist() == [[255]]
    assert to_colours(torch.tensor([255, 1]), colours[:21]).tolist() == [[0, 0, 0], [128, 0, 0]]


def test_masks_of_more_bits_are_read_as_far_as_they_are_classes(tmp_path):
    path = tmp_path / "deep.png"
    save(numpy.array([[0, 7], [255, 1]], dtype=numpy.uint16), path)
    assert read_mask(path.read_bytes(), "deep.png").tolist() == [[0, 7], [255, 1]]
    save(numpy.array([[0, 700]], dtype=numpy.uint16), path)
    with pytest.raises(UnreadableImage, match=r"deep\.png: the number 700, expected numbers up to 255"):
        read_mask(path.read_bytes(), "deep.png")


@pytest.mark.skipif(
    not find("camvid/CamVid_subset.zip"), reason=f"THALWEG_DATA ({os.environ.get('THALWEG_DATA')}) holds no camvid"
)
def test_camvid_is_88_frames_of_eleven_classes():
    splits = camvid((60, 80))
    parts = (splits.train, splits.valid, splits.test)
    assert [len(part["image"]) for part in parts] == [53, 15, 20]
    for part in parts:
        assert part["segmentation"].shape[1:] == part["image"].shape[2:] == (60, 80)
        assert part["segmentation"].unique().tolist() == [*range(11), 255]
    sky, road = (splits.train["segmentation"] == number for number in (0, 3))
    rows = torch.arange(60)[:, None]
    assert (sky * rows).sum() / sky.sum() < 20 < 40 < (road * rows).sum() / road.sum()

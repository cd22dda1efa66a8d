"""Photographs as patches: what is cut, what is kept apart, what is left out of a person's folder and why."""

import shutil

import pytest
import torch
from PIL import Image

from thalweg.data.photographs import coco_photographs, own_photographs, patches


def test_patches_lie_on_a_grid_of_half_a_patch_and_are_fixed_by_the_seed():
    image = torch.stack([torch.arange(20)[:, None].expand(20, 30), torch.arange(30).expand(20, 30)])
    cut = patches(image, 8, 100, seed=1)
    corners = sorted((int(p[0, 0, 0]), int(p[1, 0, 0])) for p in cut)
    assert corners == [(row, column) for row in range(0, 13, 4) for column in range(0, 23, 4)]
    for patch in cut:
        top, left = int(patch[0, 0, 0]), int(patch[1, 0, 0])
        assert torch.equal(patch, image[:, top : top + 8, left : left + 8])
    few = patches(image, 8, 5, seed=1)
    assert few.shape == (5, 2, 8, 8)
    assert torch.equal(few, patches(image, 8, 5, seed=1))
    assert not torch.equal(few, patches(image, 8, 5, seed=2))


@pytest.fixture
def folder(tmp_path):
    """Seven plain photographs, each of a grey of its own, and four files that do not serve."""
    (tmp_path / "below").mkdir()
    for number in range(7):
        place = tmp_path / "below" if number % 2 else tmp_path
        Image.new("RGB", (40, 30), (30 * number,) * 3).save(place / f"{number}.png")
    Image.new("RGB", (40, 15)).save(tmp_path / "small.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    shutil.copy(tmp_path / "below" / "1.png", tmp_path / "copy.png")
    return tmp_path


def test_the_parts_hold_different_photographs_and_what_does_not_serve_is_named(folder):
    splits, skipped = own_photographs(folder, 16)
    held = [set(part["image"].flatten(1)[:, 0].tolist()) for part in (splits.train, splits.valid, splits.test)]
    assert [len(greys) for greys in held] == [5, 1, 1]
    assert set.union(*held) == {30 * number for number in range(7)}
    assert {path.name: reason for path, reason in skipped} == {
        "small.png": "40x15 pixels, smaller than 16x16",
        "notes.txt": "not an image of a known format",
        "broken.jpg": "not an image of a known format",
        "copy.png": "the same as below/1.png",
    }
    again, _ = own_photographs(folder, 16)
    assert torch.equal(again.train["image"], splits.train["image"])


def test_a_folder_that_does_not_serve_is_refused(folder):
    with pytest.raises(ValueError, match=r"no-such: no such folder"):
        own_photographs(folder / "no-such")
    with pytest.raises(ValueError, match=r"notes.txt: a file, expected a folder"):
        own_photographs(folder / "notes.txt")
    with pytest.raises(ValueError, match=r"0 photographs, expected at least three of 96x96 pixels or more; 0.png: 40x30"):
        own_photographs(folder)


def test_coco_photographs_are_142(data_folder):
    splits = coco_photographs(96)
    assert splits.train["image"].shape[1:] == (3, 96, 96)
    assert 47 * 72 < len(splits.train["image"]) <= 48 * 72  # one photograph is small
    assert len(splits.valid["image"]) == 8 * 10
    assert len(splits.test["image"]) == 8 * 60

"""Cutouts: what is nothing, where they are laid, and the boxes around what is seen of them."""

import math
import os

import pytest
import torch

from thalweg.data.cutouts import fruit, inked, off_white, paste
from thalweg.data.streams import generator

SQUARE = {"image": torch.full((1, 4, 8, 8), 255, dtype=torch.uint8), "label": torch.tensor([3])}
GROUND = {"image": torch.full((40, 3, 48, 64), 100, dtype=torch.uint8)}


def test_one_thing_lies_where_its_box_says_and_the_rest_stays():
    batch = paste(SQUARE, smallest=0.25, largest=0.75)(GROUND, generator(0))
    sides = batch["boxes"][:, 0, 2:] - batch["boxes"][:, 0, :2]
    assert ((sides >= 11) & (sides <= 37)).all()  # shares of 48, to a pixel
    assert sides.amax() - sides.amin() > 15
    assert (sides[:, 0] - sides[:, 1]).abs().max() <= 1
    assert torch.equal(batch["box_label"], torch.full((40, 1), 3))
    for image, (left, top, right, bottom) in zip(batch["image"], batch["boxes"][:, 0].int().tolist(), strict=True):
        inside = torch.zeros(48, 64, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        assert (image[:, inside] > 137).all()  # a corner may be but a quarter
        assert (image[:, ~inside] < 178).all()  # less than half of such a pixel is covered


def test_a_turned_thing_has_the_box_around_its_corners():
    bar = {"image": torch.zeros(1, 2, 40, 40, dtype=torch.uint8), "label": torch.tensor([0])}
    bar["image"][:, 0], bar["image"][:, 1, 18:22, 5:35] = 255, 255
    ground = {"image": torch.zeros(60, 1, 80, 80, dtype=torch.uint8)}
    batch = paste(bar, smallest=0.5, largest=0.5, degrees=80)(ground, generator(2))
    wide, tall = (batch["boxes"][:, 0, 2:] - batch["boxes"][:, 0, :2]).T
    angle = torch.linspace(0, math.radians(80), 200)
    there = torch.stack([30 * angle.cos() + 4 * angle.sin(), 30 * angle.sin() + 4 * angle.cos()], 1)
    apart = torch.cdist(torch.stack([wide, tall], 1), there).amin(1)
    assert apart.max() < 2
    assert wide.min() < 15
    assert wide.max() > 28


def test_several_things_never_overlap_and_some_images_have_fewer():
    batch = paste(SQUARE, 4, smallest=0.2, largest=0.4)(GROUND, generator(1))
    real = batch["box_label"] >= 0
    assert real.any(1).all()
    assert set(real.sum(1).tolist()) >= {1, 2, 3}
    covered = (batch["image"][:, 0] > 177).flatten(1).sum(1)
    areas = (batch["boxes"][..., 2:] - batch["boxes"][..., :2]).prod(-1)
    missed = areas.sum(1) - covered
    assert ((missed >= 0) & (missed <= 4 * real.sum(1))).all()  # corners that are less than half
    assert not batch["boxes"][~real].any()


def test_the_scenes_are_those_of_the_generator():
    lay = paste(SQUARE, 3)
    first, again, other = (lay(GROUND, generator(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["boxes"], other["boxes"])


def test_ink_is_opaque_where_it_was_bright():
    digits = {"image": torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8), "label": torch.tensor([1, 2])}
    cut = inked(digits)["image"]
    assert (cut[:, 0] == 255).all()
    assert torch.equal(cut[:, 1], digits["image"][:, 0])


def test_white_that_does_not_reach_the_border_is_of_the_thing():
    image = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    image[:, 8:24, 8:24] = 90
    image[:, 14:18, 14:18] = 250  # it shines
    opacity = off_white(image)[3]
    assert (opacity[11:21, 11:21] > 250).all()
    assert not opacity[:6].any()
    assert torch.equal(off_white(image)[:3], image)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"smallest=0\.5, largest=0\.2"):
        paste(SQUARE, smallest=0.5, largest=0.2)
    with pytest.raises(ValueError, match="cutouts: 4 channels, expected 2"):
        paste(SQUARE)({"image": torch.zeros(1, 1, 16, 16, dtype=torch.uint8)}, generator(0))


@pytest.mark.skipif(not os.environ.get("THALWEG_DATA"), reason="THALWEG_DATA is not set: Fruits-360 is not at hand")
def test_the_fruit_are_whole_and_nothing_is_left_around_them():
    splits = fruit()
    assert [len(part["label"]) for part in (splits.train, splits.valid, splits.test)] == [442, 49, 165]
    opacity = splits.test["image"][:, 3]
    assert (opacity[:, 40:60, 40:60] == 255).all()
    assert not opacity[:, ::99, ::99].any()
    share = (opacity > 127).float().mean((1, 2))
    assert share.min() > 0.5
    assert share.max() < 0.85

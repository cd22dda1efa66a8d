"""Boxes, masks and pixel classes move with the image, pixel for pixel."""

import pytest
import torch

from thalweg.data.augmentation import (
    VISIBLE,
    colour,
    crop,
    erase,
    flip,
    resized_crop,
    rotate,
    scatter,
    shift,
    zoom_out,
)
from thalweg.data.shapes import extents, shapes
from thalweg.data.streams import generator

HEIGHT, WIDTH = 40, 56  # not square: rows and columns must not be mistaken for each other
MOVES = {
    "flip": flip(),
    "shift": shift(12),
    "shift reflected": shift(12, "reflect"),
    "crop": crop((24, 30)),
    "crop of more": crop((50, 30)),
    "rotate": rotate(30, zoom=0.2),
    "resized_crop": resized_crop(0.3),
    "zoom_out": zoom_out(2.0),
    "scatter": scatter(70, degrees=20, smallest=0.7, largest=1.2),
}
WHOLE = ("flip", "shift", "shift reflected", "crop", "crop of more")  # those that move by whole pixels


def rectangles(count=60, most=3):
    """Scenes of rectangles: their boxes are exactly where their pixels are; the image is their number, as a grey value."""
    random = generator(7)
    x, y = (torch.randint(0, side - 12, (count, most), generator=random) for side in (WIDTH, HEIGHT))
    w, h = (torch.randint(5, 13, (count, most), generator=random) for _ in range(2))
    row, column = torch.arange(HEIGHT)[:, None], torch.arange(WIDTH)
    x, y, w, h = (value[..., None, None] for value in (x, y, w, h))
    masks = (row >= y) & (row < y + h) & (column >= x) & (column < x + w)
    boxes = torch.cat([x, y, x + w, y + h], -1).squeeze(-2).float()
    label = torch.randint(0, 3, (count, most), generator=random)
    label[::5, 1] = -1  # padding, in the midst
    masks, boxes = masks & (label >= 0)[..., None, None], boxes.where((label >= 0)[..., None], 0)
    number = torch.arange(1, most + 1)[:, None, None]
    top = (masks * number).amax(1)  # the last of those that lie there
    return {"image": (top * 40)[:, None].byte(), "boxes": boxes, "box_label": label, "masks": masks, "segmentation": top}


def all_moved(name, seed=3):
    held = rectangles()
    return held, MOVES[name](held, generator(seed))


@pytest.mark.parametrize("name", MOVES)
def test_a_box_that_stays_is_where_the_pixels_of_its_rectangle_are(name):
    _, moved = all_moved(name)
    stays = moved["box_label"] >= 0
    assert 0.3 < stays.float().mean() < 1
    found = extents(moved["masks"])
    if name in WHOLE:
        assert torch.equal(found[stays], moved["boxes"][stays])
    elif name in ("rotate", "scatter"):  # a corner of a turned rectangle is thinner than a pixel
        gap = (found - moved["boxes"])[stays]
        assert gap.abs().max() <= 3
        assert gap.abs().mean() < 0.6
        assert (gap[:, :2] > -0.51).all()  # pixels are within their box
        assert (gap[:, 2:] < 0.51).all()
    else:
        assert (found - moved["boxes"])[stays].abs().max() <= 0.51


@pytest.mark.parametrize("name", MOVES)
def test_what_is_no_longer_a_box_is_padding_through_and_through(name):
    held, moved = all_moved(name)
    gone = moved["box_label"] < 0
    assert gone[held["box_label"] < 0].all()  # padding stays padding
    assert (moved["box_label"] == held["box_label"])[~gone].all()
    assert (moved["boxes"][gone] == 0).all()
    assert not moved["masks"][gone].any()
    boxes = moved["boxes"][~gone]
    height, width = moved["image"].shape[2:]
    assert (boxes >= 0).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes[:, 2] <= width).all()
    assert (boxes[:, 3] <= height).all()


@pytest.mark.parametrize("name", WHOLE)
def test_every_pixel_keeps_its_class(name):
    _, moved = all_moved(name)
    counts = moved["segmentation"] != 255
    assert torch.equal(moved["image"][:, 0][counts].long(), 40 * moved["segmentation"][counts])
    assert set(moved) == {"image", "boxes", "box_label", "masks", "segmentation"}
    if "reflect" not in name:  # where nothing counts the image is black
        assert (moved["image"][:, 0][~counts] == 0).all()
    assert counts.all() == (name in ("flip", "crop"))


@pytest.mark.parametrize("name", [name for name in MOVES if name not in WHOLE])
def test_between_pixels_the_class_is_that_of_the_nearest(name):
    held = rectangles()
    held["image"] = held["image"].double()
    moved = MOVES[name](held, generator(3))
    classes, image = moved["segmentation"], moved["image"][:, 0]
    around = classes.unfold(1, 3, 1).unfold(2, 3, 1).flatten(3)  # where all neighbours are alike the image is too
    calm = (around.amax(-1) == around.amin(-1)) & (around.amax(-1) != 255)
    assert calm.float().mean() > 0.2
    expected = 40.0 * classes[:, 1:-1, 1:-1]
    if name == "zoom_out":  # whose two fields of sums differ by the ground only
        assert ((image[:, 1:-1, 1:-1] - expected).abs()[calm].quantile(0.99)) < 1e-3
    else:
        assert (image[:, 1:-1, 1:-1] - expected).abs()[calm].quantile(0.97) < 1e-3


def test_two_flips_are_none():
    held = rectangles()
    twice = flip(1.0)(flip(1.0)(held, generator(0)), generator(1))
    for name, value in held.items():
        assert torch.equal(twice[name], value)
    once = flip(1.0)(held, generator(0))
    assert torch.equal(once["boxes"][0, 0], torch.stack([WIDTH - held["boxes"][0, 0, 2], held["boxes"][0, 0, 1],
                                                         WIDTH - held["boxes"][0, 0, 0], held["boxes"][0, 0, 3]]))  # fmt: skip


@pytest.mark.parametrize("seen", [2, 3, 4])
def test_a_box_stays_if_three_tenths_of_it_do(seen):
    """Ten columns wide, moved so far to the left that `seen` of them are left."""
    boxes = torch.tensor([[[2.0, 5, 12, 9]]]).expand(400, 1, 4)
    held = {"image": torch.zeros(400, 1, 20, 20), "boxes": boxes, "box_label": torch.zeros(400, 1, dtype=torch.long)}
    moved = shift(11)(held, generator(0))
    row, column = torch.randint(0, 23, (2, 400), generator=generator(0))
    chosen = (2 + 11 - column == seen - 10) & ((row - 11).abs() < 4)
    assert chosen.any()
    assert ((moved["box_label"][chosen] >= 0) == (seen / 10 >= VISIBLE)).all()


def test_a_crop_is_a_piece_of_the_image_and_takes_all_places_alike():
    held = {"image": torch.arange(7 * 9).reshape(1, 1, 7, 9).expand(3000, -1, -1, -1), "label": torch.arange(3000)}
    cut = crop((4, 6))(held, generator(2))["image"][:, 0]
    assert cut.shape == (3000, 4, 6)
    start = cut[:, :1, :1]
    assert torch.equal(cut, start + 9 * torch.arange(4)[:, None] + torch.arange(6))
    counts = start.flatten().bincount()
    assert (counts > 0).sum() == 4 * 4
    assert counts[counts > 0].min() > 120


def test_a_smaller_image_is_filled_up_at_the_right_and_below():
    held = {"image": torch.ones(2, 3, 4, 5), "segmentation": torch.ones(2, 4, 5, dtype=torch.long)}
    cut = crop((6, 8))(held, generator(0))
    expected = torch.full((6, 8), 255)
    expected[:4, :5] = 1
    assert torch.equal(cut["segmentation"], expected.expand(2, -1, -1))
    assert torch.equal(cut["image"], (expected == 1).float().expand(2, 3, -1, -1))


def test_zooming_out_shrinks_things_on_the_images_mean_colour():
    held = shapes(40, (HEIGHT, WIDTH), most=1)
    moved = zoom_out(3.0, 1.0)(held, generator(1))
    area = (moved["boxes"][:, 0, 2:] - moved["boxes"][:, 0, :2]).prod(-1)
    before = (held["boxes"][:, 0, 2:] - held["boxes"][:, 0, :2]).prod(-1)
    share = (area / before).sqrt()
    assert share.min() > 1 / 3 - 1e-5
    assert share.max() <= 1 + 1e-5
    assert share.max() - share.min() > 0.4
    assert (moved["box_label"] >= 0).all()  # nothing is lost
    outside = moved["segmentation"] == 255
    ground = held["image"].float().mean((2, 3))
    for index in range(40):
        pixels = moved["image"][index][:, outside[index]].float()
        assert (pixels - ground[index][:, None]).abs().median() <= 0.51
    still = zoom_out(3.0, 0.0)(held, generator(1))
    torch.testing.assert_close(still, held, rtol=0, atol=1e-4)


def test_a_quarter_turn_is_exact(monkeypatch):
    held = rectangles()
    held |= {name: held[name][..., :HEIGHT] for name in ("image", "masks", "segmentation")}  # square
    held["boxes"], seen = extents(held["masks"]), held["masks"].any(3).any(2)
    held["box_label"] = held["box_label"].where(seen, -1)
    monkeypatch.setattr(torch, "rand", lambda *size, generator: torch.ones(*size))  # every angle the largest
    moved = rotate(90)(held, generator(0))
    for name in ("masks", "segmentation"):
        assert torch.equal(moved[name], held[name].rot90(1, (-2, -1)))
    assert torch.equal(moved["image"], held["image"].rot90(1, (-2, -1)))
    assert torch.equal(moved["box_label"], held["box_label"])
    torch.testing.assert_close(moved["boxes"], extents(moved["masks"]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("change", [colour(), erase()])
def test_what_moves_nothing_leaves_boxes_and_masks_alone(change):
    held = shapes(8)
    changed = change(held, generator(0))
    for name in ("boxes", "box_label", "masks", "segmentation"):
        assert changed[name] is held[name]


def test_small_pixel_classes_stay_small():
    held = {**rectangles(4), "segmentation": rectangles(4)["segmentation"].byte()}
    moved = rotate(30)(held, generator(0))["segmentation"]
    assert moved.dtype == torch.uint8
    assert set(moved.unique().tolist()) <= {0, 1, 2, 3, 255}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: crop(0), "size=0"),
        (lambda: crop((4, 0)), r"size=\(4, 0\)"),
        (lambda: zoom_out(0.5), "largest=0.5"),
        (lambda: zoom_out(probability=-1.0), "probability=-1.0"),
    ],
)
def test_what_cannot_be_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()

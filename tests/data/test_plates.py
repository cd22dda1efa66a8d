"""Licence plates: what is drawn is what is said, and a camera moves it as projective geometry has it."""

import pytest
import torch
from definitions import EXACT
from torch.testing import assert_close

from thalweg.data import plates
from thalweg.data.plates import ALPHABET, LAYOUTS, Plates, draw_plate, homography, photographed, plate, seen_from, symbols
from thalweg.data.streams import generator

CORNERS = torch.tensor([[-1.0, -1], [1, -1], [-1, 1], [1, 1]], dtype=torch.float64)


def test_a_plate_is_a_function_of_its_numbers_and_keeps_a_pattern():
    patterns = {"".join(sign for sign in layout.pattern if sign in "LD") for layout in LAYOUTS}
    seen = set()
    for number in range(40):
        image, text = plate(number)
        again, same = plate(number)
        assert torch.equal(image, again)
        assert text == same
        seen.add("".join("D" if symbol.isdigit() else "L" for symbol in text))
        assert set(text) <= set(ALPHABET)
    assert seen <= patterns
    assert len(seen) > 4
    assert plate(0, seed=1)[1] != plate(0)[1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_another_symbol_is_another_picture_where_it_stands(layout):
    length = sum(sign in "LD" for sign in layout.pattern)
    one, other = (draw_plate(text, layout) for text in ("8" * length, "8" * (length - 1) + "7"))
    changed = (one != other).any(0).any(0).nonzero()
    assert one.shape == (3, *plates.EXTENT)
    assert changed.min() > plates.EXTENT[1] // 2  # the last symbol, and how far the others move for it
    with pytest.raises(ValueError, match=f"expected {length} symbols"):
        draw_plate("8", layout)


def test_batches_hold_the_plates_of_their_numbers_and_the_symbols_in_order():
    stream = Plates(10, 4, seed=3)
    batch = stream.fetch(torch.tensor([2, 7]))
    for image, tokens, number in zip(batch["image"], batch["tokens"], (2, 7), strict=True):
        drawn, text = plate(number, 3)
        assert torch.equal(image, drawn)
        assert "".join(ALPHABET[token - 1] for token in tokens.tolist() if token) == text
    assert symbols(["BA", "A"], "AB").tolist() == [[2, 1], [1, 0]]
    with pytest.raises(ValueError, match="'C' are not in the alphabet 'AB'"):
        symbols(["ABC"], "AB")


def test_a_homography_takes_points_where_it_is_told_and_lines_to_lines():
    target = CORNERS + 0.3 * torch.randn(2, 4, 2, dtype=torch.float64)
    found = homography(CORNERS.expand(2, -1, -1), target)

    def moved(points):
        y = torch.cat([points, torch.ones_like(points[..., :1])], -1) @ found.mT
        return y[..., :2] / y[..., 2:]

    assert_close(moved(CORNERS), target, **EXACT)
    a, b, c = moved(torch.tensor([[-0.5, 0.2], [0.1, 0.4], [0.7, 0.6]], dtype=torch.float64)).unbind(1)
    cross = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    assert_close(cross, torch.zeros_like(cross), **EXACT)


def test_seen_from_the_front_an_image_is_itself_and_its_corners_go_where_they_should():
    image = torch.rand(2, 3, 12, 20)
    assert_close(seen_from(image, CORNERS.float().expand(2, -1, -1), (12, 20)), image, rtol=1e-4, atol=1e-4)
    right = CORNERS.float().expand(2, -1, -1) * torch.tensor([0.5, 1.0]) + torch.tensor([0.5, 0.0])
    assert_close(seen_from(image, right, (12, 10)), image[..., 10:], rtol=1e-4, atol=1e-4)


def test_a_photograph_is_of_its_size_differs_by_the_camera_and_keeps_what_is_written():
    batch = Plates(6, 6).batch(0)
    look = photographed((32, 128))
    one, again, other = (look(batch, generator(seed)) for seed in (1, 1, 2))
    assert one["image"].shape == (6, 3, 32, 128)
    assert one["image"].dtype == torch.uint8
    assert torch.equal(one["image"], again["image"])
    assert not torch.equal(one["image"], other["image"])
    assert one.keys() == batch.keys()
    assert torch.equal(one["tokens"], batch["tokens"])

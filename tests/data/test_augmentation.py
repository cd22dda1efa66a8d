"""Augmentation against its definition, pixel by pixel in loops, with the same random numbers drawn in the same order."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from thalweg.data.augmentation import colour, cutmix, erase, flip, mixup, resized_crop, rotate, scatter, shift
from thalweg.data.streams import generator

HEIGHT, WIDTH = 5, 7  # not square: rows and columns must not be mistaken for each other


def batch(count: int = 6, dtype: torch.dtype = torch.float64, channels: int = 3) -> dict[str, Tensor]:
    image = torch.rand(count, channels, HEIGHT, WIDTH, generator=generator(11), dtype=torch.float64)
    image = image.to(dtype) if dtype.is_floating_point else (image * 255).round().to(dtype)
    return {"image": image, "label": torch.arange(count) % 4}


def rand(random, size, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(size, generator=random)


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def bilinear(plane: Tensor, y: float, x: float, border: bool) -> float:
    """The plane at (y, x) in pixels from the centre of the first, by its four neighbours."""
    top, left, total = math.floor(y), math.floor(x), 0.0
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        weight = (1 - abs(y - row)) * (1 - abs(x - column))
        if border:
            row, column = min(max(row, 0), HEIGHT - 1), min(max(column, 0), WIDTH - 1)
        if 0 <= row < HEIGHT and 0 <= column < WIDTH:
            total += weight * float(plane[row, column])
    return total


def test_flip_mirrors_the_chosen_images_left_and_right():
    held = batch()
    result = flip(0.6)(held, generator(5))["image"]
    chosen = torch.rand(6, generator=generator(5)) < 0.6
    assert 0 < chosen.sum() < 6
    for index in range(6):
        for row in range(HEIGHT):
            for column in range(WIDTH):
                source = WIDTH - 1 - column if chosen[index] else column
                assert torch.equal(result[index, :, row, column], held["image"][index, :, row, source])


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.uint8])
def test_shift_moves_and_fills_what_comes_in(mode, dtype):
    held = batch(dtype=dtype)
    result = shift(2, mode)(held, generator(5))["image"]
    rows, columns = torch.randint(0, 5, (2, 6), generator=generator(5))

    def inside(place: int, size: int) -> int | None:
        if 0 <= place < size:
            return place
        if mode == "constant":
            return None
        if mode == "replicate":
            return min(max(place, 0), size - 1)
        return -place if place < 0 else 2 * (size - 1) - place

    for index in range(6):
        for row in range(HEIGHT):
            for column in range(WIDTH):
                y = inside(row + int(rows[index]) - 2, HEIGHT)
                x = inside(column + int(columns[index]) - 2, WIDTH)
                expected = torch.zeros(3, dtype=dtype) if y is None or x is None else held["image"][index, :, y, x]
                assert torch.equal(result[index, :, row, column], expected)


def test_rotate_turns_around_the_centre_and_keeps_angles_in_images_that_are_not_square():
    held = batch(3)
    result = rotate(40, zoom=0.3)(held, generator(5))["image"]
    random = generator(5)
    angle = rand(random, (3,), -math.radians(40), math.radians(40)).double()
    zoom = rand(random, (3,), 0.7, 1.3)
    for index in range(3):
        cos, sin, scale = math.cos(angle[index]), math.sin(angle[index]), float(1 / zoom[index])
        for row in range(HEIGHT):
            for column in range(WIDTH):
                dy, dx = row - (HEIGHT - 1) / 2, column - (WIDTH - 1) / 2
                y, x = (sin * dx + cos * dy) * scale, (cos * dx - sin * dy) * scale
                for channel in range(3):
                    plane = held["image"][index, channel]
                    expected = bilinear(plane, y + (HEIGHT - 1) / 2, x + (WIDTH - 1) / 2, border=False)
                    assert abs(float(result[index, channel, row, column]) - expected) < 1e-10


def test_resized_crop_scales_a_part_to_the_whole():
    held = batch(4)
    result = resized_crop(0.2, 1.5)(held, generator(5))["image"]
    random = generator(5)
    area = rand(random, (4,), 0.2, 1.0).double()
    aspect = rand(random, (4,), -math.log(1.5), math.log(1.5)).exp()
    left_right, up_down = rand(random, (4,), -1, 1), rand(random, (4,), -1, 1)
    for index in range(4):
        width = min(1.0, math.sqrt(area[index] * aspect[index]))
        height = min(1.0, math.sqrt(area[index] / aspect[index]))
        left = WIDTH * (1 - width) * (1 + float(left_right[index])) / 2  # of the part, in pixels from the image's edge
        top = HEIGHT * (1 - height) * (1 + float(up_down[index])) / 2
        for row in range(HEIGHT):
            for column in range(WIDTH):
                y, x = top + height * (row + 0.5) - 0.5, left + width * (column + 0.5) - 0.5
                for channel in range(3):
                    expected = bilinear(held["image"][index, channel], y, x, border=True)
                    assert abs(float(result[index, channel, row, column]) - expected) < 1e-10


def test_a_crop_of_a_white_image_is_white_up_to_its_edges():
    white = {"image": torch.full((8, 1, 9, 6), 255, dtype=torch.uint8)}
    assert (resized_crop(0.1)(white, generator(0))["image"] == 255).all()


def test_colour_scales_brightness_contrast_and_saturation():
    held = batch()
    result = colour(0.3, 0.4, 0.5)(held, generator(5))["image"]
    random = generator(5)
    b, c, s = (rand(random, (6, 1, 1, 1), 1 - strength, 1 + strength).double() for strength in (0.3, 0.4, 0.5))
    for index in range(6):
        x = held["image"][index] * float(b[index])
        mean = sum(float(value) for value in x.flatten()) / x.numel()
        x = mean + float(c[index]) * (x - mean)
        for row in range(HEIGHT):
            for column in range(WIDTH):
                grey = float(x[:, row, column].sum()) / 3
                for channel in range(3):
                    value = grey + float(s[index]) * (float(x[channel, row, column]) - grey)
                    assert abs(float(result[index, channel, row, column]) - min(max(value, 0.0), 1.0)) < 1e-10


def test_erase_blanks_a_square_cut_at_the_border():
    held = batch(40)
    result = erase(0.9, 0.7)(held, generator(5))["image"]
    random = generator(5)
    half = rand(random, (40,), 0, 0.9).sqrt() * HEIGHT / 2
    chosen = torch.rand(40, generator=random) < 0.7
    y, x = torch.rand(2, 40, generator=random) * torch.tensor([[HEIGHT], [WIDTH]])
    blanked = 0
    for index in range(40):
        for row in range(HEIGHT):
            for column in range(WIDTH):
                near = abs(row + 0.5 - y[index]) < half[index] and abs(column + 0.5 - x[index]) < half[index]
                gone = bool(near and chosen[index])
                blanked += gone
                pixel = held["image"][index, :, row, column]
                assert torch.equal(result[index, :, row, column], torch.zeros_like(pixel) if gone else pixel)
    assert 0 < blanked < 40 * HEIGHT * WIDTH / 2


def test_mixup_mixes_images_and_labels_by_the_same_weights():
    held = batch()
    result = mixup(4, 0.8)(held, generator(5))
    random = generator(5)
    first, second = torch._standard_gamma(torch.full((2, 6), 0.8), generator=random)
    weight, other = first / (first + second), torch.randperm(6, generator=random)
    for index in range(6):
        w, partner = float(weight[index]), int(other[index])
        close(result["image"][index], w * held["image"][index] + (1 - w) * held["image"][partner])
        for value in range(4):
            expected = w * (held["label"][index] == value) + (1 - w) * (held["label"][partner] == value)
            assert abs(float(result["label"][index, value]) - float(expected)) < 1e-6


def test_cutmix_pastes_a_box_and_mixes_labels_by_the_area_that_is_left():
    held = batch(12)
    result = cutmix(4)(held, generator(5))
    random = generator(5)
    first, second = torch._standard_gamma(torch.full((2, 12), 1.0), generator=random)
    half = (1 - first / (first + second)).sqrt() / 2
    other = torch.randperm(12, generator=random)
    y, x = torch.rand(2, 12, generator=random) * torch.tensor([[HEIGHT], [WIDTH]])
    for index in range(12):
        partner, pasted = int(other[index]), 0
        for row in range(HEIGHT):
            for column in range(WIDTH):
                inside = abs(row + 0.5 - y[index]) < half[index] * HEIGHT and abs(column + 0.5 - x[index]) < half[index] * WIDTH
                pasted += bool(inside)
                source = partner if inside else index
                assert torch.equal(result["image"][index, :, row, column], held["image"][source, :, row, column])
        kept = 1 - pasted / (HEIGHT * WIDTH)
        for value in range(4):
            expected = kept * (held["label"][index] == value) + (1 - kept) * (held["label"][partner] == value)
            assert abs(float(result["label"][index, value]) - float(expected)) < 1e-6


def test_mixed_images_can_be_mixed_again():
    held = cutmix(4)(mixup(4)(batch(), generator(1)), generator(2))
    close(held["label"].sum(1).double(), torch.ones(6, dtype=torch.float64).float().double())
    assert held["label"].shape == (6, 4)


EVERY = {
    "flip": flip(),
    "shift": shift(2),
    "shift reflected": shift(2, "reflect"),
    "rotate": rotate(20, zoom=0.2),
    "resized_crop": resized_crop(),
    "colour": colour(),
    "erase": erase(),
    "mixup": mixup(4),
    "cutmix": cutmix(4),
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_type_shape_range_and_input_are_kept_and_the_generator_decides(name, dtype, channels):
    held = batch(16, dtype, channels)
    before = held["image"].clone()
    one, other = EVERY[name](held, generator(3)), EVERY[name](held, generator(3))
    assert torch.equal(held["image"], before)
    assert one["image"].dtype == dtype
    assert one["image"].shape == before.shape
    assert one["image"].min() >= 0
    assert one["image"].max() <= (255 if dtype == torch.uint8 else 1)
    for key in one:
        assert torch.equal(one[key], other[key])
    if (name, channels) != ("colour", 1):
        assert not torch.equal(EVERY[name](held, generator(4))["image"], one["image"])


@pytest.mark.parametrize("name", EVERY)
def test_uint8_is_the_rounded_float(name):
    held = batch(16, torch.uint8)
    scaled = EVERY[name]({**held, "image": held["image"].double() / 255}, generator(3))["image"] * 255
    assert (EVERY[name](held, generator(3))["image"].double() - scaled).abs().max() <= 0.501


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: flip(1.2), "probability=1.2"),
        (lambda: shift(-1), "pixels=-1"),
        (lambda: rotate(10, zoom=1.0), "zoom=1.0"),
        (lambda: resized_crop(0.0), "smallest=0.0"),
        (lambda: resized_crop(ratio=0.5), "ratio=0.5"),
        (lambda: colour(contrast=2.0), "contrast=2.0"),
        (lambda: erase(fraction=1.5), "fraction=1.5"),
        (lambda: mixup(10, alpha=0.0), "alpha=0.0"),
        (lambda: cutmix(10, alpha=-1.0), "alpha=-1.0"),
    ],
)
def test_what_cannot_be_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_scatter_turns_scales_and_moves_each_pixel_as_defined():
    images, size = batch(), 12
    made = scatter(size, degrees=40, smallest=0.6, largest=1.5)(images, generator(5))["image"]
    random = generator(5)
    angle = rand(random, (6,), -math.radians(40), math.radians(40))
    scale, right, down = rand(random, (6,), 0.6, 1.5), rand(random, (6,), -1, 1), rand(random, (6,), -1, 1)
    naive = torch.zeros_like(made)
    for b in range(6):
        a, s = float(angle[b].double()), float(scale[b])
        to_right = float(right[b]) * max(0, size - s * WIDTH) / 2  # pixels from the centre of the square
        to_down = float(down[b]) * max(0, size - s * HEIGHT) / 2
        for i, j in product(range(size), repeat=2):
            y, x = i - (size - 1) / 2 - to_down, j - (size - 1) / 2 - to_right
            across, along = (math.cos(a) * x - math.sin(a) * y) / s, (math.sin(a) * x + math.cos(a) * y) / s
            for c in range(3):
                place = along + (HEIGHT - 1) / 2, across + (WIDTH - 1) / 2
                naive[b, c, i, j] = bilinear(images["image"][b, c], *place, border=False)
    torch.testing.assert_close(made, naive, rtol=0, atol=1e-5)  # the random numbers are drawn in single precision


def test_scatter_puts_images_whole_and_as_bright_as_they_were_on_a_larger_square():
    image = torch.randint(1, 256, (64, 1, 7, 7), dtype=torch.uint8)
    placed = scatter(20)({"image": image, "label": torch.arange(64)}, generator(1))
    assert placed["image"].shape == (64, 1, 20, 20)
    assert placed["image"].dtype == torch.uint8
    total, before = placed["image"].double().sum((1, 2, 3)), image.double().sum((1, 2, 3))
    assert ((total - before).abs() / before).max() < 0.05
    mass = placed["image"].double().sum(1)
    row = (mass.sum(2) * torch.arange(20)).sum(1) / mass.sum((1, 2))
    assert row.min() < 5  # centres are from 3 to 16
    assert row.max() > 14


def test_scatter_turns_and_scales_as_it_says():
    image = torch.zeros(200, 1, 9, 9)
    image[:, :, 4] = 1  # a bar
    placed = scatter(30, degrees=45, smallest=0.5, largest=2.0)({"image": image}, generator(2))["image"][:, 0].double()
    y, x = torch.meshgrid(torch.arange(30.0).double(), torch.arange(30.0).double(), indexing="ij")
    mass = placed.sum((1, 2))
    dx = x - ((placed * x).sum((1, 2)) / mass)[:, None, None]
    dy = y - ((placed * y).sum((1, 2)) / mass)[:, None, None]
    xx, yy, xy = ((placed * a * b).sum((1, 2)) / mass for a, b in ((dx, dx), (dy, dy), (dx, dy)))
    angle = torch.atan2(2 * xy, xx - yy).rad2deg() / 2
    assert 40 < angle.max() < 50
    assert -50 < angle.min() < -40
    length = (12 * torch.maximum(xx, yy)).sqrt()  # of a bar along the longer axis
    assert length.min() < 5.5
    assert length.max() > 15


def test_clutter_is_pieces_of_the_images_and_hides_nothing():
    image = torch.full((8, 2, 10, 10), 100, dtype=torch.uint8)
    clean = scatter(40)({"image": image}, generator(3))["image"]
    dirty = scatter(40, clutter=5)({"image": image}, generator(3))["image"]
    assert (dirty >= clean).all()
    added = ((dirty == 100) & (clean == 0)).flatten(2).sum(2)
    assert (added > 36).all()
    assert (added <= 5 * 36 + 40).all()  # five pieces, and the soft border of the image itself


def test_scatter_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="smallest=2"):
        scatter(20, smallest=2, largest=1)
    with pytest.raises(ValueError, match="size=5, image: 10x10, expected at least 6"):
        scatter(5, clutter=1)({"image": torch.zeros(1, 1, 10, 10)}, generator(0))

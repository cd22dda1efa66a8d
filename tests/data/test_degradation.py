"""Degradation against its definition, pixel by pixel in loops, with the same random numbers drawn in the same order."""

import math
from io import BytesIO
from itertools import product

import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor

from thalweg.data.degradation import PHOTONS, READ, blur, cosines, downscale, grey, jpeg, low_light, noise, steps
from thalweg.data.streams import generator

HEIGHT, WIDTH = 9, 13
EVERY = {"noise": noise(0.1, 0.3), "low_light": low_light(0.02, 0.2), "blur": blur(0.5, 2.5), "jpeg": jpeg(20),
         "downscale": downscale(2), "grey": grey()}  # fmt: skip


def batch(dtype: torch.dtype = torch.float64, count: int = 3) -> dict[str, Tensor]:
    image = torch.rand(count, 3, HEIGHT, WIDTH, generator=generator(11), dtype=torch.float64)
    image = image.to(dtype) if dtype.is_floating_point else (image * 255).round().to(dtype)
    return {"image": image, "label": torch.arange(count)}


def normal(random, image: Tensor) -> Tensor:
    return torch.randn(image.shape, generator=random, dtype=torch.float64)


def drawn(random, low: float, high: float, count: int) -> list[float]:
    return [low + (high - low) * float(x) for x in torch.rand(count, generator=random, dtype=torch.float64)]


def photograph() -> Tensor:
    """Part of a photograph that scikit-learn carries, with edges, leaves and flat sky.   uint8 [1 3 181 203]"""
    from sklearn.datasets import load_sample_images

    return torch.from_numpy(load_sample_images().images[0][60:241, 250:453].copy()).movedim(-1, 0)[None]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_the_clean_image_is_the_target_and_the_degraded_one_has_its_type_and_range(name, dtype):
    held = batch(dtype)
    clean = held["image"].clone()
    made = EVERY[name](held, generator(3))
    assert torch.equal(made["target"], clean)
    assert torch.equal(held["image"], clean)
    assert torch.equal(made["label"], held["label"])
    assert made["image"].dtype == dtype
    assert made["image"].shape == clean.shape
    assert not torch.equal(made["image"], clean)
    assert made["image"].min() >= 0
    assert made["image"].max() <= (1 if dtype.is_floating_point else 255)
    assert torch.equal(EVERY[name](held, generator(3))["image"], made["image"])


@pytest.mark.parametrize("name", EVERY)
def test_bytes_are_the_rounded_numbers(name):
    held = batch(torch.uint8)
    exact = EVERY[name]({"image": held["image"].float() / 255}, generator(3))["image"] * 255
    assert (EVERY[name](held, generator(3))["image"] - exact).abs().max() <= 0.501


def test_noise_is_added_and_each_image_has_its_own_strength():
    held, random = batch(), generator(5)
    made = noise(0.05, 0.4)(held, generator(5))["image"]
    sigma = drawn(random, 0.05, 0.4, 3)
    grain = normal(random, made)
    for b in range(3):
        expected = (held["image"][b] + sigma[b] * grain[b]).clamp(0, 1)
        torch.testing.assert_close(made[b], expected, rtol=0, atol=1e-10)
    middle = {"image": torch.full((1, 3, 200, 200), 128, dtype=torch.uint8)}
    deviation = noise(25 / 255)(middle, generator(1))["image"].float().std()
    assert 24.8 < deviation < 25.2


def test_low_light_counts_few_photons_in_linear_light():
    held, random = batch(), generator(5)
    made = low_light(0.03, 0.3)(held, generator(5))["image"]
    exposure = drawn(random, 0.03, 0.3, 3)
    shot, read = normal(random, made), normal(random, made)
    for b, c, i, j in product(range(3), range(3), range(HEIGHT), range(WIDTH)):
        light = exposure[b] * float(held["image"][b, c, i, j]) ** 2.2
        light += math.sqrt(light / PHOTONS) * float(shot[b, c, i, j]) + READ * float(read[b, c, i, j])
        assert abs(float(made[b, c, i, j]) - max(light, 0) ** (1 / 2.2)) < 1e-10


def test_blur_is_the_mean_over_a_disc_and_mirrors_at_the_border():
    held, random = batch(), generator(5)
    made = blur(0.8, 2.6)(held, generator(5))["image"]
    radius = drawn(random, 0.8, 2.6, 3)

    def mirrored(place: int, size: int) -> int:
        return -place if place < 0 else 2 * (size - 1) - place if place >= size else place

    for b, i, j in product(range(3), range(HEIGHT), range(WIDTH)):
        total, weights = torch.zeros(3, dtype=torch.float64), 0.0
        for u, v in product(range(-3, 4), repeat=2):
            weight = min(max(radius[b] + 0.5 - math.sqrt(u * u + v * v), 0.0), 1.0)
            total += weight * held["image"][b, :, mirrored(i + u, HEIGHT), mirrored(j + v, WIDTH)]
            weights += weight
        torch.testing.assert_close(made[b, :, i, j], total / weights, rtol=0, atol=1e-10)


def test_grey_is_the_luminance_in_all_channels():
    held = batch()
    made = grey()(held, generator(0))["image"]
    red, green, blue = held["image"].unbind(1)
    for channel in made.unbind(1):
        torch.testing.assert_close(channel, 0.299 * red + 0.587 * green + 0.114 * blue, rtol=0, atol=1e-10)


@pytest.mark.parametrize("factor", [2, 3])
def test_downscale_is_pillows_bicubic_there_and_back(factor):
    image = photograph()
    made = downscale(factor)({"image": image}, generator(0))["image"][0]
    whole = Image.fromarray(image[0].movedim(0, -1).numpy())
    small = whole.resize((round(whole.width / factor), round(whole.height / factor)), Image.Resampling.BICUBIC)
    theirs = torch.from_numpy(numpy.array(small.resize(whole.size, Image.Resampling.BICUBIC))).movedim(-1, 0)
    difference = (made.int() - theirs.int()).abs()
    assert difference.max() <= 3
    assert difference.float().mean() < 0.3  # Pillow rounds between rows and columns too


def saved(image: Tensor, quality: int) -> tuple[Tensor, Image.Image]:
    file = BytesIO()
    Image.fromarray(image[0].movedim(0, -1).squeeze(-1).numpy()).save(file, "JPEG", quality=quality)
    read = Image.open(file)
    pixels = torch.from_numpy(numpy.array(read)).reshape(*image.shape[2:], -1).movedim(-1, 0)
    return pixels, read


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 99, 100])
def test_the_steps_are_those_of_a_jpeg_file(quality):
    tables = saved(photograph(), quality)[1].quantization
    ours = steps(quality)
    for number, table in tables.items():
        assert torch.equal(ours[number].flatten(), torch.tensor(table).float())


def psnr(one: Tensor, other: Tensor) -> float:
    return float(10 * torch.log10(255**2 / (one.double() - other.double()).square().mean()))


@pytest.mark.parametrize("quality", [5, 10, 50, 90])
def test_jpeg_does_to_a_photograph_what_pillow_does(quality):
    image = photograph()  # its extent is no multiple of 16
    ours, theirs = jpeg(quality)({"image": image}, generator(0))["image"][0], saved(image, quality)[0]
    assert psnr(ours, theirs) > 40  # they round alike but for ties
    assert abs(psnr(ours, image[0]) - psnr(theirs, image[0])) < 0.05
    assert (ours.int() - theirs.int()).abs().float().mean() < 0.8


def test_jpeg_of_a_grey_image_is_luminance_alone():
    image = photograph()[:, :1]
    ours, theirs = jpeg(30)({"image": image}, generator(0))["image"][0], saved(image, 30)[0]
    assert psnr(ours, theirs) > 45


def test_the_cosine_transform_is_its_formula():
    for k, n in product(range(8), repeat=2):
        scale = math.sqrt(1 / 8) if k == 0 else math.sqrt(2 / 8)
        assert float(cosines()[k, n]) == pytest.approx(scale * math.cos(math.pi * (2 * n + 1) * k / 16), abs=1e-6)
    torch.testing.assert_close(cosines() @ cosines().T, torch.eye(8), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise(-0.1), "sigma=-0.1, most=None: expected 0 <= sigma <= most <= 1"),
        (lambda: noise(0.3, 0.2), "sigma=0.3, most=0.2"),
        (lambda: noise(25.0), "sigma=25"),
        (lambda: low_light(0.5, 2.0), "exposure=0.5, most=2"),
        (lambda: blur(-1.0), "radius=-1"),
        (lambda: jpeg(0), "quality=0: expected a whole number from 1 to 100"),
        (lambda: downscale(0), "factor=0: expected at least 1"),
    ],
)
def test_what_cannot_be_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()

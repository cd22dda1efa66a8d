"""Degradation of whole batches of clean images at once, random numbers from the stream's generator.

Each function returns (batch, generator) -> batch: the clean image becomes "target", its degraded form "image". Images are
uint8, or float in [0, 1], and stay in their type and range, as in a file.   LBDL 6.1
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import conv2d, interpolate, pad

from thalweg.data.streams import Augment
from thalweg.vocabulary import Batch

LUMINANCE = (0.299, 0.587, 0.114)
PHOTONS = 2000  # that a white pixel counts in a well lit photograph
READ = 0.002  # deviation of what the electronics add to the light, on the scale [0, 1]


def _degraded(batch: Batch, change) -> Batch:
    """The batch with its image as "target" and change(image in [0, 1]) as "image"."""
    clean = batch["image"]
    if clean.is_floating_point():
        image = change(clean).clamp(0, 1).to(clean.dtype)
    else:
        image = (change(clean.float() / 255) * 255).round().clamp(0, 255).to(clean.dtype)
    return {**batch, "image": image, "target": clean}


def _normal(image: Tensor, generator: Generator) -> Tensor:
    return torch.randn(image.shape, generator=generator, dtype=image.dtype)


def _drawn(image: Tensor, least: float, most: float | None, generator: Generator) -> Tensor:
    """A number an image, from least to most, or least for all.   [batch 1 1 1]"""
    spread = (least if most is None else most) - least
    return least + spread * torch.rand(len(image), 1, 1, 1, generator=generator, dtype=image.dtype)


def _check(name: str, least: float, most: float | None, limit: float = math.inf) -> None:
    if not 0 <= least <= (least if most is None else most) <= limit:
        raise ValueError(f"{name}={least}, most={most}: expected 0 <= {name} <= most <= {limit}")


def noise(sigma: float = 25 / 255, most: float | None = None) -> Augment:
    """Grain: y = x + sigma n, n standard normal in every pixel and channel.

    sigma: deviation on the scale [0, 1].   most: where given, each image has its own, from sigma to most.
    """
    _check("sigma", sigma, most, 1.0)

    def change(batch: Batch, generator: Generator) -> Batch:
        def grain(x: Tensor) -> Tensor:
            return x + _drawn(x, sigma, most, generator) * _normal(x, generator)

        return _degraded(batch, grain)

    return change


def low_light(exposure: float = 0.05, most: float | None = None) -> Augment:
    """A photograph taken in too little light: dark, and grainy because few photons are counted.

    y = z^(1 / 2.2), z = e l + sqrt(e l / PHOTONS) n + READ m, l = x^2.2 the light; n, m standard normal, z not below 0.
    exposure: the share e of the light that a good photograph needs.   most: where given, each image has its own, up to it.
    """
    _check("exposure", exposure, most, 1.0)

    def change(batch: Batch, generator: Generator) -> Batch:
        def darken(x: Tensor) -> Tensor:
            light = _drawn(x, exposure, most, generator) * x**2.2
            light = light + (light / PHOTONS).sqrt() * _normal(x, generator) + READ * _normal(x, generator)
            return light.clamp(min=0) ** (1 / 2.2)

        return _degraded(batch, darken)

    return change


def blur(radius: float = 3.0, most: float | None = None) -> Augment:
    """Out of focus: every point becomes a disc of that radius in pixels; images are mirrored at their borders.

    y[i, j] = sum of k[u, v] x[i + u, j + v], k = clamp(radius + 1/2 - sqrt(u^2 + v^2), 0, 1) over its sum.
    most: where given, each image has its own radius, from radius to most.
    """
    _check("radius", radius, most)
    reach = math.ceil(radius if most is None else most)
    places = torch.arange(-reach, reach + 1, dtype=torch.float64)
    distance = torch.hypot(places[:, None], places)

    def change(batch: Batch, generator: Generator) -> Batch:
        def defocus(x: Tensor) -> Tensor:
            disc = (_drawn(x, radius, most, generator) + 0.5 - distance.to(x)).clamp(0, 1)  # [batch 1 side side]
            disc = disc / disc.sum((2, 3), keepdim=True)
            planes = pad(x, (reach,) * 4, mode="reflect").transpose(0, 1)  # [channel batch ...]: a filter a group
            return conv2d(planes, disc, groups=len(x)).transpose(0, 1)

        return _degraded(batch, defocus)

    return change


def downscale(factor: int = 2) -> Augment:
    """Made so many times smaller and large again, bicubically both times: what is finer than the small image is lost."""
    if factor < 1:
        raise ValueError(f"factor={factor}: expected at least 1")

    def change(batch: Batch, generator: Generator) -> Batch:
        def reduce(x: Tensor) -> Tensor:
            small = [max(1, round(side / factor)) for side in x.shape[-2:]]
            x, size = interpolate(x, small, mode="bicubic", antialias=True), x.shape[-2:]
            x = (x.clamp(0, 1) * 255).round() / 255  # a file holds bytes
            return interpolate(x, size, mode="bicubic", antialias=True)  # the cubic of -1/2, as everywhere else

        return _degraded(batch, reduce)

    return change


def grey() -> Augment:
    """The luminance 0.299 R + 0.587 G + 0.114 B in all three channels."""

    def change(batch: Batch, generator: Generator) -> Batch:
        def fade(x: Tensor) -> Tensor:
            return torch.einsum("bchw,c->bhw", x, x.new_tensor(LUMINANCE))[:, None].expand_as(x)

        return _degraded(batch, fade)

    return change


# Steps that luminance and colour are rounded to at quality 50, the low frequencies first: ITU-T T.81, tables K.1 and K.2.
STEPS = (
    ((16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
     (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
     (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99)),
    ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99)),  # 99 beyond
)  # fmt: skip


def steps(quality: int) -> Tensor:
    """The steps of luminance and colour at a quality of 1 to 100, as the Independent JPEG Group scales them.   [2 8 8]"""
    if not 1 <= quality <= 100:
        raise ValueError(f"quality={quality}: expected a whole number from 1 to 100")
    table = torch.full((2, 8, 8), 99.0)
    table[0] = torch.tensor(STEPS[0])
    table[1, :4, :4] = torch.tensor(STEPS[1])
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((table * scale + 50) / 100).floor().clamp(1, 255)


def cosines() -> Tensor:
    """The discrete cosine transform of eight numbers: C[k, n] = a_k cos(pi (2 n + 1) k / 16), C C' = 1.   [8 8]"""
    k, n = torch.arange(8.0)[:, None], torch.arange(8.0)
    matrix = (math.pi * (2 * n + 1) * k / 16).cos() / 2
    matrix[0] /= math.sqrt(2)
    return matrix


def jpeg(quality: int = 10) -> Augment:
    """Saved as JPEG and read again: blocks of 8x8 lose their weak frequencies, colour has half the extent (4:2:0).

    Of every block X of luminance and colour, 128 taken off: C' (round(C X C' / Q) Q) C, Q = steps(quality). Images of
    three channels; images of one are all luminance.   Wallace 1991, CACM 34(4); ITU-T T.81.
    """
    table, transform = steps(quality), cosines()

    def compress(planes: Tensor, step: Tensor) -> Tensor:
        """planes: [... height width], extents whole multiples of 8, 0 to 255"""
        block = (planes - 128).unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).transpose(-3, -2)  # [... row column 8 8]
        kept = (transform @ block @ transform.T / step).round() * step
        block = transform.T @ kept @ transform
        return (block.transpose(-3, -2).flatten(-4, -3).flatten(-2) + 128).round().clamp(0, 255)

    def save(x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = pad((x.float() * 255).round(), (0, -width % 16, 0, -height % 16), mode="replicate")
        if x.shape[1] == 1:
            return compress(x, table[0])[..., :height, :width] / 255
        luminance = torch.einsum("bchw,c->bhw", x, x.new_tensor(LUMINANCE))[:, None]
        colour = (x[:, [2, 0]] - luminance) / x.new_tensor([1.772, 1.402])[:, None, None] + 128  # blue, red
        colour = compress(interpolate(colour, scale_factor=0.5, mode="area").round(), table[1])
        blue, red = interpolate(colour - 128, scale_factor=2.0, mode="bilinear").split(1, 1)
        luminance = compress(luminance.round(), table[0])
        green = luminance - (0.114 * 1.772 * blue + 0.299 * 1.402 * red) / 0.587
        return torch.cat([luminance + 1.402 * red, green, luminance + 1.772 * blue], 1)[..., :height, :width] / 255

    def change(batch: Batch, generator: Generator) -> Batch:
        return _degraded(batch, save)

    return change

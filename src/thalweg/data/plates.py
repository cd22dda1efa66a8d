"""Drawn licence plates of several countries' looks, and what a camera at the roadside makes of them.   LBDL 1.1

No letters I, O and Q, as on the plates of most countries: they look like 1 and 0.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Generator, Tensor
from torch.nn.functional import grid_sample, pad
from torch.nn.utils.rnn import pad_sequence

from thalweg.data.degradation import blur, noise
from thalweg.data.streams import Augment, Stream, generator
from thalweg.data.text import Characters
from thalweg.vocabulary import Batch

ALPHABET = "0123456789ABCDEFGHJKLMNPRSTUVWXYZ"
EXTENT = (48, 192)  # height and width of a drawing, in pixels; the plate is in its middle
FONTS = (
    "DejaVuSans-Bold",
    "DejaVuSansMono-Bold",
    "DejaVuSans",
    "DejaVuSerif-Bold",
    "STIXGeneralBol",
)  # that matplotlib carries


class Layout(NamedTuple):
    """What is on a plate: pattern (L a letter, D a digit, the rest is printed and not read), colours, what is beside.

    strip: colour of a band at its left, or None.   caption: whether small words stand above and below.
    """

    pattern: str
    ground: tuple[int, int, int]
    ink: tuple[int, int, int]
    strip: tuple[int, int, int] | None = None
    caption: bool = False


LAYOUTS = (
    Layout("LL-DDD-LL", (238, 238, 234), (20, 20, 24), strip=(30, 60, 160)),
    Layout("LL LL DDD", (236, 236, 230), (18, 18, 18), strip=(30, 60, 160)),
    Layout("LLDD LLL", (240, 200, 40), (16, 16, 16)),
    Layout("LL·DDDDD", (24, 58, 150), (240, 240, 240)),
    Layout("LL·DDDDDL", (120, 200, 150), (16, 20, 16)),
    Layout("DLLLDDD", (240, 240, 236), (40, 50, 130), caption=True),
    Layout("LLL DDDD", (214, 226, 240), (130, 24, 30), caption=True),
    Layout("DDD LLL", (30, 34, 38), (232, 232, 226)),
)


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf"), size)


def draw_plate(text: str, layout: Layout, font: str = FONTS[0], behind: tuple[int, int, int] = (60, 60, 66)) -> Tensor:
    """A clean plate, uint8 [3 height width].   text: as long as the letters and digits of the pattern; behind: the car's colour

    ValueError for another length.
    """
    read = [place for place, sign in enumerate(layout.pattern) if sign in "LD"]
    if len(text) != len(read):
        raise ValueError(f"text={text!r}: expected {len(read)} symbols, for {layout.pattern}")
    signs = list(layout.pattern)
    for place, symbol in zip(read, text, strict=True):
        signs[place] = symbol
    height, width = EXTENT
    canvas = Image.new("RGB", (width, height), behind)
    draw = ImageDraw.Draw(canvas)
    draw.rounded_rectangle((4, 4, width - 5, height - 5), 4, layout.ground, layout.ink, 1)
    left = 8
    if layout.strip:
        draw.rounded_rectangle((5, 5, 18, height - 6), 3, layout.strip)
        left = 20
    if layout.caption:
        for place, words in ((4, "STATE OF THALWEG"), (height - 11, "DOWN THE VALLEY")):
            draw.text((width / 2, place), words, layout.ink, _font(FONTS[0], 6), "ma")
    tall = 20 if layout.caption else 27
    size = _size(font, tall)
    spaces = [_font(font, size).getlength(sign) for sign in signs]
    room = width - 8 - left
    step = (room - sum(spaces)) / len(signs)  # where letters are wide they move together
    if step < -1:
        size = max(8, int(size * (room + len(signs)) / sum(spaces)))
        spaces = [_font(font, size).getlength(sign) for sign in signs]
        step = (room - sum(spaces)) / len(signs)
    at, step = left + max(0.0, room - sum(spaces) - 6 * len(signs)) / 2, min(step, 6.0)
    for sign, space in zip(signs, spaces, strict=True):
        draw.text((at + step / 2, (height + tall) / 2), sign, layout.ink, _font(font, size), "ls")
        at += space + step
    return torch.from_numpy(numpy.array(canvas)).movedim(-1, 0)


@cache
def _size(font: str, tall: int) -> int:
    """The size in which capitals of a font are so many pixels high."""
    _, top, _, bottom = _font(font, 100).getbbox("H", anchor="ls")
    return round(100 * tall / (bottom - top))


def plate(number: int, seed: int = 0) -> tuple[Tensor, str]:
    """A random plate and what is on it: a function of the two numbers."""
    random = generator(seed, number)

    def chosen(among: Sequence[Any]) -> Any:
        return among[int(torch.randint(len(among), (), generator=random))]

    layout = chosen(LAYOUTS)
    letters, digits = ALPHABET[10:], ALPHABET[:10]
    text = "".join(chosen(letters if sign == "L" else digits) for sign in layout.pattern if sign in "LD")
    behind: Any = tuple(torch.randint(20, 220, (3,), generator=random).tolist())
    return draw_plate(text, layout, chosen(FONTS), behind), text


class Plates(Stream):
    """Batches of plates, each drawn when it is asked for: example n is a function of the seed and n.

    image: uint8 [batch 3 height width].   tokens: [batch time], 1 + the place of each symbol in ALPHABET, 0 behind the end.
    """

    def __init__(self, size: int, batch_size: int, seed: int = 0, *, shuffle: bool = False, augment: Sequence[Augment] = ()):
        super().__init__(size, batch_size, shuffle=shuffle, augment=augment)
        self.drawn_with = seed

    def fetch(self, indices: Tensor) -> Batch:
        images, texts = zip(*(plate(index, self.drawn_with) for index in indices.tolist()), strict=True)
        return {"image": torch.stack(images), "tokens": symbols(texts, ALPHABET)}


def symbols(texts: Sequence[str], alphabet: str) -> Tensor:
    """1 + the place of each symbol in the alphabet, [text time], 0 behind the end.   ValueError for a strange symbol."""
    characters = Characters(alphabet)
    return pad_sequence([1 + characters.encode(text) for text in texts], batch_first=True)


def homography(source: Tensor, target: Tensor) -> Tensor:
    """The projection of the plane that takes four points to four others: [x' y' 1] ~ H [x y 1].   [batch 4 2] -> [batch 3 3]

    A pair of points gives two equations, x' (g x + h y + 1) = a x + b y + c and that of y'; eight give all but the scale.
    """
    (x, y), (u, v) = source.unbind(-1), target.unbind(-1)
    one, none = torch.ones_like(x), torch.zeros_like(x)
    rows = torch.cat([torch.stack([x, y, one, none, none, none, -u * x, -u * y], -1),
                      torch.stack([none, none, none, x, y, one, -v * x, -v * y], -1)], 1)  # fmt: skip
    found = torch.linalg.solve(rows, torch.cat([u, v], 1))
    return torch.cat([found, torch.ones_like(found[:, :1])], 1).unflatten(1, (3, 3))


def seen_from(image: Tensor, corners: Tensor, size: Sequence[int]) -> Tensor:
    """What a flat image looks like from elsewhere: its points `corners` become the corners of an image of `size`.

    image: [batch channel height width] float.   corners: [batch 4 2], x and y, in turn top left, top right, bottom left, bottom
    right; -1 to 1 over the image.   size: [height width].   Outside is what is at the border.
    """
    square = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]).expand(len(image), -1, -1)
    down, right = (torch.arange(0.5, side) * 2 / side - 1 for side in size)
    place = torch.stack([right.expand(*size), down[:, None].expand(*size)], -1)
    seen = pad(place, (0, 1), value=1.0).flatten(0, 1) @ homography(square, corners).mT  # [batch pixel 3]
    grid = (seen[..., :2] / seen[..., 2:]).unflatten(1, tuple(size))
    return grid_sample(image, grid, padding_mode="border", align_corners=False)


def photographed(size: Sequence[int] = (32, 128), tilt: float = 0.1, dark: float = 0.4, defocus: float = 1.0,
                 grain: float = 0.05) -> Augment:  # fmt: skip
    """Plates as a camera at the roadside sees them: from the side, in the light there is, out of focus, with grain.

    size: [height width] of the photograph.   tilt: how far each corner moves at most, in extents of the plate's half.
    dark: the least share of the light; it changes across the image, and the edge of a shadow may cross it.
    defocus: largest radius of the disc that a point becomes, in pixels.   grain: largest deviation of the noise.
    """
    soften, roughen = blur(0.0, defocus), noise(0.0, grain)

    def change(batch: Batch, random: Generator) -> Batch:
        count = len(batch["image"])

        def drawn(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(count, *shape, generator=random)

        edge = torch.tensor([[-0.96, -0.9], [0.96, -0.9], [-0.96, 0.9], [0.96, 0.9]])
        corners = edge + drawn(-tilt, tilt, 4, 2) * torch.tensor([0.5, 1.0])
        image = seen_from(batch["image"].float() / 255, corners, size)
        down, right = (torch.linspace(-1, 1, side) for side in size)
        angle, place = drawn(0, 2 * torch.pi, 1, 1), drawn(-1, 1, 1, 1)
        across = angle.cos() * right + angle.sin() * down[:, None]  # [batch height width]
        light = drawn(dark, 1.1, 1, 1) * (1 + 0.35 * drawn(-1, 1, 1, 1) * across)
        shadow = torch.where(drawn(0, 1, 1, 1) < 0.3, drawn(0.45, 0.9, 1, 1), 1.0)
        light = light * torch.where(across > place, shadow, 1.0)
        tint = drawn(0.9, 1.1, 3, 1, 1)
        lit = {"image": (image * light[:, None] * tint).clamp(0, 1)}
        seen = roughen(soften(lit, random), random)["image"]
        return {**batch, "image": (seen * 255).round().byte()}

    return change

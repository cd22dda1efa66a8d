"""Any image file becomes the pixels that a person sees, or an error that says why not."""

import struct
import zlib
from contextlib import suppress
from io import BytesIO

import numpy
import pytest
import torch
from PIL import Image, ImageDraw

from thalweg.data.images import PIXELS, UnreadableImage, read_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters(width: int = 48, height: int = 32) -> Image.Image:
    """Red, green, blue and white, from the top left clockwise to the bottom left."""
    image = Image.new("RGB", (width, height), RED)
    draw = ImageDraw.Draw(image)
    draw.rectangle((width // 2, 0, width, height // 2 - 1), fill=GREEN)
    draw.rectangle((width // 2, height // 2, width, height), fill=BLUE)
    draw.rectangle((0, height // 2, width // 2 - 1, height), fill=WHITE)
    return image


def written(image: Image.Image, format: str, **how) -> bytes:
    content = BytesIO()
    image.save(content, format, **how)
    return content.getvalue()


def corners(pixels: torch.Tensor) -> list[tuple[int, ...]]:
    """The colours a quarter of the way in from the corners, clockwise from the top left."""
    height, width = pixels.shape[1:]
    places = [(1, 1), (1, 3), (3, 3), (3, 1)]
    return [tuple(pixels[:, height * y // 4, width * x // 4].tolist()) for y, x in places]


def near(one, other, tolerance: int) -> bool:
    return all(abs(a - b) <= tolerance for pair in zip(one, other, strict=True) for a, b in zip(*pair, strict=True))


@pytest.mark.parametrize(
    ("format", "how", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 90}, 8),
        ("JPEG", {"quality": 95}, 8),
        ("JPEG", {"quality": 95, "progressive": True}, 8),
        ("GIF", {}, 0),
    ],
)
def test_every_format_gives_the_same_picture(tmp_path, format, how, tolerance):
    content = written(quarters(), format, **how)
    (tmp_path / "picture").write_bytes(content)
    for source in (content, tmp_path / "picture", str(tmp_path / "picture")):
        pixels = read_image(source)
        assert pixels.shape == (3, 32, 48)
        assert pixels.dtype == torch.uint8
        assert pixels.is_contiguous()
        assert near(corners(pixels), [RED, GREEN, BLUE, WHITE], tolerance)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "LA", "RGBA", "YCbCr"])
def test_every_mode_becomes_red_green_and_blue(mode):
    format = {"CMYK": "TIFF", "YCbCr": "TIFF"}.get(mode, "PNG")
    pixels = read_image(written(quarters().convert(mode), format))
    assert pixels.shape == (3, 32, 48)
    grey = {"L": [76, 150, 29, 255], "LA": [76, 150, 29, 255], "1": None}
    if mode in grey:
        assert torch.equal(pixels[0], pixels[1])
        assert torch.equal(pixels[0], pixels[2])
        if grey[mode]:
            assert [colour[0] for colour in corners(pixels)] == grey[mode]
    else:
        assert near(corners(pixels), [RED, GREEN, BLUE, WHITE], 2)


def test_an_inverted_cmyk_jpeg_as_photo_programs_write_it_is_not_negative():
    pixels = read_image(written(quarters().convert("CMYK"), "JPEG", quality=95))
    assert near(corners(pixels), [RED, GREEN, BLUE, WHITE], 10)


def test_sixteen_bits_become_eight_by_their_share_of_the_range():
    values = numpy.array([[0, 128, 257, 32768, 65535]], numpy.uint16)
    for format in ("PNG", "TIFF"):
        pixels = read_image(written(Image.fromarray(values), format))
        assert pixels[0].tolist() == pixels[2].tolist() == [[0, 0, 1, 128, 255]]


def test_sixteen_bit_colour_too():
    def chunk(name: bytes, held: bytes) -> bytes:
        return struct.pack(">I", len(held)) + name + held + struct.pack(">I", zlib.crc32(name + held))

    row = b"\0" + struct.pack(">HHH", 65535, 32768, 0) * 2
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 2)) + chunk(b"IEND", b"")
    assert read_image(png)[:, 0, 0].tolist() == [255, 128, 0]


def test_what_is_transparent_lies_on_white():
    image = quarters().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    image.paste((255, 0, 0, 128), (0, 0, 24, 16))
    assert near(corners(read_image(written(image, "PNG"))), [(255, 127, 127), WHITE, WHITE, WHITE], 1)
    palette = quarters().quantize(4)
    red = palette.getpixel((2, 2))
    assert near(corners(read_image(written(palette, "PNG", transparency=red))), [WHITE, GREEN, BLUE, WHITE], 2)
    assert near(corners(read_image(written(quarters(), "PNG", transparency=GREEN))), [RED, WHITE, BLUE, WHITE], 0)


# Orientation n of the EXIF standard: the row zero and column zero of what is stored are these sides of what is seen.
SEEN = {
    1: [RED, GREEN, BLUE, WHITE],
    2: [GREEN, RED, WHITE, BLUE],  # mirrored
    3: [BLUE, WHITE, RED, GREEN],  # half a turn
    4: [WHITE, BLUE, GREEN, RED],  # upside down
    5: [RED, WHITE, BLUE, GREEN],  # mirrored about the diagonal
    6: [WHITE, RED, GREEN, BLUE],  # to be turned clockwise
    7: [BLUE, GREEN, RED, WHITE],
    8: [GREEN, BLUE, WHITE, RED],  # to be turned against the clock
}


@pytest.mark.parametrize("orientation", SEEN)
@pytest.mark.parametrize("size", [None, (20, 20), (18, 30)])
def test_a_photo_is_turned_as_the_camera_was_held(orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = read_image(written(quarters(480, 320), "JPEG", quality=95, exif=exif), size)
    assert pixels.shape[1:] == (size or ((480, 320) if orientation > 4 else (320, 480)))
    assert near(corners(pixels), SEEN[orientation], 8)


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN)]
    for format in ("GIF", "WEBP"):
        pixels = read_image(written(frames[0], format, save_all=True, append_images=frames[1:], lossless=True))
        assert near([tuple(pixels[:, 0, 0].tolist())], [RED], 2)


def test_scaling_while_decoding_is_scaling_afterwards_up_to_rounding():
    noise = torch.nn.functional.interpolate(torch.rand(1, 3, 40, 60), (800, 1200), mode="bicubic").clamp(0, 1)[0]
    content = written(Image.fromarray((noise * 255).byte().movedim(0, -1).numpy()), "JPEG", quality=95)
    small, whole = read_image(content, (64, 64)), read_image(content)
    later = torch.nn.functional.interpolate(whole[None].float(), (64, 64), mode="bilinear", antialias=True)[0]
    assert (small.float() - later).abs().mean() < 1.0
    assert (small.float() - later).abs().max() < 8


def test_the_pixels_are_those_of_the_file_row_by_row():
    values = torch.randint(0, 256, (5, 7, 3), dtype=torch.uint8)
    pixels = read_image(written(Image.fromarray(values.numpy()), "PNG"))
    for row in range(5):
        for column in range(7):
            assert pixels[:, row, column].tolist() == values[row, column].tolist()


def bomb() -> bytes:
    """A PNG of 30,000 x 30,000 pixels by its header alone."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(bytes(1000))
    chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, body))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def large() -> bytes:
    """A real image of a little more pixels than are read, small on disk."""
    return written(Image.new("1", (PIXELS // 9000 + 1, 9000)), "PNG")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"these are words", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (bomb(), "decompression bomb"),
        (large(), "more than 89,478,485"),
        (written(quarters(), "PNG")[:-40], "truncated"),
        (written(quarters(480, 320), "JPEG")[:2000], "truncated"),
        (written(quarters(), "BMP")[:1000], "truncated"),
        (written(quarters(), "WEBP")[:60], "."),
        (written(quarters(), "PNG")[:20], "."),
        (written(Image.fromarray(numpy.ones((4, 4), numpy.float32)), "TIFF"), "32 bits"),
    ],
)
def test_what_cannot_be_read_says_why_and_which(tmp_path, content, reason):
    (tmp_path / "picture.png").write_bytes(content)
    with pytest.raises(UnreadableImage, match=rf"picture\.png: .*{reason}") as raised:
        read_image(tmp_path / "picture.png")
    assert raised.value.reason in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(UnreadableImage, match="the image: "):
        read_image(content, (8, 8))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_flipped_bit_anywhere_is_read_or_refused_but_nothing_else():
    for format in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"):
        content = written(quarters(24, 16), format)
        for place in range(0, len(content), max(1, len(content) // 60)):
            damaged = bytearray(content)
            damaged[place] ^= 0x55
            with suppress(UnreadableImage):
                assert read_image(bytes(damaged), (8, 8)).shape == (3, 8, 8)


def test_a_file_that_is_not_there_is_another_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        read_image(tmp_path / "gone.png")

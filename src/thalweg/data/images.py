"""Image files: any of them to the pixels that a person sees.   D2L 13.1"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
PIXELS = 89_478_485  # a picture of more is taken for a decompression bomb, as Pillow does


class UnreadableImage(ValueError):
    """A file is no image, or a damaged or far too large one; reason says which."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name}: {reason}")
        self.reason = reason


@contextmanager
def opened(name: str, file: Path | BytesIO) -> Iterator[Image.Image]:
    """An image whose header alone was read; whatever goes wrong with it is an UnreadableImage of that name."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels, more than {PIXELS:,}")
            yield image
    except UnidentifiedImageError as error:
        raise UnreadableImage(name, "not an image of a known format") from error
    except Exception as error:  # decoders raise almost anything at damaged files
        raise UnreadableImage(name, str(error) or type(error).__name__) from error


def read_image(source: Path | str | bytes, size: Sequence[int] | None = None) -> Tensor:
    """The pixels of an image file, uint8 [3 height width], red, green and blue, as a person sees it.

    Turned as its EXIF data say; what is transparent lies on white; 16 bits become 8; an animation gives its first frame.
    size: [height width] to scale it to, the whole image, whatever its aspect; large JPEG files are then decoded small.
    UnreadableImage if it is none, is damaged or has more than PIXELS pixels; OSError if the file cannot be read.
    """
    name = "the image" if isinstance(source, bytes) else str(source)
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    if not content:
        raise UnreadableImage(name, "empty")
    with opened(name, BytesIO(content)) as image:
        if size:
            image.draft(None, (2 * max(size), 2 * max(size)))  # twice: so that scaling still averages
        image = _rgb(ImageOps.exif_transpose(image))
        if size:
            image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return torch.from_numpy(numpy.array(image)).movedim(-1, 0).contiguous()


def png(pixels: Tensor, colours: Tensor | None = None) -> bytes:
    """A PNG file of an image, uint8 [channel height width]; or of numbers [height width], which programs read as they are.

    colours: in which numbers below 256 are shown, [number 3] in [0, 1]; larger ones are written as 16 bits of grey.
    """
    if pixels.ndim == 2:
        many = int(pixels.max()) > 255
        image = Image.fromarray(pixels.cpu().numpy().astype(numpy.uint16 if many else numpy.uint8))
        if colours is not None and not many:
            image.putpalette((colours[:256] * 255).round().byte().flatten().tolist())
    else:
        image = Image.fromarray(pixels.expand(3, -1, -1).movedim(0, -1).cpu().numpy())
    written = BytesIO()
    image.save(written, "PNG")
    return written.getvalue()


def upright_extent(path: Path) -> tuple[int, int]:
    """Height and width of an image as a person sees it, by the header of its file; errors as of read_image."""
    with opened(str(path), path) as image:
        turned = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1) >= 5  # PNG's own getexif decodes all pixels
        return (image.width, image.height) if turned else (image.height, image.width)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        raise ValueError("pixels of 32 bits, whose range is not known")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((numpy.asarray(image) / 257).round().astype(numpy.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")

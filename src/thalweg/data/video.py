"""Video files: their pictures in, pictures out to one. PyAV, which decodes and encodes, is imported where it is needed."""

import importlib
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor

VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv")
TICKS = 90_000  # a second, in which times are written


class Video(NamedTuple):
    """What a file says of itself: pictures a second, how many there are (0: it does not say), whether it has sound."""

    rate: Fraction
    frames: int
    sound: bool


def about(path: Path) -> Video:
    """What a video file says of itself.   ImportError without PyAV; ValueError if it is no video; OSError as of any file."""
    with _opened(path) as (_, container, stream):
        return Video(stream.average_rate or Fraction(25), stream.frames, bool(container.streams.audio))


def read_video(path: Path) -> Iterator[tuple[Tensor, float]]:
    """Each picture of a video, uint8 [3 height width], as a person sees it, and when it is shown, in seconds.

    All have the extent of the first. Where the file turns out to be damaged it ends, with a warning; errors as of `about`.
    """
    with _opened(path) as (av, container, stream):
        stream.thread_type, rate, count = "AUTO", stream.average_rate or 25, 0
        extent: dict[str, int] = {}
        try:
            for count, frame in enumerate(container.decode(stream), 1):
                extent = extent or {"width": frame.width, "height": frame.height}
                pixels = numpy.rot90(frame.to_ndarray(format="rgb24", **extent), round(frame.rotation / 90))
                seconds = (count - 1) / float(rate) if frame.time is None else frame.time
                yield torch.from_numpy(pixels.copy()).movedim(-1, 0), seconds
        except av.FFmpegError as error:
            if not count:
                raise ValueError(f"{path}: not a video that can be read ({error.strerror})") from error
            warnings.warn(f"{path}: damaged after {count:,} pictures; the rest is left out", stacklevel=2)
    if not count:
        raise ValueError(f"{path}: a video without a picture")


def write_video(path: Path, frames: Iterable[tuple[Tensor, float]], rate: Fraction) -> None:
    """Pictures, uint8 [3 height width], and when each is shown, in seconds, as a video of H.264 without sound.

    An odd extent grows by a pixel, as H.264 needs it.   rate: pictures a second, about.   The file appears with the first one.
    """
    av, frames = _av(), iter(frames)
    first = next(frames)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        height, width = first[0].shape[1:]
        stream.height, stream.width, stream.pix_fmt = height + height % 2, width + width % 2, "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS)
        for image, seconds in chain([first], frames):
            pixels = numpy.pad(image.movedim(0, -1).numpy(), ((0, height % 2), (0, width % 2), (0, 0)), "edge")
            frame = av.VideoFrame.from_ndarray(numpy.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = round(seconds * TICKS), Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any, Any]]:
    """PyAV, a file that it has opened, and the first stream of pictures in it."""
    av = _av()
    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        if isinstance(error, OSError) and not path.is_file():
            raise
        raise ValueError(f"{path}: not a video that can be read ({error.strerror})") from error
    with container:
        if not container.streams.video:
            raise ValueError(f"{path}: holds no pictures")
        yield av, container, container.streams.video[0]


def _av() -> Any:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise ImportError("videos need av, which is not installed: pip install 'thalweg[video]'") from error

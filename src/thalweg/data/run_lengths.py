"""Masks as COCO writes them: how many pixels are out and in by turns, down the columns, from the first one on.

{"size": [height, width], "counts": [6, 1, 40, 4, ...]}, or the counts as a string: from the fourth on less the one two
before, each in groups of five bits, the lowest first, 32 added where more follow, 48 to all, so that they are letters.
A thing of a photograph takes some hundred letters.   Lin et al. 2014, arXiv:1405.0312.   github.com/cocodataset/cocoapi
"""

from typing import Any

import numpy
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from thalweg.data.images import PIXELS

GROUPS = 7  # of five bits, which hold the 32 bits of COCO's own counts


def encode(mask: Bool[Tensor, "height width"]) -> dict[str, Any]:
    """A mask in COCO's compressed form: size and counts, a string."""
    flat = mask.T.flatten().cpu().numpy()
    turns = numpy.flatnonzero(numpy.diff(flat, prepend=False))  # an image may begin with what is in: no pixels are out
    counts = numpy.diff(turns, prepend=0, append=flat.size)
    return {"size": list(mask.shape), "counts": _written(counts)}


def decode(written: dict[str, Any]) -> Bool[Tensor, "height width"]:
    """The mask that COCO writes as size and counts, whichever form they have.   ValueError as of `counts`."""
    (height, width), runs = written["size"], counts(written)
    return torch.from_numpy(numpy.repeat(numpy.arange(len(runs)) % 2 == 1, runs)).reshape(width, height).T


def counts(written: dict[str, Any]) -> NDArray[numpy.int64]:
    """How many pixels are out and in by turns.

    ValueError if they are no counts, or not of as many pixels as the size says; KeyError if size or counts is not there.
    """
    (height, width), given = (int(side) for side in written["size"]), written["counts"]
    runs = _read(given.encode()) if isinstance(given, str) else numpy.array(given, numpy.int64)
    if min(height, width) < 0 or height * width > PIXELS:
        raise ValueError(f"size={[height, width]}: expected an image of at most {PIXELS:,} pixels")
    if runs.ndim != 1 or ((runs < 0) | (runs > height * width)).any() or runs.sum() != height * width:
        raise ValueError(f"counts: expected runs of {height}x{width} pixels together, given {given!s:.40}")
    return runs


def _written(counts: NDArray[numpy.int64]) -> str:
    value = counts.copy()
    value[3:] -= counts[1:-2]
    size = value ^ (value >> 63)  # bits that tell something, the sign apart
    groups = 1 + (size[:, None] >= 1 << 5 * numpy.arange(1, GROUPS) - 1).sum(1)
    place = numpy.arange(GROUPS)
    letters = (value[:, None] >> 5 * place & 31) + 32 * (place < groups[:, None] - 1) + 48
    return letters[place < groups[:, None]].astype(numpy.uint8).tobytes().decode()


def _read(letters: bytes) -> NDArray[numpy.int64]:
    group = numpy.frombuffer(letters, numpy.uint8).astype(numpy.int64) - 48
    last = numpy.flatnonzero(group < 32)
    if ((group < 0) | (group > 63)).any() or (group[-1:] >= 32).any():
        raise ValueError(f"counts: expected COCO's letters of run lengths, given {letters[:40]!r}")
    if not len(group):
        return group
    first = numpy.concatenate([[0], last[:-1] + 1])
    place = numpy.arange(len(group)) - first.repeat(last - first + 1)
    if place.max() >= GROUPS:
        raise ValueError(f"counts: expected numbers of {GROUPS} letters at most, given {letters[:40]!r}")
    value = numpy.add.reduceat((group & 31) << 5 * place, first)
    value -= numpy.where(group[last] & 16, 32 << 5 * place[last], 0)
    value[1::2], value[2::2] = value[1::2].cumsum(), value[2::2].cumsum()
    return value

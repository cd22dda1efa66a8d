"""Selective search: where on an image something may be, from colour and texture alone, learned from nothing.   D2L 13.8

1. The image falls into small segments: a graph of neighbouring pixels is joined edge by edge, the most similar first, two
   components only if the edge is no steeper than what lies within both: w <= min(I(A) + k / |A|, I(B) + k / |B|), I the
   steepest edge in a component and |A| its pixels.   Felzenszwalb, Huttenlocher 2004, IJCV 59(2)
2. The two most similar neighbouring segments are joined, again and again, until one is left; the box of everything that ever
   was a segment is a proposal. Similarity is the sum of four: of colours and of textures, the part that their histograms
   share; small before large; those before others that fill the box around both.   Uijlings et al. 2013, IJCV 104(2)

It is data, not a model: an image in, boxes out, nothing to learn, and computed once.
"""

import heapq
from collections.abc import Sequence

import numpy
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from thalweg.vocabulary import Batch

Segment = tuple[NDArray, int, tuple[int, int, int, int]]  # histograms of colour and texture, pixels, box


def segments(
    image: UInt8[Tensor, "channel height width"], scale: float = 100.0, least: int = 20, sigma: float = 0.8
) -> Int[Tensor, "height width"]:
    """The number of the segment that each pixel is in, from 0, in the order of the first pixels.

    scale: k; larger makes larger segments.   least: pixels; smaller segments are joined to a neighbour.
    sigma: of the blur before, in pixels.   ValueError for a scale, least or sigma below 0.
    """
    if min(scale, least, sigma) < 0:
        raise ValueError(f"scale={scale}, least={least}, sigma={sigma}: expected none below 0")
    pixels = numpy.stack([gaussian_filter(channel, sigma) for channel in image.numpy().astype(numpy.float32)])
    height, width = pixels.shape[1:]
    number = numpy.arange(height * width).reshape(height, width)
    pairs = [(number[:, :-1], number[:, 1:]), (number[:-1], number[1:]),
             (number[:-1, :-1], number[1:, 1:]), (number[:-1, 1:], number[1:, :-1])]  # fmt: skip
    first, second = (numpy.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    flat = pixels.reshape(len(pixels), -1)
    steep = numpy.sqrt(((flat[:, first] - flat[:, second]) ** 2).sum(0))
    order = numpy.argsort(steep, kind="stable")
    edges = list(zip(first[order].tolist(), second[order].tolist(), steep[order].tolist(), strict=True))
    parent, size, bound = list(range(height * width)), [1] * (height * width), [float(scale)] * (height * width)

    def root(pixel: int) -> int:
        while parent[pixel] != pixel:
            parent[pixel] = pixel = parent[parent[pixel]]
        return pixel

    def join(one: int, other: int, weight: float) -> None:
        if size[one] < size[other]:
            one, other = other, one
        parent[other] = one
        size[one] += size[other]
        bound[one] = weight + scale / size[one]  # edges come in order, so this one is the steepest within

    for one, other, weight in edges:
        one, other = root(one), root(other)
        if one != other and weight <= bound[one] and weight <= bound[other]:
            join(one, other, weight)
    for one, other, weight in edges:
        one, other = root(one), root(other)
        if one != other and min(size[one], size[other]) < least:
            join(one, other, weight)
    roots = [root(pixel) for pixel in range(height * width)]
    numbers = {pixel: place for place, pixel in enumerate(dict.fromkeys(roots))}
    return torch.tensor([numbers[pixel] for pixel in roots]).view(height, width)


def selective_search(
    image: UInt8[Tensor, "channel height width"], scale: float = 100.0, least: int = 20
) -> Float[Tensor, "box 4"]:
    """Boxes that may hold something, each once: the last joined, which are the largest, first.

    scale, least: of the segments that it starts from.   Some seconds for a photograph of 1000 pixels a side.
    Elsewhere: the authors search in several colour spaces and from several scales, and shuffle the order: more boxes.
    """
    label = segments(image, scale, least).numpy()
    held = dict(enumerate(_described(image.numpy(), label)))
    neighbours: dict[int, set[int]] = {number: set() for number in held}
    for one, other in ((label[:, :-1], label[:, 1:]), (label[:-1], label[1:])):
        for a, b in numpy.unique(numpy.stack([one[one != other], other[one != other]], 1), axis=0).tolist():
            neighbours[a].add(b)
            neighbours[b].add(a)
    whole = label.size
    queue = [(-_similarity(held[a], held[b], whole), a, b) for a, near in neighbours.items() for b in near if a < b]
    heapq.heapify(queue)
    boxes = [segment[2] for segment in held.values()]
    while queue:
        _, a, b = heapq.heappop(queue)
        if a not in held or b not in held:  # joined to another since
            continue
        new, joined = len(boxes), _joined(held.pop(a), held.pop(b))
        near = (neighbours.pop(a) | neighbours.pop(b)) - {a, b}
        for number in near:
            neighbours[number] = (neighbours[number] - {a, b}) | {new}
            heapq.heappush(queue, (-_similarity(held[number], joined, whole), number, new))
        held[new], neighbours[new] = joined, near
        boxes.append(joined[2])
    return torch.tensor(list(dict.fromkeys(reversed(boxes))), dtype=torch.float32)


def _described(image: NDArray, label: NDArray) -> list[Segment]:
    """Of each segment: 25 bins of each channel, 10 bins of the gradient of each channel in 8 directions; pixels and box."""
    count = int(label.max()) + 1
    pixels = image.astype(numpy.float32)
    size = numpy.bincount(label.ravel(), minlength=count)
    tables = []
    gradients = [numpy.stack(numpy.gradient(gaussian_filter(channel, 1.0))) for channel in pixels]
    for channel, (down, across) in zip(pixels, gradients, strict=True):
        ways = (down, across, (down + across) / 2**0.5, (down - across) / 2**0.5)
        slopes = [numpy.clip(sign * slope, 0, None) for slope in ways for sign in (1, -1)]
        colour = _histograms(label, channel, 25, 256.0, count)
        texture = [_histograms(label, slope, 10, float(slope.max()) + 1e-6, count) for slope in slopes]
        tables += [colour / len(pixels), *(table / (8 * len(pixels)) for table in texture)]
    table = numpy.concatenate(tables, 1) / size[:, None]  # colours sum to 1, textures too
    rows, columns = (_extent(label, axis, count) for axis in (0, 1))
    return [(table[n], int(size[n]), (int(columns[0][n]), int(rows[0][n]), int(columns[1][n]) + 1, int(rows[1][n]) + 1))
            for n in range(count)]  # fmt: skip


def _histograms(label: NDArray, values: NDArray, bins: int, top: float, count: int) -> NDArray:
    """How many pixels of each segment have a value in each bin of [0, top).   [segment bin]"""
    place = numpy.minimum((values * (bins / top)).astype(numpy.int64), bins - 1)
    return numpy.bincount((label * bins + place).ravel(), minlength=count * bins).reshape(count, bins).astype(numpy.float32)


def _extent(label: NDArray, axis: int, count: int) -> tuple[NDArray, NDArray]:
    """The first and the last row (axis 0) or column (1) of each segment."""
    place = numpy.indices(label.shape)[axis]
    first, last = numpy.full(count, label.size), numpy.zeros(count, dtype=numpy.int64)
    numpy.minimum.at(first, label, place)
    numpy.maximum.at(last, label, place)
    return first, last


def _joined(one: Segment, other: Segment) -> Segment:
    size = one[1] + other[1]
    return (one[0] * one[1] + other[0] * other[1]) / size, size, _around(one[2], other[2])


def _around(one: Sequence[int], other: Sequence[int]) -> tuple[int, int, int, int]:
    return min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])


def _similarity(one: Segment, other: Segment, whole: int) -> float:
    """The sum of what colours and textures share, 1 - size of both / image, and 1 - what of their box both leave open."""
    both = one[1] + other[1]
    left, top, right, bottom = _around(one[2], other[2])
    return float(numpy.minimum(one[0], other[0]).sum()) + 2 - both / whole - ((right - left) * (bottom - top) - both) / whole


def with_proposals(tensors: Batch, count: int = 200) -> Batch:
    """The same examples with the first `count` boxes of selective search for each, `proposals` [n count 4], 0 where fewer."""
    found = torch.zeros(len(tensors["image"]), count, 4)
    for place, image in enumerate(tensors["image"]):
        boxes = selective_search(image)[:count]
        found[place, : len(boxes)] = boxes
    return {**tensors, "proposals": found}

"""Points of the plane, and which of them, in which order, make their convex hull: answers that are places in the question."""

import torch
from jaxtyping import Float
from torch import Tensor

from thalweg.data.streams import generator
from thalweg.vocabulary import Batch


def convex_hull(points: Float[Tensor, "point 2"]) -> list[int]:
    """The corners of the least convex polygon around points: their places, counter-clockwise, the lowest place first.

    The lower chain from left to right, then the upper one back; whatever does not turn left is no corner.   Andrew 1979
    """
    order = sorted(range(len(points)), key=points.tolist().__getitem__)
    x, y = points.double().T.tolist()

    def chain(places: list[int]) -> list[int]:
        corners: list[int] = []
        for c in places:
            while len(corners) > 1:
                a, b = corners[-2:]
                if (x[b] - x[a]) * (y[c] - y[a]) > (y[b] - y[a]) * (x[c] - x[a]):
                    break
                corners.pop()
            corners.append(c)
        return corners[:-1]

    hull = chain(order) + chain(order[::-1])
    start = hull.index(min(hull))
    return hull[start:] + hull[:start]


def hulls(count: int, least: int, most: int, seed: int) -> Batch:
    """So many sets of `least` to `most` random points in the unit square, from left to right, each with its hull.

    points [count point 2], mask [count point]; target [count time]: 1 + the place of each corner, then 0, the end; -1: padding.
    """
    if not 3 <= least <= most:
        raise ValueError(f"least={least}, most={most}: expected at least 3, and no more than the most")
    draw = generator(seed)
    points, size = torch.rand(count, most, 2, generator=draw), torch.randint(least, most + 1, (count, 1), generator=draw)
    mask = torch.arange(most) < size
    points = points.take_along_dim(points[..., :1].masked_fill(~mask[..., None], 2).argsort(1), 1) * mask[..., None]
    target = torch.full((count, most + 1), -1)
    for row, example, number in zip(target, points, size[:, 0].tolist(), strict=True):
        hull = convex_hull(example[:number])
        row[: len(hull) + 1] = torch.tensor([*(1 + place for place in hull), 0])
    return {"points": points, "mask": mask, "target": target}

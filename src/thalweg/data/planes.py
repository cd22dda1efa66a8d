"""Points of a plane in two classes: what a network does to them can be drawn.   LBDL 3.5"""

from math import pi

import torch

from thalweg.data.streams import generator
from thalweg.vocabulary import Batch

ARMS = ("blue", "red")


def spirals(count: int, seed: int = 0, *, turns: float = 0.65, noise: float = 0.02) -> Batch:
    """Two arms that wind round each other, one the other turned by half a circle: no line parts them.

    radius from 0.25 at the inner to 1 at the outer end, angle = 2 pi turns share of the way (+ pi for class 1), and normal
    noise of that deviation on both coordinates.   features: [count 2], label: [count] in turns.
    ValueError for fewer than 2 points.
    """
    if count < 2:
        raise ValueError(f"count={count}: expected at least 2, a point an arm")
    random = generator(seed, 0)
    label, way = (
        torch.arange(count) % 2,
        torch.rand(count, generator=random).sqrt(),
    )  # as many points a length outside as inside
    angle, radius = 2 * pi * turns * way + pi * label, 0.25 + 0.75 * way
    points = radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    return {"features": points + noise * torch.randn(count, 2, generator=random), "label": label}

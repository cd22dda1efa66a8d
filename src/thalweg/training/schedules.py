"""Learning-rate schedules: progress in [0, 1] -> factor on the learning rate.   LBDL 3.6, D2L 11.11"""

import math
from collections.abc import Callable

Schedule = Callable[[float], float]


def constant(progress: float) -> float:
    """The learning rate as given, all the way."""
    return 1.0


def warmup(fraction: float, after: Schedule) -> Schedule:
    """Rises linearly from 0 over the first `fraction` of the run, then follows `after` over the rest.

    factor(p) = p / fraction for p < fraction, after((p - fraction) / (1 - fraction)) from there.   0 < fraction < 1.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction: {fraction} is not between 0 and 1")
    return lambda p: p / fraction if p < fraction else after((p - fraction) / (1 - fraction))


def cosine(floor: float = 0.0) -> Schedule:
    """Half a cosine wave from 1 down to `floor`: slow, fast, slow.

    factor(p) = floor + (1 - floor) (1 + cos(pi p)) / 2.   Loshchilov, Hutter 2016, arXiv:1608.03983.
    """
    return lambda p: floor + (1 - floor) * (1 + math.cos(math.pi * min(p, 1.0))) / 2


def linear(floor: float = 0.0) -> Schedule:
    """A straight line from 1 down to `floor`."""
    return lambda p: 1 - (1 - floor) * min(p, 1.0)


def hold(fraction: float, after: Schedule) -> Schedule:
    """Stays at 1 for the first `fraction` of the run, then follows `after` over the rest (a trapezoid with `warmup`)."""
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction: {fraction} is not in [0, 1)")
    return lambda p: 1.0 if p < fraction else after((p - fraction) / (1 - fraction))

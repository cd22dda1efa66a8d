"""Learning-rate schedules: progress in [0, 1] -> factor on the learning rate.   LBDL 3.6, D2L 11.11

They compose: warmup(0.1, cosine()), restarts(4, cosine()), cyclical(8, amplitude=exponential(0.1)).
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

Schedule = Callable[[float], float]
OnPlateau = Callable[[int], float]


def constant(progress: float) -> float:
    """The learning rate as given, all the way."""
    return 1.0


def warmup(
    fraction: float,
    after: Schedule,
    *,
    start: float = 0.0,
    shape: str = "linear",
) -> Schedule:
    """Rises from `start` to 1 over the first `fraction` of the run, then follows `after` over the rest.

    factor(p) = rise(p / fraction) for p < fraction, after((p - fraction) / (1 - fraction)) from there, where rise(q) is
    start + (1 - start) q (linear), start + (1 - start) (1 - cos(pi q)) / 2 (cosine), start^(1 - q) (exponential, by equal
    factors), start (constant: small, then at once large).   0 < fraction < 1, 0 <= start <= 1; exponential needs start > 0.
    The first gradients are large and Adam's averages of them are still poor: long steps then do lasting harm.
    Goyal et al. 2017, arXiv:1706.02677.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction: {fraction} is not between 0 and 1")
    _check("start", start)
    if shape == "exponential" and start == 0:
        raise ValueError("start: 0 times any factor stays 0; expected more for shape='exponential'")
    rises: dict[str, Schedule] = {
        "linear": lambda q: start + (1 - start) * q,
        "cosine": lambda q: start + (1 - start) * (1 - math.cos(math.pi * q)) / 2,
        "exponential": lambda q: start ** (1 - q),
        "constant": lambda q: start,
    }
    if shape not in rises:
        raise ValueError(f"shape: {shape!r} is none of {list(rises)}")
    rise = rises[shape]
    return lambda p: rise(p / fraction) if p < fraction else after((p - fraction) / (1 - fraction))


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


def polynomial(power: float = 2.0, floor: float = 0.0) -> Schedule:
    """Down to `floor` along a power: the larger it is, the sooner and the flatter.

    factor(p) = floor + (1 - floor) (1 - p)^power;   power 1 is `linear`.
    """
    if power <= 0:
        raise ValueError(f"power: {power} is not above 0")
    return lambda p: floor + (1 - floor) * (1 - min(p, 1.0)) ** power


def exponential(final: float) -> Schedule:
    """Down by the same factor a step, to `final` at the end.   factor(p) = final^p"""
    if not 0 < final <= 1:
        raise ValueError(f"final: {final} is not above 0 and up to 1")
    return lambda p: final**p


def step(milestones: Sequence[float], gamma: float = 0.1) -> Schedule:
    """A staircase: times `gamma` at each of the milestones, fractions of the run.   factor(p) = gamma^#{m <= p}"""
    for milestone in milestones:
        _check("milestones", milestone)
    ordered = sorted(milestones)
    return lambda p: gamma ** bisect_right(ordered, p)


def inverse_square_root(warm: float) -> Schedule:
    """Rises linearly over the fraction `warm`, then falls as one over the square root: the Transformer's.

    factor(p) = min(p / warm, sqrt(warm / p)), 1 where they meet. It has no end, so a run may go on for longer.
    0 < warm <= 1.   Vaswani et al. 2017, arXiv:1706.03762, where the peak is (embed_dim * warm steps)^-1/2.
    """
    if not 0 < warm <= 1:
        raise ValueError(f"warm: {warm} is not above 0 and up to 1")
    return lambda p: p / warm if p < warm else math.sqrt(warm / p)


def restarts(cycles: int, after: Schedule, *, growth: float = 1.0) -> Schedule:
    """Follows `after` again and again, each cycle `growth` times as long as the one before: SGDR, if `after` is cosine().

    The cycles fill the run: the first takes (growth - 1) / (growth^cycles - 1) of it, 1 / cycles where all are equal.
    The jump back to 1 leaves a narrow minimum. cycles >= 1, growth >= 1.   Loshchilov, Hutter 2016, arXiv:1608.03983.
    """
    if cycles < 1:
        raise ValueError(f"cycles: {cycles} is below 1")
    if growth < 1:
        raise ValueError(f"growth: {growth} is below 1")
    lengths = [growth**number for number in range(cycles)]
    starts = [sum(lengths[:number]) / sum(lengths) for number in range(cycles + 1)]

    def factor(p: float) -> float:
        number = min(bisect_right(starts, p), cycles) - 1
        return after((p - starts[number]) / (starts[number + 1] - starts[number]))

    return factor


def cyclical(cycles: int, *, floor: float = 0.1, amplitude: Schedule = constant) -> Schedule:
    """Up and down in straight lines between `floor` and 1, `cycles` times.

    factor(p) = floor + (1 - floor) amplitude(p) (1 - |2 frac(cycles p) - 1|)
    amplitude: constant is Smith's "triangular", step([1 / cycles, 2 / cycles, ...], 0.5) his "triangular2",
    exponential(...) his "exp_range". `thalweg range-test` finds the two ends.   Smith 2015, arXiv:1506.01186.
    """
    if cycles < 1:
        raise ValueError(f"cycles: {cycles} is below 1")
    _check("floor", floor)
    return lambda p: floor + (1 - floor) * amplitude(p) * (1 - abs(2 * math.fmod(cycles * p, 1) - 1))


def one_cycle(rise: float = 0.3, *, start: float = 0.04, final: float = 4e-6) -> Schedule:
    """Three phases: up to 1 over the fraction `rise`, back to `start` over another, then on down to `final`.

    Each along half a cosine wave. The large rates between keep out of narrow minima, the last phase settles; a run then
    can be short. 0 < rise < 1/2.   Smith, Topin 2017, arXiv:1708.07120.
    """
    if not 0 < rise < 0.5:
        raise ValueError(f"rise: {rise} is not between 0 and 1/2")
    _check("start", start)
    _check("final", final)

    def factor(p: float) -> float:
        if p < rise:
            return _wave(start, 1.0, p / rise)
        if p < 2 * rise:
            return _wave(1.0, start, p / rise - 1)
        return _wave(start, final, (min(p, 1.0) - 2 * rise) / (1 - 2 * rise))

    return factor


def _wave(first: float, last: float, share: float) -> float:
    """From the first to the last along half a cosine wave."""
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


def on_plateau(patience: int, factor: float = 0.1) -> OnPlateau:
    """The rate is multiplied by `factor` whenever `patience` evaluations in a row brought no better `monitor`.

    Evaluations since the best -> what the learning rate is multiplied by now, on top of the schedule:
    Experiment(monitor="loss", plateau=on_plateau(3)).   D2L 11.11.   Elsewhere: torch's ReduceLROnPlateau counts one
    evaluation more, as its patience is how many may be bad.
    """
    if patience < 1:
        raise ValueError(f"patience: {patience} is below 1")
    if not 0 < factor < 1:
        raise ValueError(f"factor: {factor} is not between 0 and 1")
    return lambda since: factor if since and since % patience == 0 else 1.0


def scaled_rate(lr: float, batch_size: int, new_batch_size: int, *, power: float = 1.0) -> float:
    """The learning rate for another batch size: lr (new_batch_size / batch_size)^power.

    power 1 for SGD: k steps on small batches move as far as one on k of them, while the gradient hardly changes; with a
    warm-up. 1/2 for Adam, whose step does not grow with the gradient.   Goyal et al. 2017, arXiv:1706.02677;
    Malladi et al. 2022, arXiv:2205.10287.
    """
    return lr * (new_batch_size / batch_size) ** power


def _check(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: {value} is not from 0 to 1")

"""Schedules at their starts, middles and ends, against torch's where it has the same, and through a run."""

import math

import pytest
import torch
from scenes import small_digits
from torch.optim import lr_scheduler

from thalweg.training import Experiment, Training
from thalweg.training.run import run
from thalweg.training.schedules import (
    constant,
    cosine,
    cyclical,
    exponential,
    hold,
    inverse_square_root,
    linear,
    on_plateau,
    one_cycle,
    polynomial,
    restarts,
    scaled_rate,
    step,
    warmup,
)


@pytest.mark.parametrize(
    ("schedule", "values"),  # at 0, 1/4, 1/2, 3/4, 1
    [
        (constant, [1, 1, 1, 1, 1]),
        (linear(), [1, 0.75, 0.5, 0.25, 0]),
        (linear(0.2), [1, 0.8, 0.6, 0.4, 0.2]),
        (cosine(), [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]),
        (cosine(0.1), [1, 0.1 + 0.45 * (1 + math.sqrt(0.5)), 0.55, 0.1 + 0.45 * (1 - math.sqrt(0.5)), 0.1]),
        (warmup(0.5, constant), [0, 0.5, 1, 1, 1]),
        (warmup(0.25, linear()), [0, 1, 2 / 3, 1 / 3, 0]),
        (warmup(0.5, cosine()), [0, 0.5, 1, 0.5, 0]),
        (hold(0.5, linear()), [1, 1, 1, 0.5, 0]),
        (hold(0.0, linear()), [1, 0.75, 0.5, 0.25, 0]),
        (warmup(0.25, hold(2 / 3, linear())), [0, 1, 1, 1, 0]),
        (warmup(0.5, constant, start=0.2), [0.2, 0.6, 1, 1, 1]),
        (warmup(0.5, linear(), start=0.2, shape="cosine"), [0.2, 0.6, 1, 0.5, 0]),
        (warmup(1 - 1e-12, constant, start=0.2, shape="cosine"), [0.2, 0.6 - 0.4 * math.sqrt(0.5), 0.6,
                                                                0.6 + 0.4 * math.sqrt(0.5), 1]),
        (warmup(0.5, constant, start=0.01, shape="exponential"), [0.01, 0.1, 1, 1, 1]),
        (warmup(0.5, linear(), start=0.3, shape="constant"), [0.3, 0.3, 1, 0.5, 0]),
        (polynomial(), [1, 9 / 16, 1 / 4, 1 / 16, 0]),
        (polynomial(3, 0.5), [1, 0.5 + 27 / 128, 9 / 16, 0.5 + 1 / 128, 0.5]),
        (exponential(0.0001), [1, 0.1, 0.01, 0.001, 0.0001]),
        (step([0.75, 0.5]), [1, 1, 0.1, 0.01, 0.01]),  # in any order
        (step([], 0.5), [1, 1, 1, 1, 1]),
        (inverse_square_root(0.25), [0, 1, math.sqrt(1 / 2), math.sqrt(1 / 3), 1 / 2]),
        (restarts(2, linear()), [1, 0.5, 1, 0.5, 0]),
        (restarts(2, cosine(0.2), growth=3), [1, 1, 0.8 * (1 + math.cos(math.pi / 3)) / 2 + 0.2, 0.2 + 0.8 / 4, 0.2]),
        (restarts(1, linear(), growth=2), [1, 0.75, 0.5, 0.25, 0]),
        (cyclical(1, floor=0.2), [0.2, 0.6, 1, 0.6, 0.2]),
        (cyclical(2, floor=0.0), [0, 1, 0, 1, 0]),
        (cyclical(2, floor=0.5, amplitude=step([0.5], 0.5)), [0.5, 1, 0.5, 0.75, 0.5]),
        (one_cycle(0.25, start=0.2, final=0.01), [0.2, 1, 0.2, 0.105, 0.01]),
    ],
)  # fmt: skip
def test_a_schedule_has_the_values_of_its_formula(schedule, values):
    assert [schedule(p / 4) for p in range(5)] == pytest.approx(values, abs=1e-12)


def test_warm_up_meets_what_follows_it_without_a_jump():
    schedule = warmup(0.3, cosine())
    assert schedule(0.3 - 1e-9) == pytest.approx(schedule(0.3), abs=1e-8)


def test_a_schedule_that_goes_down_stays_down_after_its_end():
    assert cosine(0.1)(1.5) == pytest.approx(0.1)
    assert linear(0.1)(1.5) == pytest.approx(0.1)


@pytest.mark.parametrize("fraction", [0, 1, -0.1])
def test_a_warm_up_of_nothing_or_of_all_is_refused(fraction):
    with pytest.raises(ValueError, match=f"fraction: {fraction} is not between 0 and 1"):
        warmup(fraction, constant)


@pytest.mark.parametrize("fraction", [1, -0.1])
def test_a_hold_over_all_is_refused(fraction):
    with pytest.raises(ValueError, match=rf"fraction: {fraction} is not in \[0, 1\)"):
        hold(fraction, constant)


def of_torch(make, count, **options):
    """The factors of a scheduler of torch on a rate of 1, one a step."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0, momentum=0.9)
    scheduler, factors = make(optimizer, **options), []
    for _ in range(count):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return factors


@pytest.mark.parametrize(
    ("schedule", "make", "options"),  # over 100 steps
    [
        (step([0.3, 0.8], 0.2), lr_scheduler.MultiStepLR, {"milestones": [30, 80], "gamma": 0.2}),
        (step([0.25, 0.5, 0.75]), lr_scheduler.StepLR, {"step_size": 25}),
        (exponential(0.97**100), lr_scheduler.ExponentialLR, {"gamma": 0.97}),
        (polynomial(2.5), lr_scheduler.PolynomialLR, {"total_iters": 100, "power": 2.5}),
        (cosine(0.1), lr_scheduler.CosineAnnealingLR, {"T_max": 100, "eta_min": 0.1}),
        (restarts(5, cosine(0.1)), lr_scheduler.CosineAnnealingWarmRestarts, {"T_0": 20, "eta_min": 0.1}),
        (warmup(0.2, constant, start=0.1), lr_scheduler.LinearLR, {"start_factor": 0.1, "total_iters": 20}),
        (warmup(0.2, constant, start=0.1, shape="constant"), lr_scheduler.ConstantLR, {"factor": 0.1, "total_iters": 20}),
        (cyclical(5), lr_scheduler.CyclicLR, {"base_lr": 0.1, "max_lr": 1, "step_size_up": 10}),
        (cyclical(5, amplitude=step([0.2, 0.4, 0.6, 0.8], 0.5)), lr_scheduler.CyclicLR,
         {"base_lr": 0.1, "max_lr": 1, "step_size_up": 10, "mode": "triangular2"}),
        (cyclical(5, amplitude=exponential(0.98**100)), lr_scheduler.CyclicLR,
         {"base_lr": 0.1, "max_lr": 1, "step_size_up": 10, "mode": "exp_range", "gamma": 0.98}),
    ],
)  # fmt: skip
def test_a_schedule_goes_as_the_scheduler_of_torch_does(schedule, make, options):
    assert [schedule(number / 100) for number in range(100)] == pytest.approx(of_torch(make, 100, **options), abs=1e-10)


def test_growing_restarts_go_as_those_of_torch():
    expected = of_torch(lr_scheduler.CosineAnnealingWarmRestarts, 70, T_0=10, T_mult=2)
    schedule = restarts(3, cosine(), growth=2)
    assert [schedule(number / 70) for number in range(70)] == pytest.approx(expected, abs=1e-10)


def test_one_cycle_goes_as_that_of_torch():
    expected = of_torch(lr_scheduler.OneCycleLR, 100, max_lr=1, total_steps=101, pct_start=26 / 101, three_phase=True)
    schedule = one_cycle(0.25)  # torch's phases end a step early
    assert [schedule(number / 100) for number in range(100)] == pytest.approx(expected, abs=1e-10)


def test_the_inverse_square_root_is_the_transformers():
    """lr = embed_dim^-1/2 min(n^-1/2, n warm^-3/2)"""
    peak, schedule = (512 * 4000) ** -0.5, inverse_square_root(4000 / 100_000)
    for n in (1, 100, 3999, 4000, 4001, 50_000, 100_000):
        assert peak * schedule(n / 100_000) == pytest.approx(512**-0.5 * min(n**-0.5, n * 4000**-1.5))


@pytest.mark.parametrize("shape", ["linear", "cosine", "exponential"])
def test_a_warm_up_of_any_shape_only_rises(shape):
    schedule = warmup(0.5, constant, start=0.01, shape=shape)
    values = [schedule(number / 100) for number in range(51)]
    assert values == sorted(values)
    assert (values[0], values[-1]) == (pytest.approx(0.01), 1)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: warmup(0.1, constant, start=-0.1), "start: -0.1 is not from 0 to 1"),
        (lambda: warmup(0.1, constant, shape="square"), "shape: 'square' is none of "),
        (lambda: warmup(0.1, constant, shape="exponential"), "start: 0 times any factor stays 0"),
        (lambda: polynomial(0), "power: 0 is not above 0"),
        (lambda: exponential(0), "final: 0 is not above 0"),
        (lambda: step([0.5, 30]), "milestones: 30 is not from 0 to 1"),
        (lambda: inverse_square_root(0), "warm: 0 is not above 0"),
        (lambda: restarts(0, cosine()), "cycles: 0 is below 1"),
        (lambda: restarts(2, cosine(), growth=0.5), "growth: 0.5 is below 1"),
        (lambda: cyclical(0), "cycles: 0 is below 1"),
        (lambda: cyclical(3, floor=2), "floor: 2 is not from 0 to 1"),
        (lambda: one_cycle(0.5), "rise: 0.5 is not between 0 and 1/2"),
        (lambda: on_plateau(0), "patience: 0 is below 1"),
        (lambda: on_plateau(1, 1.5), "factor: 1.5 is not between 0 and 1"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(make, error):
    with pytest.raises(ValueError, match=error):
        make()


def scripted(monkeypatch, training, folder, values, **options):
    """Runs, the validation loss taking these values, one an evaluation; the rate of every step."""
    rates, values, iterate = [], iter(values), Training.__iter__

    def recorded(training):
        for taken in iterate(training):
            rates.append(taken.lr)
            yield taken

    monkeypatch.setattr(Training, "__iter__", recorded)
    monkeypatch.setattr("thalweg.training.run.evaluate", lambda *_: iter([("loss", torch.tensor(next(values)))]))
    monkeypatch.setattr("thalweg.training.run._finish", lambda *_: {})
    run(training, folder, {}, progress=False, **options)
    monkeypatch.undo()
    return rates


BAD = [5.0, 4.0, 4.5, 4.5, 3.0, 3.5, 3.5, 3.5, 3.5]  # evaluations before the first step and after each two


def on_digits(**options) -> Experiment:
    return small_digits(steps=16, evaluate_every=2, schedule=constant, plateau=on_plateau(2), **options)


def test_the_rate_falls_when_there_was_no_progress_for_as_long_as_patience(monkeypatch, tmp_path):
    rates = scripted(monkeypatch, Training(on_digits(), device="cpu"), tmp_path, BAD)
    expected = [0.1] * 6 + [0.01] * 6 + [0.001] * 4  # after two bad evaluations, and again after two
    assert rates == pytest.approx(expected)


def test_torch_reduces_on_a_plateau_at_the_same_evaluations():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=2, threshold=0)
    schedule, best, since, lr = on_plateau(3), math.inf, 0, 1.0
    for value in [3, 2, 2, 2, 2, 2, 1.9, 1.95, 1.95, 1.95, 1.95, 1.95, 1.95, 1.95, 1.0]:
        scheduler.step(value)
        best, since = (value, 0) if value < best else (best, since + 1)
        lr *= schedule(since)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(lr)
    assert lr == pytest.approx(1e-3)


def test_a_run_resumed_after_a_plateau_goes_on_bit_identically(monkeypatch, tmp_path):
    whole = Training(on_digits(), device="cpu")
    scripted(monkeypatch, whole, tmp_path / "whole", BAD)
    torch.manual_seed(0)
    first = Training(on_digits(), device="cpu")

    def killed():
        yield from BAD[:6]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scripted(monkeypatch, first, tmp_path / "broken", killed())
    monkeypatch.undo()
    torch.manual_seed(0)
    resumed = Training(on_digits(), device="cpu")
    rates = scripted(monkeypatch, resumed, tmp_path / "broken", BAD[6:], resume=True)
    assert rates == pytest.approx([0.01] * 2 + [0.001] * 4)
    assert resumed.lr_scale == whole.lr_scale
    for name, value in whole.task.state_dict().items():
        assert torch.equal(resumed.task.state_dict()[name], value), name


def test_a_plateau_needs_a_metric_to_watch():
    with pytest.raises(ValueError, match=r"plateau=.*: expected monitor to name the metric it watches"):
        on_digits(monitor=None)


@pytest.mark.parametrize(("power", "expected"), [(1, 0.4), (0.5, 0.2)])
def test_the_rate_of_a_larger_batch(power, expected):
    assert scaled_rate(0.1, 64, 256, power=power) == pytest.approx(expected)

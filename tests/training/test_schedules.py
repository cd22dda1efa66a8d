"""Schedules at their starts, middles and ends, and through a run."""

import math

import pytest

from thalweg.training.schedules import constant, cosine, hold, linear, warmup


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
    ],
)
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

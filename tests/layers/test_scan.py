"""The linear scan: the states of a loop, in values and gradients, at gates of every size and times of every length."""

import pytest
import torch
from test_torch_layers import EXACT, equal_with_gradients
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.testing import assert_close

from thalweg.layers import scan
from thalweg.layers.scan import Backwards, linear_scan


def looped(gate, x, start):
    states = [start]
    for t in range(x.shape[1]):
        states.append(gate[:, t] * states[-1] + x[:, t])
    return torch.stack(states[1:], 1)


def inputs(*shape, dtype=torch.float64):
    gate, x = torch.rand(shape, dtype=dtype), torch.randn(shape, dtype=dtype)
    return [v.requires_grad_() for v in (gate, x, torch.randn(shape[0], *shape[2:], dtype=dtype))]


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("time", [1, 2, 31, 32, 33, 100, 1024, 1025, 1100])
def test_it_gives_the_states_of_the_loop_in_values_and_gradients(time, dtype):
    leaves = inputs(2, time, 3, dtype=dtype)
    if dtype.is_complex:  # turning as much as decaying
        leaves[0] = (0.9 * leaves[0] / leaves[0].abs()).detach().requires_grad_()
    equal_with_gradients(linear_scan(*leaves), looped(*leaves), leaves)


def test_a_batch_of_scalars_and_of_matrices_is_scanned_as_well():
    for shape in ((3, 70), (2, 70, 2, 3)):
        leaves = inputs(*shape)
        equal_with_gradients(linear_scan(*leaves), looped(*leaves), leaves)


@pytest.mark.parametrize("value", [0.0, 1e-300, 0.5, 1 - 1e-9, 1.0, -1.0])
def test_over_4096_places_no_gate_is_too_small_or_too_large(value):
    _, x, start = inputs(1, 4096, 2)
    gate = torch.full_like(x, value).requires_grad_()
    gate.data[:, ::7] = 1 - value  # products underflow to 0 and come back
    found, expected = linear_scan(gate, x, start), looped(gate, x, start)
    assert_close(found, expected, rtol=1e-12, atol=1e-10)
    direction = torch.randn_like(found)
    for one, other in zip(grad(found, [gate, x, start], direction), grad(expected, [gate, x, start], direction), strict=True):
        assert_close(one, other, rtol=1e-12, atol=1e-10)


def test_gates_of_zero_cut_and_gates_of_one_add_up():
    x = torch.randn(2, 100, 3, dtype=torch.float64)
    start = torch.randn(2, 3, dtype=torch.float64)
    assert torch.equal(linear_scan(torch.zeros_like(x), x, start), x)
    assert_close(linear_scan(torch.ones_like(x), x, start), start[:, None] + x.cumsum(1), **EXACT)


def test_in_single_precision_it_is_the_loop_to_five_digits_over_a_thousand_places():
    gate, x, start = inputs(4, 1024, 8, dtype=torch.float32)
    assert_close(linear_scan(gate, x, start), looped(gate, x, start), rtol=1e-5, atol=1e-5)


def test_its_gradients_are_those_of_finite_differences_also_the_second_and_the_reverse_scan_s(monkeypatch):
    monkeypatch.setattr(scan, "CHUNK", 3)  # several levels in a few places
    for dtype in (torch.float64, torch.complex128):
        leaves = inputs(1, 11, 2, dtype=dtype)
        assert gradcheck(linear_scan, leaves)
        assert gradgradcheck(linear_scan, leaves)
        assert gradcheck(Backwards.apply, leaves[:2])


def test_a_gate_and_a_start_are_broadcast_and_their_gradients_summed():
    _, x, _ = inputs(2, 40, 3)
    gate, start = (torch.rand(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    ours = linear_scan(gate[None, None], x, start)
    equal_with_gradients(ours, looped(gate.expand_as(x), x, start.expand(2, 3)), [gate, x, start])
    assert_close(linear_scan(gate[None, None], x), looped(gate.expand_as(x), x, torch.zeros(2, 3)), **EXACT)


def test_no_state_hears_of_what_comes_later():
    gate, x, _ = inputs(1, 70, 2)
    other = x.detach().clone()
    other[:, 50:] += 1
    assert torch.equal(linear_scan(gate, other)[:, :50], linear_scan(gate, x)[:, :50])
    assert not torch.equal(linear_scan(gate, other)[:, 50:], linear_scan(gate, x)[:, 50:])


def test_numbers_of_sixteen_bits_are_computed_in_thirty_two():
    gate, x, start = (v.detach() for v in inputs(2, 500, 3, dtype=torch.float32))
    gate, x, start = (0.5 + gate / 2).bfloat16(), x.bfloat16(), start.bfloat16()
    found = linear_scan(gate, x, start)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, linear_scan(gate.float(), x.float(), start.float()).bfloat16())
    assert linear_scan(gate.float(), x).dtype == torch.float32


def test_no_time_is_refused_and_an_empty_batch_is_none():
    with pytest.raises(ValueError, match=r"x: \[2, 0, 3\], expected at least one place"):
        linear_scan(torch.rand(2, 0, 3), torch.rand(2, 0, 3))
    for time in (1, 32, 40):
        assert linear_scan(torch.rand(0, time, 3), torch.rand(0, time, 3)).shape == (0, time, 3)


@pytest.mark.parametrize("time", [1024, 1 << 15])
def test_its_depth_grows_with_the_logarithm_of_time(time):
    with torch.profiler.profile() as profile:
        linear_scan(torch.rand(1, time, 1), torch.rand(1, time, 1))
    assert sum(event.count for event in profile.key_averages() if event.key == "aten::addcmul") < 100 * (1 + (time > 1024))

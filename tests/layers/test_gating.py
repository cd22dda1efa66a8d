"""Maxout and highway layers."""

import pytest
import torch
from definitions import equal_with_gradients, numbers
from torch import nn

from thalweg.layers.gating import Highway, maxout


def test_maxout_is_the_largest_of_its_pieces():
    x = numbers(2, 3, 6)
    naive = torch.stack([torch.stack([x[..., 2 * i], x[..., 2 * i + 1]]).amax(0) for i in range(3)], -1)
    equal_with_gradients(maxout(x, 2), naive, [x])


def test_maxout_of_linear_units_can_be_a_rectifier_or_an_absolute_value():
    x = torch.randn(20, 1)
    assert torch.equal(maxout(torch.cat([x, 0 * x], 1), 2), x.relu())
    assert torch.equal(maxout(torch.cat([x, -x], 1), 2), x.abs())


@pytest.mark.parametrize("pieces", [0, 4])
def test_pieces_that_do_not_fit_are_refused(pieces):
    with pytest.raises(ValueError, match=f"pieces={pieces}: expected a divisor of the 6 numbers"):
        maxout(torch.zeros(1, 6), pieces)


def test_a_highway_mixes_its_branch_and_its_input_by_the_gate():
    layer, x = Highway(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), 4).double(), numbers(2, 3, 4)
    gate = 1 / (1 + (-layer.gate(x)).exp())
    equal_with_gradients(layer(x), gate * layer.branch(x) + (1 - gate) * x, [x, *layer.parameters()])


def test_a_gate_starts_nearly_closed():
    layer, x = Highway(nn.Linear(8, 8), 8), torch.randn(500, 8)
    assert layer.gate(x).sigmoid().mean().item() == pytest.approx(0.13, abs=0.03)


def test_a_gate_learns_when_to_open_and_when_to_close():
    layer = Highway(nn.Sequential(nn.Linear(5, 5), nn.Tanh()), 5)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    x = torch.randn(512, 5)
    x[:, 0] = x[:, 0].sign()  # 1: what follows is to be replaced, -1: to be left as it is
    target = torch.where(x[:, :1] > 0, -x.sign(), x)[:, 1:]
    for _ in range(300):
        loss = (layer(x)[:, 1:] - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    gate = layer.gate(x).sigmoid()[:, 1:]
    assert gate[x[:, 0] > 0].mean() > 0.9
    assert gate[x[:, 0] < 0].mean() < 0.1

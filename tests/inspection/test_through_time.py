"""Gradients through time: powers where the network is linear, kept where a gate is open."""

import torch
from torch import nn

from thalweg.inspection.through_time import draw_through_time, scaled_rnn, through_time, untrained


class Linear(nn.Module):
    """h_t = a Q h_{t-1} + x_t, Q orthogonal."""

    def __init__(self, size, scale):
        super().__init__()
        self.weight = nn.init.orthogonal_(torch.empty(size, size, dtype=torch.float64), gain=scale)

    def forward(self, x):
        states = [x[:, 0]]
        for step in x[:, 1:].unbind(1):
            states.append(states[-1] @ self.weight.T + step)
        return torch.stack(states, 1), states[-1]


def test_in_a_linear_network_the_gradient_is_a_power_of_the_scale():
    x = torch.randn(3, 12, 5, dtype=torch.float64)
    for scale in (0.5, 1.0, 1.5):
        norm = through_time(Linear(5, scale), x)
        torch.testing.assert_close(norm / norm[0], scale ** torch.arange(12, dtype=torch.float64))


def test_it_vanishes_explodes_or_is_kept():
    torch.manual_seed(0)
    x = 0.1 * torch.randn(8, 40, 4)
    lstm = nn.LSTM(4, 16, batch_first=True)
    with torch.no_grad():
        lstm.bias_ih_l0[16:32] = 5.0  # of the forget gate: open
    networks = {"small": scaled_rnn(4, 16, 0.5), "large": scaled_rnn(4, 16, 2.0, "relu"), "open": lstm}
    left = {name: float(norm[-1] / norm[0]) for name, network in networks.items() for norm in [through_time(network, x)]}
    assert left["small"] < 1e-8
    assert left["large"] > 10
    assert left["open"] > 0.05


def test_networks_as_they_start_are_drawn():
    figure = draw_through_time(untrained(3, 8), 0.3 * torch.randn(4, 20, 3))
    assert figure.axes[0].get_yscale() == "log"
    assert len(figure.axes[0].lines) == 8

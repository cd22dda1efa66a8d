"""How much of what a recurrent network says at the end is owed to what it read k places before: it vanishes or explodes.

dh_T / dx_t holds the product of the T - t Jacobians dh_{s+1} / dh_s; where their factors are below one it shrinks with every
place, above one it grows. A cell that is added to, behind an open gate, keeps it.
Bengio, Simard, Frasconi 1994, "Learning long-term dependencies with gradient descent is difficult".   D2L 8.7, LEE: LSTM
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn

from thalweg.figures import curves


def through_time(network: nn.Module, x: Float[Tensor, "batch time in"]) -> Float[Tensor, " time"]:
    """sqrt of the mean over the batch of |d h_T / d x_t|^2, t = T (no place before) first.

    network: x -> outputs [batch time hidden], and what else it gives. The norm is that of a random direction of h_T, so the
    Jacobian itself is never made.
    """
    x = x.detach().requires_grad_()
    last = network(x)[0][:, -1]
    direction = torch.randn_like(last)
    (gradient,) = torch.autograd.grad((direction * last).sum(), x)
    return gradient.square().sum(2).mean(0).sqrt().flip(0)


def draw_through_time(networks: Mapping[str, nn.Module], x: Float[Tensor, "batch time in"]) -> Figure:
    """The norms over the places, each network's by that of its last place."""
    lines = {}
    for name, network in networks.items():
        norm = through_time(network, x)
        lines[name] = [(k, float(value)) for k, value in enumerate(norm / norm[0])]
    figure = curves(lines, xlabel="places before the end", ylabel="gradient, relative to the last place")
    figure.axes[0].set_yscale("log")
    return figure


def scaled_rnn(input_size: int, hidden_size: int, scale: float, nonlinearity: str = "tanh") -> nn.RNN:
    """Elman's network whose recurrent weights are `scale` times an orthogonal matrix: all factors but the slope are `scale`."""
    network = nn.RNN(input_size, hidden_size, nonlinearity=nonlinearity, batch_first=True)
    nn.init.orthogonal_(network.get_parameter("weight_hh_l0"), gain=scale)
    return network

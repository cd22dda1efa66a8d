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
from thalweg.layers.recurrence import irnn


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
    return curves(lines, xlabel="places before the end", ylabel="gradient, relative to the last place", log=True)


def untrained(input_size: int, hidden_size: int) -> dict[str, nn.Module]:
    """Networks as they start: those whose gradient vanishes, explodes or is kept."""
    sizes = (input_size, hidden_size)
    remembering = nn.LSTM(*sizes, batch_first=True)
    with torch.no_grad():
        remembering.get_parameter("bias_ih_l0")[hidden_size : 2 * hidden_size] = 4  # of the forget gate: open
    return {
        "tanh, weights of 0.8": scaled_rnn(*sizes, 0.8),
        "tanh, weights of 1": scaled_rnn(*sizes, 1.0),
        "tanh, weights of 1.5": scaled_rnn(*sizes, 1.5),
        "relu, weights of 1.6": scaled_rnn(*sizes, 1.6, "relu"),
        "relu, identity (IRNN)": irnn(*sizes),
        "LSTM, as torch starts it": nn.LSTM(*sizes, batch_first=True),
        "LSTM, forget gate open": remembering,
        "GRU": nn.GRU(*sizes, batch_first=True),
    }


def scaled_rnn(input_size: int, hidden_size: int, scale: float, nonlinearity: str = "tanh") -> nn.RNN:
    """Elman's network whose recurrent weights are `scale` times an orthogonal matrix: all factors but the slope are `scale`."""
    network = nn.RNN(input_size, hidden_size, nonlinearity=nonlinearity, batch_first=True)
    nn.init.orthogonal_(network.get_parameter("weight_hh_l0"), gain=scale)
    return network

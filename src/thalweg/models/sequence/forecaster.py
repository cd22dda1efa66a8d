"""Forecasters: what comes next in a series of numbers?

Autoregressive:         x_{t+1} = f(x_{t-window+1}, ..., x_t): the last few values say all that matters.
Latent autoregressive:  h_t = rnn(x_t, h_{t-1}), x_{t+1} = head(h_t): a state sums up the whole past.
Either may see changes only: values less the last one, to which the answer is then added. A series that rises beyond what was
seen looks the same to it at every height (Zeng, Chen, Zhang, Xu 2022, arXiv:2205.13504).   LBDL 3.2, D2L 8.1
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad


class WindowForecaster(nn.Module):
    """A perceptron of the last `window` values.   [batch time feature] -> what follows each of them [batch time feature]

    num_layers: hidden ones; with none it is the linear autoregression of statistics.   relative: sees changes only.
    Before the first value it reads zeros, or with relative the first value again.
    """

    def __init__(
        self, num_features: int = 1, window: int = 4, hidden_dim: int = 32, num_layers: int = 2, relative: bool = False
    ):
        super().__init__()
        self.window, self.relative, width = window, relative, window * num_features
        self.blocks = nn.Sequential()
        for _ in range(num_layers):
            self.blocks.append(nn.Sequential(nn.Linear(width, hidden_dim), nn.ReLU()))
            width = hidden_dim
        self.head = nn.Linear(width, num_features)

    def forward(self, x: Float[Tensor, "batch time feature"]) -> Float[Tensor, "batch time feature"]:
        base = x if self.relative else torch.zeros_like(x)
        before = base[:, :1].expand(-1, self.window - 1, -1)
        seen = torch.cat([before, x], 1).unfold(1, self.window, 1) - base[..., None]  # [batch time feature window]
        return base + self.head(self.blocks(seen.flatten(2)))


class LatentForecaster(nn.Module):
    """A gated recurrent network that has read all before.   [batch time feature] -> what follows each [batch time feature]

    relative: reads by how much each value differs from the one before, and says by how much the next one will.
    """

    def __init__(self, num_features: int = 1, hidden_dim: int = 32, num_layers: int = 1, relative: bool = False):
        super().__init__()
        self.relative = relative
        self.rnn = nn.GRU(num_features, hidden_dim, num_layers, batch_first=True)
        self.head = nn.Linear(hidden_dim, num_features)

    def forward(self, x: Float[Tensor, "batch time feature"]) -> Float[Tensor, "batch time feature"]:
        if not self.relative:
            return self.head(self.rnn(x)[0])
        return x + self.head(self.rnn(pad(x.diff(dim=1), (0, 0, 1, 0)))[0])

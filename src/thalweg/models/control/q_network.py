"""The Q-network: a perceptron that reads an observation and gives the value of every action in one pass.

Q(s, .) = head(relu(W_2 relu(W_1 s + b_1) + b_2)): the best action costs one evaluation, not one an action.
Mnih et al. 2013, "Playing Atari with deep reinforcement learning", arXiv:1312.5602.   LBDL 6.7
"""

from collections.abc import Sequence

from torch import Tensor, nn


class QNetwork(nn.Module):
    """hidden_dims: units of the layers between.   observation: [batch ...] flattened -> [batch action]

    ValueError if an observation has not `in_features` numbers.
    """

    def __init__(self, in_features: int, num_actions: int, hidden_dims: Sequence[int] = (128, 128)):
        super().__init__()
        self.in_features, self.blocks, width = in_features, nn.ModuleList(), in_features
        for hidden_dim in hidden_dims:
            self.blocks.append(nn.Sequential(nn.Linear(width, hidden_dim), nn.ReLU()))
            width = hidden_dim
        self.head = nn.Linear(width, num_actions)

    def forward(self, observation: Tensor) -> Tensor:
        x = observation.flatten(1)
        if x.shape[1] != self.in_features:
            raise ValueError(f"observation: {x.shape[1]} numbers, expected {self.in_features}")
        for block in self.blocks:
            x = block(x)
        return self.head(x)

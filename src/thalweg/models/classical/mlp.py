"""The multi-layer perceptron: linear layers with a nonlinearity between them.

x^(d) = relu(W_d x^(d-1) + b_d); the last layer is linear.   Rosenblatt 1958; LBDL 5.1, D2L 4.1-4.3
"""

from collections.abc import Sequence

from torch import Tensor, nn


class MLP(nn.Module):
    """hidden_dims: units of the layers between.   x: [batch ...] flattened -> [batch out_features]"""

    def __init__(self, in_features: int, out_features: int, hidden_dims: Sequence[int] = (256,), dropout: float = 0.0):
        super().__init__()
        self.blocks, width = nn.ModuleList(), in_features
        for hidden_dim in hidden_dims:
            self.blocks.append(nn.Sequential(nn.Linear(width, hidden_dim), nn.ReLU(), nn.Dropout(dropout)))
            width = hidden_dim
        self.head = nn.Linear(width, out_features)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def mlp(in_features: int, out_features: int, hidden_dims: Sequence[int] = (256,), dropout: float = 0.0) -> MLP:
    """A perceptron for rows of a table or flattened images."""
    return MLP(in_features, out_features, hidden_dims, dropout)

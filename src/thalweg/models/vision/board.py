"""A board as an image: a convolutional network, without pooling, that gives every point the probability of the next move.

planes of the board -> 5x5 convolution -> 3x3 convolutions, all at the extent of the board -> 1x1 to one number a point,
with a bias of its own for each point -> softmax over the points. Patterns are local and may lie anywhere, which suits
convolution; but a point that is pooled away can no longer be moved to.
The policy network of Silver et al. 2016, "Mastering the game of Go with deep neural networks and tree search".   LEE: CNN
"""

import torch
from torch import Tensor, nn


class BoardNet(nn.Module):
    """image: [batch in_channels size size] -> logits of the points, row by row [batch size^2]

    num_layers: convolutions, the first and the last among them.   width: filters of all but the last.
    """

    def __init__(self, in_channels: int = 3, width: int = 64, num_layers: int = 6, size: int = 9):
        super().__init__()
        if num_layers < 2:
            raise ValueError(f"num_layers={num_layers}: expected at least 2, the first and the last convolution")
        self.stem = nn.Sequential(nn.Conv2d(in_channels, width, 5, padding=2), nn.ReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU()) for _ in range(num_layers - 2)
        )
        self.head = nn.Conv2d(width, 1, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(size * size))

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        for block in self.blocks:
            x = block(x)
        return self.head(x).flatten(1) + self.bias


def board_net(in_channels: int = 3, width: int = 64, num_layers: int = 6, size: int = 9) -> BoardNet:
    """A policy for small boards."""
    return BoardNet(in_channels, width, num_layers, size)


def alphago_policy(in_channels: int = 48, width: int = 192, num_layers: int = 13, size: int = 19) -> BoardNet:
    """The policy network of AlphaGo, 3,882,793 parameters: 48 planes that say what is known of each of 361 points."""
    return BoardNet(in_channels, width, num_layers, size)

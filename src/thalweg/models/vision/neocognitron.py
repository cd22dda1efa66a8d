"""The neocognitron: cells that look for a pattern and cells that do not mind where it lies, in turns, learned without labels.

S-cell   u = r relu((1 + sum a x) / (1 + r / (1 + r) b v) - 1),  v = sqrt(sum c x^2),  x: what it sees of all planes before.
It answers 1 to the pattern that it has learned, and less the more others differ, nothing below a similarity of r / (1 + r).
C-cell   y = s / (s + 1/2),  s = relu((1 + sum d u) / (1 + mean over planes of sum d u) - 1),  blurred, and its plane only.
All cells of a plane have the same weights, so that what is learned at one place is recognised at every other.
Fukushima 1980, "Neocognitron: a self-organizing neural network model for a mechanism of pattern recognition unaffected by
shift in position", Biological Cybernetics 36.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, unfold


def _window(size: int) -> Tensor:
    """A weight a place that falls with the distance from the middle, where it is 1.   [1 1 size size]"""
    distance = torch.arange(size) - (size - 1) / 2
    return (-(distance[:, None] ** 2 + distance**2) / size).exp()[None, None]


class SCells(nn.Module):
    """Planes of cells, each of which answers to one pattern, wherever it is.   x: [batch channel h w] -> [batch plane h w]

    weight: a, and inhibition: b, of the paper, which writes b / 2.   selectivity: r.   column: see agreement.
    sharper: by how many times r is larger while it learns, so that patterns which differ get planes of their own, and what is
    like several is seen by several. Fukushima, Tanigawa 1996, "Use of different thresholds in learning and recognition".
    A plane that has learned nothing yet has next to no weights and no inhibition: it answers a little to everything.
    """

    window: Tensor

    def __init__(
        self, in_channels: int, planes: int, kernel_size: int, selectivity: float, column: int | None = 5, sharper: float = 6.0
    ):
        super().__init__()
        self.kernel_size, self.selectivity, self.column, self.sharper = kernel_size, selectivity, column, sharper
        self.weight = nn.Parameter(1e-3 * torch.rand(planes, in_channels, kernel_size, kernel_size))
        self.inhibition = nn.Parameter(torch.zeros(planes))
        window = _window(kernel_size).expand(1, in_channels, -1, -1)
        self.register_buffer("window", window / window.sum())  # c

    def strength(self, x: Tensor) -> Tensor:
        """v: how much there is to see.   [batch 1 h w]"""
        return conv2d(x.square(), self.window, padding=self.kernel_size // 2).clamp(min=1e-12).sqrt()

    def forward(self, x: Tensor, sharper: float = 1.0) -> Tensor:
        r = sharper * self.selectivity
        excited = conv2d(x, self.weight, padding=self.kernel_size // 2)
        inhibited = r / (1 + r) * self.inhibition.clamp(min=0)[:, None, None] * self.strength(x)
        return r * (excited - inhibited).relu() / (1 + inhibited)

    def agreement(self, x: Tensor) -> Tensor:
        """sum over winners of (sum c x a + v b): a step of size q along its slope adds q c x to a and q v to b.

        Cells of all planes within a square of `column` (odd) cells compete, or all of an image (None); of those of a plane that
        have won theirs, the one that answers most, in all images, is the winner of its plane. Others learn nothing.
        """
        with torch.no_grad():
            answer = self(x, self.sharper)
            best = answer.amax(1, keepdim=True)
            best = max_pool2d(best, self.column, 1, self.column // 2) if self.column else best.amax((2, 3), keepdim=True)
            alone = answer.where((answer == best) & (answer > 0), 0)
            most, place = alone.transpose(0, 1).flatten(1).max(1)  # of each plane
            seen = unfold(x, self.kernel_size, padding=self.kernel_size // 2).transpose(1, 2).flatten(0, 1)[place]
            strength = self.strength(x).flatten()[place]
        terms = (self.window.flatten() * seen * self.weight.flatten(1)).sum(1) + strength * self.inhibition
        return terms.where(most > 0, 0).sum()


class CCells(nn.Module):
    """The same planes, blurred, so that a pattern may lie elsewhere; those above the mean of all planes remain.

    u: [batch plane h w] -> [batch plane h/stride w/stride]
    """

    window: Tensor

    def __init__(self, kernel_size: int, stride: int):
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride
        self.register_buffer("window", _window(kernel_size))  # d

    def forward(self, u: Tensor) -> Tensor:
        kernel, planes = self.window.expand(u.shape[1], -1, -1, -1), u.shape[1]
        blurred = conv2d(u, kernel, stride=self.stride, padding=self.kernel_size // 2, groups=planes)
        mean = blurred.mean(1, keepdim=True)
        above = (blurred - mean).relu() / (1 + mean)
        return above / (above + 0.5)


class Neocognitron(nn.Module):
    """Stages of S- and C-cells, and a linear read-out of how much each plane of the last answers at its best place.

    planes, kernel_size (odd), selectivity: one a stage; the first stage halves the extent. In the last all places compete, so
    that an image teaches one plane. 1980 read the last C-cells off by eye; the read-out, which needs labels, is ours.
    image: [batch channel height width], 0 where there is nothing -> logits [batch class].   ValueError for unequal lengths.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        planes: Sequence[int] = (24, 64, 160),
        kernel_size: Sequence[int] = (3, 3, 5),
        selectivity: Sequence[float] = (4.0, 1.5, 1.0),
    ):
        super().__init__()
        if not len(planes) == len(kernel_size) == len(selectivity):
            raise ValueError(
                f"planes={planes}, kernel_size={kernel_size}, selectivity={selectivity}: expected one each a stage"
            )
        self.stages, width = nn.ModuleList(), in_channels
        for number, (count, size, r) in enumerate(zip(planes, kernel_size, selectivity, strict=True)):
            column = 5 if number + 1 < len(planes) else None
            self.stages.append(nn.Sequential(SCells(width, count, size, r, column), CCells(*((3, 1) if number else (5, 2)))))
            width = count
        self.head = nn.Linear(width, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        x = image
        for stage in self.stages:
            x = stage(x)
        return self.head(x.amax((2, 3)))


def neocognitron(
    in_channels: int = 1,
    num_classes: int = 10,
    planes: Sequence[int] = (24, 64, 160),
    kernel_size: Sequence[int] = (3, 3, 5),
    selectivity: Sequence[float] = (4.0, 1.5, 1.0),
) -> Neocognitron:
    """A neocognitron of three stages, for digits."""
    return Neocognitron(in_channels, num_classes, planes, kernel_size, selectivity)

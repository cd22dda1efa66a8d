"""How a loss bends around the weights: the Hessian, by its products with directions, never written out."""

from collections.abc import Sequence

import torch
from torch import Tensor


def hessian_product(loss: Tensor, parameters: Sequence[Tensor], direction: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """H v, the change of the gradient along v: the gradient of (gradient . v).   Pearlmutter 1994, Neural Computation 6(1).

    loss: a number made from the parameters, whose graph is kept.   direction: v, of the shapes of the parameters.
    """
    slope = torch.autograd.grad(loss, parameters, create_graph=True)
    along = torch.stack([(g * v).sum() for g, v in zip(slope, direction, strict=True)]).sum()
    return torch.autograd.grad(along, parameters, retain_graph=True)


def sharpness(loss: Tensor, parameters: Sequence[Tensor], *, most: int = 100, tolerance: float = 1e-3) -> float:
    """The largest eigenvalue of the Hessian in size, by power iteration: how steep the steepest wall of the valley is.

    v <- H v / |H v| until v . H v changes by less than `tolerance` of itself, or `most` times. Gradient descent is stable
    around a minimum for rates below 2 / sharpness.   Keskar et al. 2016, arXiv:1609.04836.
    """
    direction: list[Tensor] | tuple[Tensor, ...] = [torch.randn_like(p) for p in parameters]
    value, before = 0.0, float("inf")
    for _ in range(most):
        length = torch.nn.utils.get_total_norm(direction)
        direction = [v / length for v in direction]
        product = hessian_product(loss, parameters, direction)
        value = float(torch.stack([(v * h).sum() for v, h in zip(direction, product, strict=True)]).sum())
        if value == 0 or abs(value - before) <= tolerance * abs(value):
            break
        direction, before = product, value
    return value

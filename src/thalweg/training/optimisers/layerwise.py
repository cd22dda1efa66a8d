"""Layerwise rates for large batches: a matrix moves by a share of its own length, whatever the length of its gradient.

Vectors (norms, biases) learn at the plain rate and do not decay.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from thalweg.training.optimisers.blocks import Blockwise
from thalweg.training.optimisers.groups import MakeOptimizer, check, trainable


def _split(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices and filters, which are scaled and decay; vectors and scalars, which neither are nor do."""
    parameters = trainable(module)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay, "scaled": True},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0, "scaled": False},
    ]
    return [group for group in groups if group["params"]]


def _lengths(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    return torch.stack(torch._foreach_norm(tensors))


def lars(lr: float, *, momentum: float = 0.9, weight_decay: float = 0.0, trust: float = 1e-3) -> MakeOptimizer:
    """Momentum in which every layer's gradient is first scaled to a share of the length of its weights.

    r = trust |w| / (|g| + weight_decay |w|),   v = momentum v + lr r (g + weight_decay w),   w = w - v;
    r = 1 where a length is 0.   You, Gitman, Ginsburg 2017, arXiv:1708.03888.
    """
    check(lr=lr, momentum=momentum, weight_decay=weight_decay, trust=trust)
    return lambda module: LARS(_split(module, weight_decay), lr=lr, momentum=momentum, trust=trust)


class LARS(Blockwise):
    remembered = ("velocity",)

    def __init__(self, params: Any, lr: float, momentum: float, trust: float):
        super().__init__(params, {"lr": lr, "momentum": momentum, "trust": trust, "weight_decay": 0.0, "scaled": True})

    def update(self, group: dict[str, Any], number: int, *lists: list[Tensor]) -> None:
        parameters, gradients, velocities = lists
        decay = group["weight_decay"]
        torch._foreach_mul_(velocities, group["momentum"])
        if group["scaled"]:
            weights, slopes = _lengths(parameters), _lengths(gradients)
            ratios = group["trust"] * weights / (slopes + decay * weights)
            ratios = torch.where((weights > 0) & (slopes > 0), ratios, 1.0)
            changes = torch._foreach_add(gradients, parameters, alpha=decay)
            torch._foreach_mul_(changes, ratios.unbind())
            torch._foreach_add_(velocities, changes, alpha=group["lr"])
        else:
            torch._foreach_add_(velocities, gradients, alpha=group["lr"])
        torch._foreach_sub_(parameters, velocities)


def lamb(
    lr: float, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-6, weight_decay: float = 0.01
) -> MakeOptimizer:
    """Adam in which every layer moves by lr times the length of its weights.

    u = m' / (sqrt(v') + eps) + weight_decay w,   w = w - lr |w| / |u| u;   m', v': Adam's corrected means of g and g^2;
    |w| / |u| is 1 where a length is 0.   You et al. 2019, arXiv:1904.00962.
    """
    check(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    return lambda module: LAMB(_split(module, weight_decay), lr=lr, betas=betas, eps=eps)


class LAMB(Blockwise):
    remembered = ("mean", "square")

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], eps: float):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0, "scaled": True})

    def update(self, group: dict[str, Any], number: int, *lists: list[Tensor]) -> None:
        parameters, *others = lists
        if not group["scaled"]:
            _adam(group, number, group["lr"], parameters, *others)
            return
        changes = [torch.zeros_like(x) for x in parameters]
        _adam(group, number, 1.0, changes, *others)  # torch's one kernel: from zero by a rate of one is Adam's change itself
        torch._foreach_add_(changes, parameters, alpha=-group["weight_decay"])
        weights, sizes = _lengths(parameters), _lengths(changes)
        ratios = group["lr"] * torch.where((weights > 0) & (sizes > 0), weights / sizes, 1.0)
        torch._foreach_mul_(changes, ratios.unbind())
        torch._foreach_add_(parameters, changes)


def _adam(group: dict[str, Any], number: int, lr: float, moved: list[Tensor], *lists: list[Tensor]) -> None:
    """A step of Adam on what is moved, by gradients, means and squares: moved = moved - lr m' / (sqrt(v') + eps)."""
    steps = [*torch.full((len(moved),), number - 1.0, device=moved[0].device).unbind()]
    (gradients, means, squares), (beta1, beta2) = lists, group["betas"]
    adam(moved, gradients, means, squares, [], steps, fused=True, amsgrad=False, beta1=beta1, beta2=beta2, lr=lr,
         weight_decay=0.0, eps=group["eps"], maximize=False)  # fmt: skip

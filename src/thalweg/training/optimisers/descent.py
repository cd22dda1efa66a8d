"""Gradient descent with momentum and decoupled decay, and the optimiser that ends in it."""

from typing import Any

import torch
from torch import Tensor

from thalweg.training.distribution import whole
from thalweg.training.optimisers.blocks import Blockwise, correction, denominators, shrink, track
from thalweg.training.optimisers.groups import MakeOptimizer, check, decayed, trainable


def sgdw(lr: float, *, momentum: float = 0.9, nesterov: bool = False, weight_decay: float = 1e-4) -> MakeOptimizer:
    """Gradient descent with momentum whose decay never enters the momentum: w shrinks by lr * weight_decay a step.

    w = (1 - lr weight_decay) w,   v = momentum v + g,   w = w - lr v,   or with nesterov w - lr (g + momentum v).
    sgd(weight_decay=...) adds weight_decay * w to g instead, which the momentum then repeats 1 / (1 - momentum) times.
    Loshchilov, Hutter 2017, arXiv:1711.05101.
    """
    check(lr=lr, momentum=momentum, weight_decay=weight_decay)
    return lambda module: SGDW(decayed(trainable(module), weight_decay), lr=lr, momentum=momentum, nesterov=nesterov)


class SGDW(Blockwise):
    remembered = ("velocity",)

    def __init__(self, params: Any, lr: float, momentum: float, nesterov: bool):
        super().__init__(params, {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": 0.0})

    def update(self, group: dict[str, Any], number: int, *lists: list[Tensor]) -> None:
        parameters, gradients, velocities = lists
        shrink(parameters, group)
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, gradients)
        if group["nesterov"]:
            torch._foreach_add_(parameters, gradients, alpha=-group["lr"])
            torch._foreach_add_(parameters, velocities, alpha=-group["lr"] * group["momentum"])
        else:
            torch._foreach_add_(parameters, velocities, alpha=-group["lr"])


def swats(
    lr: float,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    tolerance: float = 1e-9,
) -> MakeOptimizer:
    """Begins as Adam and goes on as gradient descent with momentum, when it knows the rate at which that goes as far.

    gamma = p.p / -(p.g), with p the step that Adam takes: the rate whose gradient step has p as its shadow along p.
    Once the running mean of gamma (by beta2, corrected for its start at 0) is within `tolerance` of gamma and above 0,
    it is the rate L from then on:   v = beta1 v + g,   w = w - (1 - beta1) L v.   A schedule goes on scaling it.
    `optimizer.switched` is the step and L, or None before; until then a step waits for the two products.
    Weight decay is decoupled.   Keskar, Socher 2017, arXiv:1712.07628.
    """
    check(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, tolerance=tolerance)
    return lambda module: SWATS(decayed(trainable(module), weight_decay), lr=lr, betas=betas, eps=eps, tolerance=tolerance)


class SWATS(Blockwise):
    remembered = ("mean", "square")  # the mean is the velocity after the switch

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], eps: float, tolerance: float):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "tolerance": tolerance, "weight_decay": 0.0}
        super().__init__(params, defaults | {"steps": 0, "mean_rate": 0.0, "switch_step": None, "rate": None, "relative": None})
        self._products: list[Tensor] = []

    @property
    def switched(self) -> tuple[int, float] | None:
        """The step after which gradient descent took over, and its rate."""
        first = self.param_groups[0]
        return None if first["rate"] is None else (first["switch_step"], first["rate"])

    def update(self, group: dict[str, Any], number: int, *lists: list[Tensor]) -> None:
        parameters, gradients, means, squares = lists
        shrink(parameters, group)
        if group["rate"] is not None:
            torch._foreach_mul_(means, group["betas"][0])
            torch._foreach_add_(means, gradients)
            torch._foreach_add_(parameters, means, alpha=(group["betas"][0] - 1) * group["relative"] * group["lr"])
            return
        track(gradients, means, squares, group["betas"])
        a, b = correction(number, group["betas"])
        steps, scale = torch._foreach_div(means, denominators(squares, b * group["eps"])), -group["lr"] * a
        torch._foreach_add_(parameters, steps, alpha=scale)
        products = [torch.stack([torch.dot(step.flatten(), other.flatten()) for step, other in zip(steps, others, strict=True)])
                    for others in (steps, gradients)]  # fmt: skip
        self._products.append(whole(torch.stack([scale**2 * products[0].sum(), scale * products[1].sum()])))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.move()
        first = self.param_groups[0]
        if not self._products:
            return
        length, product = torch.stack(self._products).sum(0).tolist()
        self._products.clear()
        steps, mean, beta = first["steps"] + 1, first["mean_rate"], first["betas"][1]
        if product != 0:
            rate = length / -product
            mean = beta * mean + (1 - beta) * rate
            estimate = mean / (1 - beta**steps)
            if steps > 1 and estimate > 0 and abs(estimate - rate) < first["tolerance"]:
                for group in self.param_groups:
                    group.update(switch_step=steps, rate=estimate, relative=estimate / group["lr"])
                torch._foreach_zero_([state["mean"] for state in self.state.values()])
        for group in self.param_groups:
            group.update(steps=steps, mean_rate=mean)

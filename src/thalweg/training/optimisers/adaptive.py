"""Relatives of Adam that torch lacks: what to do when the mean square of the gradients forgets too fast or rates run away."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from thalweg.training.optimisers.blocks import Blockwise, correction, denominators, shrink, track
from thalweg.training.optimisers.groups import MakeOptimizer, check, decayed, trainable


def yogi(
    lr: float, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-3, weight_decay: float = 0.0
) -> MakeOptimizer:
    """Adam whose mean square follows the gradient in steps of its square only, so that rare large gradients are not
    forgotten.

    m = beta1 m + (1 - beta1) g,   v = v + (1 - beta2) sign(g^2 - v) g^2,   w = w - lr m' / (sqrt(v') + eps)
    with m', v' corrected for their start at 0 as Adam's; weight decay is decoupled as AdamW's.
    Where v is much larger than g^2, Adam lets it fall by (1 - beta2) v, Yogi by (1 - beta2) g^2 only.
    Zaheer et al. 2018, "Adaptive methods for nonconvex optimization".   D2L 11.10
    """
    check(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    return lambda module: Yogi(decayed(trainable(module), weight_decay), lr=lr, betas=betas, eps=eps)


class Yogi(Blockwise):
    remembered = ("mean", "square")

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], eps: float):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    def update(self, group: dict[str, Any], number: int, *lists: list[Tensor]) -> None:
        parameters, gradients, means, squares = lists
        shrink(parameters, group)
        torch._foreach_lerp_(means, gradients, 1 - group["betas"][0])
        new = torch._foreach_mul(gradients, gradients)
        signs = torch._foreach_sub(squares, new)
        torch._foreach_sign_(signs)
        torch._foreach_addcmul_(squares, signs, new, group["betas"][1] - 1)
        a, b = correction(number, group["betas"])
        torch._foreach_addcdiv_(parameters, means, denominators(squares, b * group["eps"]), -group["lr"] * a)


def adabound(
    lr: float,
    *,
    final_lr: float = 0.1,
    gamma: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsbound: bool = False,
) -> MakeOptimizer:
    """Starts as Adam and ends as gradient descent: every number's rate is kept between bounds that close in on final_lr.

    rate = clip(lr sqrt(1 - beta2^t) / (1 - beta1^t) / (sqrt(v) + eps),   final_lr (1 - 1 / (gamma t + 1)),
    final_lr (1 + 1 / (gamma t))),   w = w - rate m;   m, v: Adam's means of g and g^2.
    amsbound: the largest v so far in place of v. A schedule that scales lr scales final_lr too; weight decay is decoupled.
    Luo, Xiong, Liu, Sun 2019, arXiv:1902.09843; the correction for the start at 0 is that of its authors' program.
    """
    check(lr=lr, final_lr=final_lr, gamma=gamma, betas=betas, eps=eps, weight_decay=weight_decay)
    for name, value in (("lr", lr), ("final_lr", final_lr), ("gamma", gamma)):
        if value == 0:
            raise ValueError(f"{name}={value}: expected more than 0")

    def make(module: nn.Module) -> Optimizer:
        groups = decayed(trainable(module), weight_decay)
        return AdaBound(groups, lr=lr, final_lr=final_lr, gamma=gamma, betas=betas, eps=eps, amsbound=amsbound)

    return make


class AdaBound(Blockwise):
    def __init__(self, params: Any, lr: float, final_lr: float, gamma: float, betas: tuple[float, float], eps: float,
                 amsbound: bool):  # fmt: skip
        self.remembered = ("mean", "square", "largest") if amsbound else ("mean", "square")
        super().__init__(params, {"lr": lr, "final": final_lr / lr, "gamma": gamma, "betas": betas, "eps": eps,
                                  "weight_decay": 0.0})  # fmt: skip

    def update(self, group: dict[str, Any], number: int, *lists: list[Tensor]) -> None:
        parameters, gradients, means, squares, *largest = lists
        shrink(parameters, group)
        track(gradients, means, squares, group["betas"])
        if largest:
            torch._foreach_maximum_(largest[0], squares)
            squares = largest[0]
        scale, _ = correction(number, group["betas"])
        lower = group["final"] * (1 - 1 / (group["gamma"] * number + 1))
        upper = group["final"] * (1 + 1 / (group["gamma"] * number))
        divisors = denominators(squares, group["eps"])  # the rate is lr scale / divisor: bounded through the divisor
        torch._foreach_clamp_min_(divisors, scale / upper)
        torch._foreach_clamp_max_(divisors, scale / lower)
        torch._foreach_addcdiv_(parameters, means, divisors, -group["lr"] * scale)

"""An optimiser as a formula on lists of tensors, and the step that runs it where memory is fast.

A model is many times larger than a processor's cache: eight operations, each on all of it, would fetch every number eight
times. So a step runs the whole formula on a few tensors, which stay in the cache, before it takes the next few. An
accelerator has no such cache: there each operation is one kernel on all tensors.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

BLOCK = 2**16  # numbers of a parameter that stay in a core's cache together with their gradient and state


class Blockwise(Optimizer):
    """A subclass names what it remembers of a parameter, zeros at first, and changes lists of tensors in place:

    update(group, number, parameters, gradients, *remembered);   number: of the gradients that these parameters have had,
    so that one that joins late is not taken for an old one.
    """

    remembered: tuple[str, ...]

    def update(self, group: dict[str, Any], number: int, *lists: list[Tensor]) -> None:
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.move()

    def move(self) -> None:
        """Every parameter that has a gradient, block by block."""
        for group in self.param_groups:
            for number, rows in self._by_number(group["params"]).items():
                for block in _blocks(rows):
                    self.update(group, number, *map(list, zip(*block, strict=True)))

    def _by_number(self, parameters: list[Tensor]) -> dict[int, list[list[Tensor]]]:
        """Parameter, gradient and what is remembered, by the number of the gradient."""
        found: dict[int, list[list[Tensor]]] = {}
        for parameter in parameters:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state["step"] = 0
                state.update({name: torch.zeros_like(parameter) for name in self.remembered})
            state["step"] += 1
            row = [parameter, parameter.grad, *(state[name] for name in self.remembered)]
            found.setdefault(state["step"], []).append(row)
        return found


def _blocks(rows: list[list[Tensor]]) -> Iterator[list[list[Tensor]]]:
    if rows[0][0].device.type != "cpu":
        yield rows
        return
    block, size = [], 0
    for row in rows:
        block.append(row)
        size += row[0].numel()
        if size >= BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def shrink(parameters: list[Tensor], group: dict[str, Any]) -> None:
    """Decoupled weight decay: w = (1 - lr weight_decay) w."""
    if group["weight_decay"]:
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])


def track(gradients: list[Tensor], means: list[Tensor], squares: list[Tensor], betas: Sequence[float]) -> None:
    """Adam's running means: m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2."""
    torch._foreach_lerp_(means, gradients, 1 - betas[0])
    torch._foreach_mul_(squares, betas[1])
    torch._foreach_addcmul_(squares, gradients, gradients, 1 - betas[1])


def correction(number: int, betas: Sequence[float]) -> tuple[float, float]:
    """a, b with which m' / (sqrt(v') + eps) = a m / (sqrt(v) + b eps), where m' and v' are corrected for their start at 0.

    m' = m / (1 - beta1^t),   v' = v / (1 - beta2^t);   t: number of the gradient.
    """
    b = (1 - betas[1] ** number) ** 0.5
    return b / (1 - betas[0] ** number), b


def denominators(squares: list[Tensor], eps: float) -> tuple[Tensor, ...]:
    """sqrt(v) + eps"""
    roots = torch._foreach_sqrt(squares)
    torch._foreach_add_(roots, eps)
    return roots

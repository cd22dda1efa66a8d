"""Optimisers for a recipe: the numbers now, the parameters later; weight decay spares norms and biases.

Each returns a function from a module to an optimiser of torch, fused where torch has a fused kernel.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

MakeOptimizer = Callable[[nn.Module], Optimizer]


def _trainable(module: nn.Module) -> list[Tensor]:
    return [p for p in module.parameters() if p.requires_grad]


def decayed(parameters: Iterable[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices and filters decay, vectors and scalars (norms, biases) do not; one where nothing decays."""
    parameters = list(parameters)
    if weight_decay == 0:
        return [{"params": parameters, "weight_decay": 0.0}]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def sgd(lr: float, *, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0) -> MakeOptimizer:
    """Stochastic gradient descent.   v = momentum v + g;   w = w - lr v   (LBDL 3.3, D2L 11.4-11.6)"""

    def make(module: nn.Module) -> Optimizer:
        sharded = any(isinstance(p, DTensor) for p in module.parameters())  # of which torch has no fused kernel
        return torch.optim.SGD(decayed(_trainable(module), weight_decay), lr=lr, momentum=momentum, nesterov=nesterov,
                               fused=not sharded)  # fmt: skip

    return make


def adam(lr: float, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> MakeOptimizer:
    """Adam.   m, v: running means of g and g^2;   w = w - lr m' / (sqrt(v') + eps)   Kingma, Ba 2014, arXiv:1412.6980."""
    return adamw(lr, betas=betas, eps=eps, weight_decay=0.0)


def adamw(
    lr: float, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.01
) -> MakeOptimizer:
    """Adam with decoupled decay: w shrinks by lr * weight_decay a step.   Loshchilov, Hutter 2017, arXiv:1711.05101."""
    return lambda module: torch.optim.AdamW(decayed(_trainable(module), weight_decay), lr=lr, betas=betas, eps=eps, fused=True)


def muon(
    lr: float, *, momentum: float = 0.95, weight_decay: float = 0.0, other: Callable[[nn.Module], Optimizer]
) -> MakeOptimizer:
    """Muon for the matrices of hidden layers; `other`, a factory such as adamw(...), for all else.

    v = momentum v + (1 - momentum) g;   W = W - lr 0.2 sqrt(max(rows, columns)) U V',  where U S V' = (1 - momentum) g
    + momentum v is nearly decomposed by five Newton-Schulz steps: every direction learns equally fast, and lr has the
    size that Adam's has. All else is embeddings, what is named head, filters, norms and biases.
    Jordan 2024, kellerjordan.github.io/posts/muon; Liu et al. 2025, arXiv:2502.16982.
    """

    def make(module: nn.Module) -> Optimizer:
        outer = {
            parameter
            for name, part in module.named_modules()
            for parameter in part.parameters(recurse=False)
            if parameter.ndim != 2 or isinstance(part, nn.Embedding) or "head" in name.split(".")
        }
        rest = nn.ParameterList([p for p in _trainable(module) if p in outer])
        hidden = [p for p in _trainable(module) if p not in outer]
        return Together(
            torch.optim.Muon(hidden, lr=lr, momentum=momentum, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
            other(rest),
        )

    return make


class Together(Optimizer):
    """Several optimisers, each with its own parameters, that step as one."""

    def __init__(self, *optimizers: Optimizer):
        self.optimizers = optimizers
        super().__init__([group for optimizer in optimizers for group in optimizer.param_groups], {})
        self._share_groups()

    def _share_groups(self) -> None:
        """A learning rate set here is set there."""
        self.param_groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, state_dict["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self._share_groups()

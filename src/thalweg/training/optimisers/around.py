"""What goes around any optimiser: several as one, slow weights, noise on the gradients, gradients without their mean."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from thalweg.training.distribution import like
from thalweg.training.optimisers.groups import MakeOptimizer, check


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


def parts(optimizer: Optimizer) -> Iterator[Optimizer]:
    """An optimiser and those that step inside it."""
    yield optimizer
    for part in getattr(optimizer, "optimizers", ()):
        yield from parts(part)


def lookahead(make: MakeOptimizer, *, k: int = 5, alpha: float = 0.5) -> MakeOptimizer:
    """Fast weights run ahead; every k steps slow weights go a share of the way to them, and the fast ones start from there.

    Every k steps:   s = s + alpha (w - s),   w = s.   What the optimiser remembers (momentum) stays.
    make: a factory such as adam(lr).   k at least 1, alpha in (0, 1].   Zhang, Lucas, Hinton, Ba 2019, arXiv:1907.08610.
    """
    if k < 1:
        raise ValueError(f"k={k}: expected at least 1")
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha={alpha}: expected in (0, 1]")
    return lambda module: Lookahead(make(module), k, alpha)


class Lookahead(Together):
    def __init__(self, optimizer: Optimizer, k: int, alpha: float):
        super().__init__(optimizer)
        self.k, self.alpha, self.number = k, alpha, 0
        for parameter in self._parameters():
            self.state[parameter]["slow"] = parameter.detach().clone()

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.optimizers[0].step()
        self.number += 1
        if self.number % self.k == 0:
            fast = self._parameters()
            slow = [self.state[parameter]["slow"] for parameter in fast]
            torch._foreach_lerp_(slow, fast, self.alpha)
            torch._foreach_lerp_(fast, slow, 1.0)  # a copy, which sharded tensors can do too

    def state_dict(self) -> dict[str, Any]:
        slow = [self.state[parameter]["slow"] for parameter in self._parameters()]
        return {**super().state_dict(), "number": self.number, "slow": slow}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.number = state_dict["number"]
        for parameter, slow in zip(self._parameters(), state_dict["slow"], strict=True):
            self.state[parameter]["slow"] = slow.to(parameter.device, copy=True)


def gradient_noise(make: MakeOptimizer, *, eta: float = 0.01, gamma: float = 0.55) -> MakeOptimizer:
    """Normal noise on every gradient, less and less of it: it leaves narrow pits and the flat parts of a bad start.

    g = g + e,   e of mean 0 and variance eta / (1 + t)^gamma at step t = 0, 1, ...
    The noise follows from torch's seed and t alone, so it is the same on all processes and after a restart.
    make: a factory such as sgd(lr).   Neelakantan et al. 2015, arXiv:1511.06807.
    """
    check(eta=eta, gamma=gamma)

    def disturb(optimizer: Optimizer, *_: Any) -> None:
        first = optimizer.param_groups[0]
        gradients = _gradients(optimizer)
        random = Generator(gradients[0].device).manual_seed(first["noise_seed"] + first["noise_steps"])
        deviation = (eta / (1 + first["noise_steps"]) ** gamma) ** 0.5
        noise = torch.randn(sum(g.numel() for g in gradients), generator=random, device=gradients[0].device)
        pieces = noise.split([g.numel() for g in gradients])
        shaped = [like(e.view(g.shape), g) for e, g in zip(pieces, gradients, strict=True)]
        torch._foreach_add_(gradients, shaped, alpha=deviation)
        first["noise_steps"] += 1

    def made(module: nn.Module) -> Optimizer:
        optimizer = make(module)
        optimizer.param_groups[0].update(noise_seed=torch.initial_seed() % 2**62, noise_steps=0)
        optimizer.register_step_pre_hook(disturb)
        return optimizer

    return made


def centralised(make: MakeOptimizer) -> MakeOptimizer:
    """Takes from the gradient of every output's weights their mean, so that their sum stays as it was initialised.

    g[i] = g[i] - mean(g[i]) for each output i of a matrix or filter; vectors stay as they are.
    make: a factory such as sgd(lr); weight decay comes after.   Yong, Huang, Hua, Zhang 2020, arXiv:2004.01461.
    """

    def centre(optimizer: Optimizer, *_: Any) -> None:
        for g in _gradients(optimizer):
            if g.ndim >= 2:
                g.sub_(g.mean(tuple(range(1, g.ndim)), keepdim=True))

    def made(module: nn.Module) -> Optimizer:
        optimizer = make(module)
        optimizer.register_step_pre_hook(centre)
        return optimizer

    return made


def _gradients(optimizer: Optimizer) -> list[Tensor]:
    return [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]

"""Deep Q-learning: the value of an action is its reward plus the value of the best action that follows.   LBDL 6.7

Mnih et al. 2013, arXiv:1312.5602, and 2015, "Human-level control through deep reinforcement learning", Nature 518.
"""

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn
from torch.nn.functional import huber_loss, mse_loss
from torchmetrics import MeanMetric, MetricCollection

from thalweg.figures import new_figure
from thalweg.tasks.experience import play
from thalweg.training import Task
from thalweg.vocabulary import Batch


class MeanReturn(MeanMetric):
    """The mean over episodes of a return, of which more is better."""

    higher_is_better = True  # type: ignore[assignment]


def _exact(device: torch.device):
    """Single precision: the values of two actions differ by less than bf16 resolves."""
    return torch.autocast(device.type, enabled=False)


class QLearning(Task):
    """The value of every action, learned from the value of the best action that follows.

    loss = (Q(s, a) - y)^2, or its Huber form,   y = r + gamma (1 - done) Q'(s', argmax_b Q(s', b)),
    or, where double_q is False,                   y = r + gamma (1 - done) max_b Q'(s', b).
    Q', the target network, gets no gradient; every `target_every` steps Q' = Q' + tau (Q - Q').
    delta: where the Huber loss turns linear; None takes the square.   0 <= gamma < 1, 0 < tau <= 1.
    batch: observation, action, reward, next_observation, done; to evaluate: seed [batch], each a greedy episode.
    van Hasselt, Guez, Silver 2015, "Deep reinforcement learning with double Q-learning", arXiv:1509.06461.
    """

    reads = "observation"
    steps: Tensor

    def __init__(
        self,
        model: nn.Module,
        environment: str,
        gamma: float = 0.99,
        double_q: bool = True,
        delta: float | None = None,
        target_every: int = 1,
        tau: float = 1.0,
    ):
        super().__init__()
        if not 0 <= gamma < 1:
            raise ValueError(f"gamma={gamma}: expected a number in [0, 1)")
        if not 0 < tau <= 1:
            raise ValueError(f"tau={tau}: expected a number in (0, 1]")
        if target_every < 1:
            raise ValueError(f"target_every={target_every}: expected at least 1")
        if delta is not None and delta <= 0:
            raise ValueError(f"delta={delta}: expected a positive number, or None for the squared error")
        self.model, self.target = model, deepcopy(model).requires_grad_(False)
        self.environment, self.gamma, self.double_q, self.delta = environment, gamma, double_q, delta
        self.target_every, self.tau = target_every, tau
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.metrics = MetricCollection(
            {"return": MeanReturn(), "length": MeanMetric(), "overestimation": MeanMetric()}, compute_groups=False
        )

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        with _exact(batch["reward"].device):
            taken = batch["action"].unsqueeze(1)
            value = self.model(batch["observation"]).gather(1, taken).squeeze(1)
            target = self.targets(batch)
            if self.delta is None:
                total = mse_loss(value, target, reduction="sum")
            else:
                total = huber_loss(value, target, delta=self.delta, reduction="sum")
            return total, len(value)

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """y [batch], to which Q(s, a) is drawn."""
        following = self.target(batch["next_observation"])
        chosen = self.model(batch["next_observation"]) if self.double_q else following
        best = following.gather(1, chosen.argmax(1, keepdim=True)).squeeze(1)
        return batch["reward"] + self.gamma * best * ~batch["done"]

    def losses(self, batch: Batch) -> Iterator[tuple[nn.Module, Tensor, int]]:
        yield self, *self.loss(batch)
        self.steps += 1
        if self.target_every == 1 or int(self.steps) % self.target_every == 0:
            with torch.no_grad():
                torch._foreach_lerp_(list(self.target.parameters()), list(self.model.parameters()), self.tau)

    def values(self, observation: Tensor) -> Tensor:
        """Q(s, .) in single precision.   observation: [batch ...] -> [batch action]"""
        observation = observation.to(self.steps.device)
        with _exact(observation.device):
            return self.model(observation)

    def greedy(self, observation: Tensor) -> Tensor:
        """The best action.   observation: [batch ...] -> [batch]"""
        return self.values(observation).argmax(1)

    def evaluate(self, batch: Batch) -> None:
        """return: the sum of rewards; length: steps; overestimation: max_a Q(s_0, a) minus sum_t gamma^t r_t as it came."""
        returns, length, discounted = torch.zeros(3, len(batch["seed"]), device=batch["seed"].device)
        for time, step in enumerate(play(self.greedy, self.environment, batch["seed"].tolist())):
            episode, reward = step["episode"].to(returns.device), step["reward"].to(returns.device)
            if time == 0:
                promised = self.values(step["observation"]).amax(1)
            returns[episode] += reward
            length[episode] += 1
            discounted[episode] += self.gamma**time * reward
        self.metrics["return"].update(returns)
        self.metrics["length"].update(length)
        self.metrics["overestimation"].update(promised - discounted)

    @torch.inference_mode()
    def predict(self, inputs: Batch) -> dict[str, Any]:
        """action: the best one; value: Q of each.   inputs: observation [batch ...]"""
        value = self.values(inputs["observation"])
        return {"action": value.argmax(1), "value": value}

    @torch.inference_mode()
    def figures(self, batch: Batch) -> dict[str, Figure]:
        """The first episode of the batch: its values from moment to moment; for the pole on its cart also how it went."""
        steps = list(play(self.greedy, self.environment, batch["seed"][:1].tolist()))
        observation = torch.cat([step["observation"] for step in steps])
        value = self.values(observation).cpu()
        drawn = {"value of an episode": _curve(value, sum(float(step["reward"]) for step in steps))}
        if self.environment.startswith("CartPole"):
            drawn |= {"episode": _frames(observation, value), "value map": _map(self.values, observation)}
        return drawn


def _curve(value: Tensor, total: float) -> Figure:
    """V(s_t) = max_a Q(s_t, a), and how much better the best action is than the worst, over the time of an episode."""
    figure, axes = new_figure(8, 4, 2, 1)
    lines = {"V = max Q": value.amax(1), "max Q - min Q": value.amax(1) - value.amin(1)}
    for axis, (name, line) in zip(axes[:, 0], lines.items(), strict=True):
        axis.plot(line, linewidth=1)
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
    axes[0, 0].set_title(f"a greedy episode of {len(value)} steps, return {total:g}", fontsize=9)
    axes[1, 0].set_xlabel("step in the environment")
    return figure


def _frames(observation: Tensor, value: Tensor, shown: int = 12) -> Figure:
    """Cart, pole and the push that was chosen, at moments of an episode from its first to its last."""
    figure, axes = new_figure(9, 3.1, 3, shown // 3)
    for axis, time in zip(axes.flat, torch.linspace(0, len(value) - 1, shown).long().tolist(), strict=True):
        place, _, angle, _ = observation[time].tolist()
        push = 0.7 if value[time].argmax() else -0.7
        axis.add_patch(Rectangle((place - 0.3, -0.15), 0.6, 0.3, color="#34618f"))
        axis.plot([place, place + math.sin(angle)], [0.15, 0.15 + math.cos(angle)], color="#c9603a", linewidth=4)
        axis.annotate("", (place + push, 0), (place + push / 2.3, 0), arrowprops={"arrowstyle": "->", "color": "black"})
        axis.axhline(-0.15, color="grey", linewidth=0.8)
        axis.vlines([-2.4, 2.4], -0.15, 0.15, color="firebrick")  # beyond lies the end of the episode
        axis.set(xlim=(-2.9, 2.9), ylim=(-0.35, 1.35), aspect="equal", xticks=[], yticks=[])
        axis.set_title(f"step {time}   V {value[time].max():.1f}", fontsize=8)
    return figure


def _map(values: Callable[[Tensor], Tensor], observation: Tensor, cells: int = 81) -> Figure:
    """V over angle and angular velocity of the pole, the cart at rest in the middle; where pushing left and right are equal."""
    angle, velocity = torch.linspace(-0.21, 0.21, cells), torch.linspace(-2, 2, cells)
    pole = torch.cartesian_prod(angle, velocity)
    value = values(torch.cat([torch.zeros_like(pole), pole], 1)).cpu().reshape(cells, cells, -1)
    figure, axes = new_figure(6, 4.4)
    axis = axes[0, 0]
    shades = axis.pcolormesh(angle.numpy(), velocity.numpy(), value.amax(-1).T.numpy(), cmap="viridis", shading="gouraud")
    figure.colorbar(shades, label="V = max Q")
    axis.contour(angle, velocity, (value[..., 1] - value[..., 0]).T, levels=[0], colors="white")
    axis.plot(observation[:, 2].cpu(), observation[:, 3].cpu(), ".", color="black", markersize=1.5)
    axis.set(xlabel="angle of the pole / rad", ylabel="angular velocity / rad/s", xlim=(-0.21, 0.21), ylim=(-2, 2))
    axis.set_title("white: both pushes are worth the same; dots: states of an episode", fontsize=9)
    return figure

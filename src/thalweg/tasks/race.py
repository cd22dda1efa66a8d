"""A race of optimisers: the same start, the same batches, the same number of learning rates each.   D2L 11, LEE New Optimizers

Every racer is one optimiser, with a copy of a network and a point on each surface for every learning rate that it may
try; all step on every batch. What counts for a racer is the rate that did best on validation data.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import chain
from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from thalweg import figures
from thalweg.training import Task
from thalweg.vocabulary import Batch

FAR = 1000.0  # a weight or place beyond it was thrown there by a rate too large


class Surface(NamedTuple):
    """A height over the plane, where a point starts, and what a picture shows: from and to, of x and of y."""

    height: Callable[[Tensor, Tensor], Tensor]
    start: tuple[float, float]
    window: tuple[float, float, float, float]


SURFACES = {
    "Rosenbrock": Surface(lambda x, y: (1 - x) ** 2 / 20 + (y - x * x) ** 2 / 2, (-1.5, 1.5), (-2, 2, -1, 3)),
    "saddle": Surface(lambda x, y: x * x - y * y + y**4 / 8, (1.5, 0.01), (-2, 2, -1, 3)),
    "ravine": Surface(lambda x, y: x * x / 40 + 2 * y * y, (-4.0, 1.5), (-5, 5, -2, 2)),
    "noisy bowl": Surface(lambda x, y: (x * x + y * y) / 2, (-1.5, 1.5), (-2, 2, -2, 2)),
}
NOISE = 2.0  # deviation of the slope of the noisy bowl, the last of the surfaces


class Place(nn.Module):
    """A place on a surface, all that there is to learn: a matrix [1 2], so that it is moved as the weights of a layer are."""

    def __init__(self, surface: Surface):
        super().__init__()
        self.surface = surface
        self.at = nn.Parameter(torch.tensor([surface.start]))


class Racer(nn.Module):
    """What one optimiser moves: a network (a task) and a place on each surface for every learning rate."""

    networks: Sequence[Task]
    points: Sequence[Sequence[Place]]

    def __init__(self, task: Task, rates: int):
        super().__init__()
        self.networks = nn.ModuleList(deepcopy(task) for _ in range(rates))  # type: ignore[assignment]
        self.points = nn.ModuleList(nn.ModuleList(map(Place, SURFACES.values())) for _ in range(rates))  # type: ignore[assignment]

    def places(self) -> Float[Tensor, "rate surface 2"]:
        return torch.stack([torch.cat([place.at for place in points]) for points in self.points])


def heights(places: Float[Tensor, "rate surface 2"]) -> Float[Tensor, "surface rate"]:
    """How high the places are; the noisy bowl is tilted at random, so that its slope is right on average only."""
    x, y = places.unbind(-1)
    known = torch.stack([surface.height(x[:, n], y[:, n]) for n, surface in enumerate(SURFACES.values())])
    tilt = NOISE * torch.randn_like(places[:, -1])
    return torch.cat([known[:-1], known[-1:] + (tilt * places[:, -1]).sum(-1)])


class AtBestRate(Metric):
    """A mean over examples, at the learning rate whose loss on the data to choose by was the least."""

    higher_is_better = False  # type: ignore[assignment]

    loss: Tensor
    value: Tensor
    count: Tensor
    chosen: Tensor

    def __init__(self, rates: int):
        super().__init__()
        for name, shape in {"loss": [rates], "value": [rates], "count": []}.items():
            self.add_state(name, torch.zeros(shape), dist_reduce_fx="sum")
        self.register_buffer("chosen", torch.zeros((), dtype=torch.long))
        self.choosing = False

    def update(self, loss: Tensor, value: Tensor, count: int, *, choosing: bool) -> None:
        """loss, value: sums over `count` examples, [rate].   choosing: these are the data to choose by."""
        self.loss += loss
        self.value += value
        self.count += count
        self.choosing = choosing

    def compute(self) -> Tensor:
        if self.choosing:
            self.chosen = self.loss.argmin()
        return self.value[self.chosen] / self.count


def _near(module: nn.Module) -> bool:
    """No parameter is beyond FAR, and none is no number."""
    return bool(torch.stack(torch._foreach_norm(list(module.parameters()), torch.inf)).max() < FAR)


class Race(Task):
    """Every racer learns the same task from the same start and batches, by an optimiser of its own.

    batch: as the task's; with a tensor "choose" where the learning rates are to be chosen by it (validation data).
    A network or point that is thrown far off begins again, so one that diverges stays near the start.
    task: the network's.   racers: names of the players, which are racers.NAME.   rates: learning rates of each.
    steps: how long the curves are; ValueError when a race goes on beyond.   score: "loss" or "error" (the share named
    wrongly), what is told of each racer, with its gap = loss on the data evaluated - mean loss over the last tenth of
    the steps, and how slowly it learned: its mean loss over all steps.
    """

    racers: Mapping[str, Racer]
    curve: Tensor
    trail: Tensor
    taken: Tensor

    def __init__(self, task: Task, racers: Sequence[str], rates: int, steps: int, score: Literal["loss", "error"] = "loss"):
        super().__init__()
        self.score = score
        self.start = deepcopy(task).requires_grad_(False)
        self.racers = nn.ModuleDict({name: Racer(task, rates) for name in racers})  # type: ignore[assignment]
        self.register_buffer("curve", torch.zeros(len(racers), rates, steps))
        self.register_buffer("trail", torch.zeros(len(racers), rates, len(SURFACES), steps, 2))
        self.register_buffer("taken", torch.zeros((), dtype=torch.long))
        told = [f"{name}{suffix}" for suffix in ("", "_gap", "_slowness") for name in racers]
        self.metrics = MetricCollection({name: AtBestRate(rates) for name in told}, compute_groups=False)

    def losses(self, batch: Batch) -> Iterator[tuple[nn.Module, Tensor, Tensor | int]]:
        if self.taken == self.curve.shape[-1]:
            raise ValueError(f"steps={self.curve.shape[-1]}: the race was built for so many, and goes on")
        for number, racer in enumerate(self.racers.values()):
            terms = [network.loss(batch) for network in racer.networks]
            totals, count = torch.stack([total for total, _ in terms]), terms[0][1]
            height = heights(racer.places()).sum()
            yield racer, totals.sum() + count * (height - height.detach()), count  # a slope without a value: one is told
            self._note(number, racer, totals.detach() / count)
        self.taken += 1

    @torch.no_grad()
    def _note(self, number: int, racer: Racer, loss: Tensor) -> None:
        """Keeps losses and places; what was thrown far off begins again."""
        if not _near(racer):
            for network in racer.networks:
                if not _near(network):
                    network.load_state_dict(self.start.state_dict())
            for place in chain.from_iterable(racer.points):
                if not _near(place):
                    place.at.copy_(torch.tensor([place.surface.start]))
        self.curve[number, :, self.taken] = loss
        self.trail[number, :, :, self.taken] = racer.places()

    def evaluate(self, batch: Batch) -> None:
        curve = self.curve[:, :, : max(1, int(self.taken))]
        slowness, learned = curve.mean(-1), curve[:, :, -max(1, curve.shape[-1] // 10) :].mean(-1)
        for number, (name, racer) in enumerate(self.racers.items()):
            terms = [network.loss(batch) for network in racer.networks]
            loss, count = torch.stack([total for total, _ in terms]).float(), int(terms[0][1])
            value = loss
            if self.score == "error":
                logits = [network.get_submodule("model")(batch["image"]) for network in racer.networks]
                value = torch.stack([(row.argmax(-1) != batch["label"]).sum() for row in logits]).float()
            choosing = "choose" in batch
            self.metrics[name].update(loss, value, count, choosing=choosing)
            self.metrics[f"{name}_gap"].update(loss, loss - learned[number] * count, count, choosing=choosing)
            self.metrics[f"{name}_slowness"].update(loss, slowness[number] * count, count, choosing=choosing)

    def figures(self, batch: Batch) -> dict[str, Figure]:
        steps = int(self.taken)
        chosen = [int(cast(AtBestRate, self.metrics[name]).chosen) for name in self.racers]
        curve = self.curve[range(len(chosen)), chosen, :steps]
        window = max(1, steps // 40)
        smooth = curve[:, : steps // window * window].unflatten(1, (-1, window)).mean(-1)
        lines = {
            name: [((place + 0.5) * window, value) for place, value in enumerate(row.tolist())]
            for name, row in zip(self.racers, smooth, strict=True)
        }
        told = {
            what: [float(self.metrics[name + suffix].compute()) for name in self.racers]
            for what, suffix in (
                (f"{self.score} on the data evaluated", ""),
                ("gap of the loss to training", "_gap"),
                ("mean loss over all steps", "_slowness"),
            )
        }
        drawn = {"loss in training": figures.curves(lines, ylabel="loss", log=True),
                 "evaluated": figures.bars(list(self.racers), told)}  # fmt: skip
        for index, (name, surface) in enumerate(SURFACES.items()):
            trail = self.trail[:, :, index, :steps]
            best = surface.height(*trail[:, :, -max(1, steps // 10) :].unbind(-1)).mean(-1).argmin(1)
            paths = {racer: trail[number, best[number]] for number, racer in enumerate(self.racers)}
            drawn[name] = figures.paths(surface.height, surface.start, surface.window, paths)
        return drawn

"""Recall: a recurrent network and attention read the same text; what do they still know of it?   LEE: RNN, Self-Attention"""

import time
from collections.abc import Iterator

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection

from thalweg import figures
from thalweg.metrics import ErrorByPlace, Share
from thalweg.training import Task
from thalweg.training.machine import settle
from thalweg.vocabulary import Batch


class Recall(Task):
    """Each of the models says what stood n = 0, 1, 2 ... places before the last of T.

    loss = - sum_n log softmax(model(tokens)_n)[x_{T-n}]

    batch: tokens [batch time].   lstm, attention: the players; of each the share that it recalls, and by_lag its errors.
    """

    def __init__(self, lstm: nn.Module, attention: nn.Module, longest: int = 256):
        super().__init__()
        self.players = nn.ModuleDict({"lstm": lstm, "attention": attention})
        self.metrics = MetricCollection({name: Share() for name in self.players}, compute_groups=False)
        self.metrics.add_metrics({f"{name}_by_lag": ErrorByPlace(longest) for name in self.players})

    def losses(self, batch: Batch) -> Iterator[tuple[nn.Module, Tensor, Tensor | int]]:
        target = batch["tokens"].flip(1).flatten()
        for player in self.players.values():
            yield player, cross_entropy(player(batch["tokens"]).flatten(0, 1).float(), target, reduction="sum"), len(target)

    def evaluate(self, batch: Batch) -> None:
        target = batch["tokens"].flip(1)
        for name, player in self.players.items():
            wrong = player(batch["tokens"]).argmax(-1) != target
            self.metrics[name].update((~wrong).float())
            self.metrics[f"{name}_by_lag"].update(wrong, torch.ones_like(wrong))

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """What is recalled over how many places; and how long the layer takes that mixes the places, by their number."""
        recalled = {name: list(enumerate((1 - self.metrics[f"{name}_by_lag"].compute()).tolist())) for name in self.players}
        lstm, attention = self.players["lstm"], self.players["attention"]
        x = attention.get_submodule("embedding")(batch["tokens"])
        layers = {"lstm": lstm.get_submodule("rnn"), "attention": attention.get_submodule("attention")}
        lengths = [x.shape[1] // part for part in (8, 4, 2, 1)]
        seconds = {name: [(n, _seconds(layer, x[:, :n])) for n in lengths] for name, layer in layers.items()}
        return {"recall": figures.curves(recalled, xlabel="places between", ylabel="share recalled"),
                "seconds": figures.curves(seconds, xlabel="places", ylabel="seconds to read a batch", log=True)}  # fmt: skip


def _seconds(layer: nn.Module, x: Tensor) -> float:
    """The least that it takes of five times, after a first that does not count."""
    taken = []
    for _ in range(6):
        start = time.perf_counter()
        layer(x)
        settle()
        taken.append(time.perf_counter() - start)
    return min(taken[1:])

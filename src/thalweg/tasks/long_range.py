"""Every way to attend learns the same from the same batches: how good it is, how fast, how much memory it takes.

After the Long Range Arena: Tay et al. 2020, arXiv:2011.04006.   LEE "Attention Variant"
"""

import time
from collections.abc import Iterator

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection

from thalweg import figures
from thalweg.metrics import MeanLoss, Share
from thalweg.training import Task
from thalweg.training.machine import peak_memory, settle
from thalweg.vocabulary import Batch

WARM = 3  # steps whose seconds do not count


class LongRange(Task):
    """A player a way, see `Readers`, with classes to name or else tokens to foretell.

    loss = - log softmax(model(tokens))[label], or - sum_t log softmax(model(tokens)_t)[x_{t+1}]
    batch: tokens [batch time], to foretell one longer; mask [batch time] where padding is; label [batch].
    Measured of each way: the share that it names rightly, or its loss; way_seconds, of a whole step, and way_megabytes, the
    most that a pass forward and backward holds beside weights and batch.
    """

    taken: Tensor
    seconds: Tensor
    bytes: Tensor

    def __init__(self, players: nn.ModuleDict, names_classes: bool = True):
        super().__init__()
        self.players, self.names_classes, self.ways = players, names_classes, tuple(players)
        self.register_buffer("taken", torch.zeros((), dtype=torch.long))
        for name in ("seconds", "bytes"):
            self.register_buffer(name, torch.zeros(len(self.ways), dtype=torch.double))
        of_each = {way: Share() if self.names_classes else MeanLoss() for way in self.ways}
        costs = {f"{way}_{cost}": MeanLoss() for way in self.ways for cost in ("seconds", "megabytes")}
        self.metrics = MetricCollection({**of_each, **costs}, compute_groups=False)

    def terms(self, way: str, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits and targets."""
        tokens = batch["tokens"]
        if self.names_classes:
            return self.players[way](tokens, batch.get("mask")), batch["label"]
        return self.players[way](tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()

    def loss_of(self, way: str, batch: Batch) -> tuple[Tensor, int]:
        logits, target = self.terms(way, batch)
        return cross_entropy(logits.float(), target, reduction="sum"), len(target)

    def losses(self, batch: Batch) -> Iterator[tuple[nn.Module, Tensor, Tensor | int]]:
        for number, (way, player) in enumerate(self.players.items()):
            if self.taken == 1:  # at the first step torch makes things that stay

                def there_and_back(way: str = way, player: nn.Module = player) -> None:
                    torch.autograd.grad(self.loss_of(way, batch)[0], [*player.parameters()], allow_unused=True)

                self.bytes[number] = peak_memory(there_and_back)
            start = time.perf_counter()
            yield player, *self.loss_of(way, batch)
            settle()
            if self.taken >= WARM:
                self.seconds[number] += time.perf_counter() - start
        self.taken += 1

    def evaluate(self, batch: Batch) -> None:
        for number, way in enumerate(self.ways):
            logits, target = self.terms(way, batch)
            if self.names_classes:
                self.metrics[way].update((logits.argmax(-1) == target).float())
            else:
                self.metrics[way].update(cross_entropy(logits.float(), target), len(target))
            self.metrics[f"{way}_seconds"].update(self.seconds[number] / (self.taken - WARM).clamp(min=1))
            self.metrics[f"{way}_megabytes"].update(self.bytes[number] / 1e6)

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """Quality, seconds a step and memory of each way."""
        told = {"share named rightly" if self.names_classes else "loss, nats a token": "", "seconds a step": "_seconds",
                "megabytes of a step": "_megabytes"}  # fmt: skip
        value = {name: [float(self.metrics[way + suffix].compute()) for way in self.ways] for name, suffix in told.items()}
        return {"ways": figures.bars(self.ways, value)}

"""What are more data worth, and to whom? Models learn from ever more of the same examples.   LEE: Self-Attention"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from itertools import product

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from thalweg import figures
from thalweg.training import Task
from thalweg.vocabulary import Batch


class DataSizes(Task):
    """A copy of each of two classifiers learns from the first n images, for several n; all take as many steps.

    loss = - log softmax(model(image))[label]
    batch: image [size batch ...], label [size batch]; to evaluate, image [batch ...] and label [batch].
    convolution, attention: the classifiers.   sizes: the n, from few to many.   metrics: convolution_n, attention_n.
    """

    def __init__(self, convolution: nn.Module, attention: nn.Module, sizes: Sequence[int], num_classes: int):
        super().__init__()
        self.sizes = tuple(sizes)
        models = {"convolution": convolution, "attention": attention}
        named = {f"{name}_{size}": deepcopy(model) for (name, model), size in product(models.items(), sizes)}
        self.players = nn.ModuleDict(named)
        self.metrics = MetricCollection({name: MulticlassAccuracy(num_classes, average="micro") for name in named},
                                        compute_groups=False)  # fmt: skip

    def losses(self, batch: Batch) -> Iterator[tuple[nn.Module, Tensor, Tensor | int]]:
        for name, (place, size) in product(("convolution", "attention"), enumerate(self.sizes)):
            player, label = self.players[f"{name}_{size}"], batch["label"][place]
            yield player, cross_entropy(player(batch["image"][place]).float(), label, reduction="sum"), len(label)

    def evaluate(self, batch: Batch) -> None:
        for name, player in self.players.items():
            self.metrics[name].update(player(batch["image"]), batch["label"])

    @torch.inference_mode()
    def figures(self, batch: Batch) -> dict[str, Figure]:
        """The share that each names wrongly, by the number of images that it learned from."""
        wrong = {name: [(size, 1 - float(self.metrics[f"{name}_{size}"].compute())) for size in self.sizes]
                 for name in ("convolution", "attention")}  # fmt: skip
        return {"crossover": figures.curves(wrong, xlabel="training images", ylabel="share named wrongly", log=True, xlog=True)}

"""Metric learning: a distance under which what belongs together is near, also for classes never seen.   LBDL 3.1"""

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchmetrics import MetricCollection

from thalweg import figures
from thalweg.losses import triplet
from thalweg.metrics import MeanLoss, NearestNeighbours, Verification
from thalweg.training import Task
from thalweg.vocabulary import Batch


class MetricLearning(Task):
    """Learns a distance by which two photographs of one person are nearer than those of two persons.

    distance(x, x') = |z - z'|, z = encoder(x) / |encoder(x)|, in [0, 2]; the loss ranks distances, see `triplet`.
    The distance serves for classes that it was not learned on, which a classifier has no output for.

    encoder: image -> [batch feature].   batch: image [batch channel height width], label [batch].   classes: names.
    Schroff et al. 2015, arXiv:1503.03832.
    """

    def __init__(self, encoder: nn.Module, classes: Sequence[str] = (), margin: float = 0.5, mining: str = "all"):
        super().__init__()
        self.encoder, self.classes, self.margin, self.mining = encoder, tuple(classes), margin, mining
        self.metrics = MetricCollection(
            {"verification": Verification(), "nearest_neighbours": NearestNeighbours(), "loss": MeanLoss()},
            compute_groups=False,
        )

    def features(self, image: Tensor) -> Tensor:
        """Vectors of length 1, [batch feature], between which the distance is taken."""
        return normalize(self.encoder(image).float(), dim=-1)

    def ranking(self, features: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        return triplet(torch.cdist(features, features), label, self.margin, self.mining)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.ranking(self.features(batch["image"]), batch["label"])

    def evaluate(self, batch: Batch) -> None:
        """verification: ROC AUC of "are these two of one class?"; nearest_neighbours: accuracy of their vote."""
        features, label = self.features(batch["image"]), batch["label"]
        self.metrics["verification"].update(features, label)
        self.metrics["nearest_neighbours"].update(features, label)
        total, count = self.ranking(features, label)
        self.metrics["loss"].update(total / count.clamp(min=1), count)

    @torch.inference_mode()
    def predict(self, inputs: Batch) -> dict[str, Any]:
        """features: [batch feature], of length 1; how far apart two are is how different.   inputs: image"""
        return {"features": self.features(inputs["image"])}

    def figures(self, batch: Batch) -> dict[str, Figure]:
        seen = self.metrics["verification"]
        assert isinstance(seen, Verification)
        features, label = seen.seen()
        names = self.classes or [str(number) for number in range(int(label.max()) + 1)]
        return {
            "map of the features": figures.scatter(figures.principal_components(features[:3000]), label[:3000], names),
            "nearest neighbours": figures.nearest(batch["image"], self.features(batch["image"]), batch["label"], names),
        }

"""Two classes of points in the plane, and pictures of what every layer makes of the plane.   LBDL 3.5"""

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from thalweg import figures
from thalweg.metrics import MeanLoss
from thalweg.training import Task
from thalweg.vocabulary import Batch


class Warping(Task):
    """One of two classes for a point.   loss = - log softmax(model(features))[label]

    model: with `planes(x)`, the points after each layer, and `head`, the linear classifier of the last.
    batch: features [batch 2], label [batch].   classes: their names, in the order of the logits.
    """

    reads = "features"

    def __init__(self, model: nn.Module, classes: Sequence[str]):
        super().__init__()
        self.model, self.classes = model, tuple(classes)
        self.metrics = MetricCollection(
            {"accuracy": MulticlassAccuracy(len(self.classes), average="micro"), "loss": MeanLoss()}, compute_groups=False
        )

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        logits = self.model(batch["features"])
        return cross_entropy(logits, batch["label"], reduction="sum"), len(logits)

    def evaluate(self, batch: Batch) -> None:
        logits = self.model(batch["features"])
        self.metrics["accuracy"].update(logits, batch["label"])
        self.metrics["loss"].update(cross_entropy(logits, batch["label"], reduction="none"))

    @torch.inference_mode()
    def predict(self, inputs: Batch) -> dict[str, Any]:
        """label: names of the classes, best first; probability: theirs.   inputs: features [batch 2]"""
        probability, index = self.model(inputs["features"]).softmax(-1).sort(descending=True)
        return {"label": [[self.classes[i] for i in row] for row in index.tolist()], "probability": probability}

    @torch.no_grad()
    def figures(self, batch: Batch) -> dict[str, Figure]:
        model: Any = self.model
        points = batch["features"]
        mesh = torch.stack(torch.meshgrid(*[torch.linspace(-1.2, 1.2, 25).to(points)] * 2, indexing="xy"), -1)
        nets = [net.unflatten(0, mesh.shape[:2]) for net in model.planes(mesh.flatten(0, 1))]
        apart = model.head.weight[1] - model.head.weight[0], model.head.bias[1] - model.head.bias[0]
        return {"the plane after each layer": figures.warped(model.planes(points), nets, batch["label"], apart)}

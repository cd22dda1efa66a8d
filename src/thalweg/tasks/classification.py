"""Classification: one label an example.   LBDL 6.2, D2L 3.4"""

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix
from torchmetrics.regression import ExplainedVariance

from thalweg import figures
from thalweg.metrics import MeanLoss, MostWrong
from thalweg.training import Task
from thalweg.vocabulary import Batch, scaled


class Classification(Task):
    """One label an example.   loss = - log softmax(model(image))[label]

    batch: image [batch channel height width], label [batch] or, where images were mixed, [batch class] probabilities.
    classes: their names, in the order of the logits.   label_smoothing: the share of the target spread over all classes.
    """

    def __init__(self, model: nn.Module, classes: Sequence[str], label_smoothing: float = 0.0):
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing}: expected a number in [0, 1)")
        self.model, self.classes, self.label_smoothing = model, tuple(classes), label_smoothing
        count = len(self.classes)
        self.metrics = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(count, average="micro"),
                "loss": MeanLoss(),
                "confusion": MulticlassConfusionMatrix(count),
                "most_wrong": MostWrong(),
            },
            compute_groups=False,
        )

    def logits(self, batch: Batch) -> Tensor:
        return self.model(batch["image"])

    def shown(self, batch: Batch) -> Tensor:
        """What figures show of each example."""
        return batch["image"]

    def chances(self, inputs: dict[str, Any]) -> Tensor:
        """The probability of each class.   inputs: image [batch channel height width] -> [batch class]"""
        return self.model(inputs["image"]).float().softmax(-1)

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        logits = self.logits(batch)
        total = cross_entropy(logits, batch["label"], label_smoothing=self.label_smoothing, reduction="sum")
        return total, len(logits)

    def evaluate(self, batch: Batch) -> None:
        label, logits = batch["label"], self.logits(batch).float()
        self.metrics["accuracy"].update(logits, label)
        self.metrics["loss"].update(cross_entropy(logits, label, reduction="none"))
        self.metrics["confusion"].update(logits, label)
        self.metrics["most_wrong"].update(logits, label, self.shown(batch))

    @torch.inference_mode()
    def predict(self, inputs: dict[str, Any], *, top_k: int = 5) -> dict[str, Any]:
        """label: names of the top_k classes, best first; probability: theirs.   inputs: as of `chances`"""
        if top_k < 1:
            raise ValueError(f"top_k={top_k}: expected at least 1")
        probability, index = self.chances(inputs).topk(min(top_k, len(self.classes)))
        return {"label": [[self.classes[i] for i in row] for row in index.tolist()], "probability": probability}

    def figures(self, batch: Batch) -> dict[str, Figure]:
        worst = self.metrics["most_wrong"].compute()
        titles = [
            f"{self.classes[predicted]} {probability:.2f}\ntrue: {self.classes[label]}"
            for predicted, probability, label in zip(
                worst["predicted"].tolist(), worst["probability"].tolist(), worst["label"].tolist(), strict=True
            )
        ]
        colours = ["firebrick" if p != t else "seagreen" for p, t in zip(worst["predicted"], worst["label"], strict=True)]
        return {
            "confusion": figures.confusion(self.metrics["confusion"].compute(), self.classes),
            "most wrong": figures.image_grid(worst["image"], titles, colours=colours),
        }


class Straightening(Classification):
    """Classification by a model that looks first through a spatial transformer; draws what that made of the images.

    model: Standardized around a Sequential with a part named `transformer`.
    batch: image, label, and the angle by which each image was turned.
    turned_back: 1 - Var(what is left of the angle) / Var(angle).
    """

    def __init__(self, model: nn.Module, classes: Sequence[str], label_smoothing: float = 0.0):
        super().__init__(model, classes, label_smoothing)
        self.metrics.add_metrics({"turned_back": ExplainedVariance()})

    def evaluate(self, batch: Batch) -> None:
        super().evaluate(batch)
        outer: Any = self.model
        affine = outer.model.transformer.affine(outer.standardize(batch["image"])).float()
        turn = torch.atan2(affine[:, 1, 0] - affine[:, 0, 1], affine[:, 0, 0] + affine[:, 1, 1])
        self.metrics["turned_back"].update(-turn, batch["angle"])

    def figures(self, batch: Batch) -> dict[str, Figure]:
        outer: Any = self.model
        image = batch["image"][:16]
        with torch.no_grad():
            seen = outer.model.transformer(outer.standardize(image)) * outer.deviation + outer.mean
        original = interpolate(scaled(image), seen.shape[-2:], mode="bilinear")
        pairs = torch.stack([original, seen], 1).flatten(0, 1)
        titles = [side for label in batch["label"][:16].tolist() for side in (self.classes[label], "as seen")]
        return {**super().figures(batch), "straightened": figures.image_grid(pairs, titles)}

"""Semantic segmentation: a class a pixel.   LBDL 6.4, D2L 13.9"""

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassJaccardIndex

from thalweg import figures, losses
from thalweg.data.segmentation import IGNORE
from thalweg.metrics import BoundaryScore, MeanLoss, Worst
from thalweg.training import Task
from thalweg.vocabulary import Batch, scaled


class Segmentation(Task):
    """A class a pixel.   loss = - sum of log softmax(model(image))[segmentation] over the pixels that count

    batch: image [batch channel height width], segmentation [batch height width], 255 = does not count.
    model: gives logits [batch class height width], of whatever extent; they are scaled to that of the segmentation.
    classes: their names, in the order of the logits.
    dice: weight of one minus the overlap, for which a small class counts as much as a large one.
    """

    def __init__(self, model: nn.Module, classes: Sequence[str], dice: float = 0.0):
        super().__init__()
        if dice < 0:
            raise ValueError(f"dice={dice}: expected at least 0")
        self.model, self.classes, self.dice = model, tuple(classes), dice
        count = len(self.classes)
        self.metrics = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(count, average="micro", ignore_index=IGNORE, validate_args=False),
                "mean_iou": MulticlassJaccardIndex(count, ignore_index=IGNORE, validate_args=False),
                "boundary": BoundaryScore(count, ignore_index=IGNORE),
                "loss": MeanLoss(),
                "confusion": MulticlassConfusionMatrix(count, ignore_index=IGNORE, validate_args=False),
                "worst": Worst("image", "segmentation", "predicted", kept=6),
            },
            compute_groups=False,
        )

    def _logits(self, image: Tensor, size: Sequence[int]) -> Tensor:
        logits = self.model(image)
        return logits if logits.shape[-2:] == tuple(size) else interpolate(logits, tuple(size), mode="bilinear")

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        true = batch["segmentation"]
        logits = self._logits(batch["image"], true.shape[-2:])
        total, count = cross_entropy(logits, true, ignore_index=IGNORE, reduction="sum"), (true != IGNORE).sum()
        if self.dice:
            apart, terms = losses.dice(logits, true, ignore_index=IGNORE)
            total = total + self.dice * apart * count / terms.clamp(min=1)
        return total, count

    def evaluate(self, batch: Batch) -> None:
        image, true = batch["image"], batch["segmentation"]
        logits = self._logits(image, true.shape[-2:]).float()
        loss, counted = cross_entropy(logits, true, ignore_index=IGNORE, reduction="none"), true != IGNORE
        predicted = logits.argmax(1)
        for name in ("accuracy", "mean_iou", "boundary", "confusion"):
            self.metrics[name].update(predicted, true)
        self.metrics["loss"].update(loss[counted])
        wrong = ((predicted != true) & counted).float().mean((1, 2))
        self.metrics["worst"].update(wrong, image=image, segmentation=true, predicted=predicted)

    @torch.inference_mode()
    def predict(self, inputs: Batch) -> dict[str, Any]:
        """segmentation: the class of every pixel, [batch height width]; share: of each image, of the classes that occur.

        inputs: image [batch channel height width]
        """
        image = inputs["image"]
        logits = self.model(image).float()
        best = logits.new_full((len(image), *image.shape[-2:]), -torch.inf)
        segmentation = torch.zeros_like(best, dtype=torch.long)
        for label, score in enumerate(logits.split(1, 1)):  # one at a time: all the maps of a photograph would take gigabytes
            large = interpolate(score, image.shape[-2:], mode="bilinear")[:, 0]
            segmentation.masked_fill_(large > best, label)
            best = torch.maximum(best, large)
        shares = [row.flatten().bincount(minlength=len(self.classes)) / row.numel() for row in segmentation]
        named = [{self.classes[i]: float(share[i]) for i in share.argsort(descending=True) if share[i]} for share in shares]
        return {"segmentation": segmentation, "share": named}

    def draw(self, inputs: Batch, predicted: dict[str, Any]) -> Figure:
        """The first image, its classes as colours on it."""
        return figures.overlay(inputs["image"][0], predicted["segmentation"][0], self.classes)

    def figures(self, batch: Batch) -> dict[str, Figure]:
        image, true = batch["image"][:4], batch["segmentation"][:4]
        with torch.no_grad():
            predicted = self._logits(image, true.shape[-2:]).argmax(1)
        worst = self.metrics["worst"].compute()
        return {
            "segmentation": self._strips(image, true, predicted),
            "worst": self._strips(worst["image"], worst["segmentation"], worst["predicted"]),
            "confusion": figures.confusion(self.metrics["confusion"].compute(), self.classes),
        }

    def _strips(self, image: Tensor, true: Tensor, predicted: Tensor) -> Figure:
        """Each image, the truth and the prediction beside each other."""
        colours = figures.palette(len(self.classes))
        pictures = {"image": scaled(image),
                    "true": figures.tinted(image, true, colours, 0.75),
                    "predicted": figures.tinted(image, predicted, colours, 0.75)}  # fmt: skip
        return figures.segmentations(pictures, torch.cat([true, predicted]), self.classes)

"""Pointing: the answer is a sequence of places of the question.   LEE: Pointer Network"""

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection

from thalweg import figures
from thalweg.metrics import MeanLoss, Share
from thalweg.training import Task
from thalweg.vocabulary import Batch


class Pointing(Task):
    """Points at the corners of the convex hull of some points, one after the other.   loss = - sum_t log p(place_t | before)

    model: a `PointerNetwork`.   batch: points [batch read 2], mask [batch read], target [batch time], see `hulls`.
    whole: the share of examples of which every place, written freely, is right.
    """

    reads = "points"

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.metrics = MetricCollection({"whole": Share(), "accuracy": Share(), "loss": MeanLoss()}, compute_groups=False)

    def logits(self, batch: Batch) -> Tensor:
        """Of every step, with the truth before it."""
        target = batch["target"]
        read = torch.cat([torch.zeros_like(target[:, :1]), target[:, :-1]], 1)
        return self.model(batch["points"], batch["mask"], read).float()

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        target = batch["target"]
        total = cross_entropy(self.logits(batch).flatten(0, 1), target.flatten(), ignore_index=-1, reduction="sum")
        return total, (target >= 0).sum()

    def evaluate(self, batch: Batch) -> None:
        target, real = batch["target"], batch["target"] >= 0
        logits = self.logits(batch)
        self.metrics["loss"].update(cross_entropy(logits[real], target[real], reduction="none"))
        self.metrics["accuracy"].update((logits.argmax(-1) == target)[real].float())
        written = self.model.write(batch["points"], batch["mask"])  # type: ignore[operator]
        self.metrics["whole"].update(((written == target) | ~real).all(1).float())

    @torch.inference_mode()
    def predict(self, inputs: Batch) -> dict[str, Any]:
        """corners: the places of the corners, the first point is 1.   inputs: points [batch read 2], or x y x y ... of each"""
        points = inputs["points"]
        if points.ndim == 2 and points.shape[1] % 2:
            raise ValueError(f"points: {points.shape[1]} numbers, expected x and y of each")
        points = points.unflatten(1, (-1, 2)) if points.ndim == 2 else points
        written = self.model.write(points, torch.ones_like(points[..., 0], dtype=torch.bool))  # type: ignore[operator]
        return {"corners": [[place for place in row if place] for row in written.tolist()]}

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """Points with the hull that was found, red where it is another than the true one."""
        shown = {name: tensor[:12] for name, tensor in batch.items()}
        written = self.model.write(shown["points"], shown["mask"])  # type: ignore[operator]
        right = ((written == shown["target"]) | (shown["target"] < 0)).all(1).tolist()
        places = [[place - 1 for place in row if place > 0] for row in written.tolist()]
        sets = [points[real] for points, real in zip(shown["points"], shown["mask"], strict=True)]
        return {"hulls": figures.polygons(sets, places, ["seagreen" if good else "firebrick" for good in right])}

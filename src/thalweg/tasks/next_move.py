"""Predicting the next move on a board: classification with a class a point.   LEE: CNN"""

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from thalweg import figures
from thalweg.data.gomoku import point_names, read_board
from thalweg.metrics import MeanLoss
from thalweg.training import Task
from thalweg.vocabulary import Batch


class NextMove(Task):
    """Which point is played next.   loss = - log softmax(model(image))[label], over all points: that some are taken is learned

    batch: image [batch 3 size size], stones of who is to move, of the other, empty points; label [batch], the point, row by
    row.   size: points a side.
    """

    reads = "text"

    def __init__(self, model: nn.Module, size: int):
        super().__init__()
        self.model, self.size = model, size
        accuracy = {
            name: MulticlassAccuracy(size * size, top_k=k, average="micro") for name, k in (("accuracy", 1), ("top_5", 5))
        }
        self.metrics = MetricCollection({**accuracy, "loss": MeanLoss()}, compute_groups=False)

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        logits = self.model(batch["image"])
        return cross_entropy(logits, batch["label"], reduction="sum"), len(logits)

    def evaluate(self, batch: Batch) -> None:
        logits = self.model(batch["image"]).float()
        for name in ("accuracy", "top_5"):
            self.metrics[name].update(logits, batch["label"])
        self.metrics["loss"].update(cross_entropy(logits, batch["label"], reduction="none"))

    @torch.inference_mode()
    def probability(self, image: Tensor) -> Tensor:
        """Of the move to each point; points that are taken have none.   [batch size^2]"""
        taken = image[:, 2].flatten(1) == 0
        return self.model(image).float().masked_fill(taken, -torch.inf).softmax(-1)

    def predict(self, inputs: dict[str, Any], *, top_k: int = 5) -> dict[str, Any]:
        """label: the points of the top_k moves, best first; probability: theirs.

        inputs: text, boards as rows with / between, x of who is to move, o of the other, . where a point is empty.
        ValueError for a board of another size or a full one, and for top_k below 1.
        """
        if top_k < 1:
            raise ValueError(f"top_k={top_k}: expected at least 1")
        image = torch.cat([self._board(text) for text in inputs["text"]])
        probability, point = self.probability(image).topk(min(top_k, self.size**2))
        names = point_names(self.size)
        return {"label": [[names[place] for place in row] for row in point.tolist()], "probability": probability}

    def _board(self, text: str) -> Tensor:
        image = read_board(text)
        if image.shape[-1] != self.size:
            raise ValueError(f"board: {image.shape[-1]} points a side, expected {self.size}")
        if not image[:, 2].any():
            raise ValueError("board: it is full")
        return image

    def figures(self, batch: Batch) -> dict[str, Figure]:
        image, label = batch["image"][-12:], batch["label"][-12:]  # late positions, where there is something to see
        return {"moves": figures.boards(image, self.probability(image).unflatten(1, (self.size, -1)), label)}

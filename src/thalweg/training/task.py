"""A task says what is learned: it turns a batch into losses, metrics, predictions and pictures.

It holds its networks (and targets, averages, queues) as submodules. It never sees an optimiser, device, precision,
rank or step number.
"""

from collections.abc import Iterator
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import MetricCollection

from thalweg.vocabulary import Batch


class Task(nn.Module):
    """What is learned. Override `loss`, or `losses` where there are several players or something to do after a step.

    Attributes a task may set: `metrics` (a torchmetrics collection that `evaluate` feeds), `reads` (what a user hands
    to `predict`: "image", "text" or "video").
    """

    reads: str = "image"

    def __init__(self) -> None:
        super().__init__()
        self.metrics = MetricCollection({})

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor | int]:
        """The sum of the terms of the loss, and how many terms were summed."""
        raise NotImplementedError(f"{type(self).__name__} defines neither loss nor losses")

    def losses(self, batch: Batch) -> Iterator[tuple[nn.Module, Tensor, Tensor | int]]:
        """Yields who learns, sum and count. That player's step is taken at the yield; what follows runs after it."""
        yield self, *self.loss(batch)

    def evaluate(self, batch: Batch) -> None:
        """Feeds self.metrics."""

    def predict(self, inputs: Any) -> dict[str, Any]:
        """What a user gets for an input: labels and probabilities, a text, boxes."""
        raise NotImplementedError(f"{type(self).__name__} does not predict")

    def draw(self, inputs: Any, predicted: dict[str, Any]) -> Figure | None:
        """What was predicted for an input, as a picture; None where words say it all."""
        return None

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """Pictures of how the task is doing: of this batch, and of what was evaluated since the metrics were reset."""
        return {}

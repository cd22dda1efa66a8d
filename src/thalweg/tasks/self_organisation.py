"""Learning without labels and without backpropagation: the cell that answers most learns to answer more.   Fukushima 1980"""

from collections.abc import Iterator
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from thalweg import figures
from thalweg.tasks.classification import Classification
from thalweg.vocabulary import Batch


class SelfOrganisation(Classification):
    """A neocognitron organises itself by the images alone; a linear read-out of it learns to name them.

    Two players: `model.model.stages`, where plain gradient descent at the rate q on -agreement is the reinforcement of 1980
    (of the winners only; no slope crosses from stage to stage), and `model.model.head`, by cross-entropy.
    model: Standardized around a Neocognitron.   batch: image, label.
    """

    def losses(self, batch: Batch) -> Iterator[tuple[nn.Module, Tensor, Tensor | int]]:
        outer: Any = self.model
        network, x = outer.model, outer.standardize(batch["image"])
        agreement = torch.zeros((), device=x.device)
        for stage in network.stages:
            agreement = agreement + stage[0].agreement(x)
            x = stage(x).detach()
        yield network.stages, -agreement, 1
        logits = network.head(x.amax((2, 3)))
        yield network.head, cross_entropy(logits, batch["label"], reduction="sum"), len(logits)

    @torch.no_grad()
    def figures(self, batch: Batch) -> dict[str, Figure]:
        outer: Any = self.model
        x, drawn = outer.standardize(batch["image"][:1]), super().figures(batch)
        for number, (look, blur) in enumerate(outer.model.stages, 1):
            answer = look(x)
            x = blur(answer)
            drawn |= {f"{name}-cells of stage {number}": figures.feature_maps(cells[0, :32]) for name, cells in
                      (("S", answer), ("C", x))}  # fmt: skip
        return drawn

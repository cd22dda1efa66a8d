"""How far a classifier stays right when what it sees is turned or scaled.   LEE: CNN

A convolution answers to a shifted image with shifted maps, but to a turned or scaled one with other maps: what looks alike
to a person is new to the network, unless it has learned from such images too.
"""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

from thalweg import figures
from thalweg.data.augmentation import turned
from thalweg.tasks.classification import Classification
from thalweg.vocabulary import Batch

ANGLES = tuple(range(-90, 91, 15))  # degrees
SCALES = tuple(range(40, 161, 20))  # percent


class Invariance(Classification):
    """Classification, evaluated on images as they are; every fifth also turned by each of ANGLES, scaled to each of SCALES.

    turned_by_30, scaled_to_60, ...: the accuracy on images turned by 30 degrees, scaled to 60 percent of their size.
    batch: image [batch channel height width], label [batch].
    """

    def __init__(self, model: nn.Module, classes: Sequence[str], label_smoothing: float = 0.0):
        super().__init__(model, classes, label_smoothing)
        self.changes = {f"turned_by_{angle}": (angle, 1.0) for angle in ANGLES}
        self.changes |= {f"scaled_to_{scale}": (0, scale / 100) for scale in SCALES}
        self.metrics.add_metrics({name: MulticlassAccuracy(len(self.classes), average="micro") for name in self.changes})

    def evaluate(self, batch: Batch) -> None:
        super().evaluate(batch)
        image, label = batch["image"][::5], batch["label"][::5]
        for name, change in self.changes.items():
            self.metrics[name].update(self.model(turned(image, *change)), label)

    def figures(self, batch: Batch) -> dict[str, Figure]:
        accuracy = {name: float(self.metrics[name].compute()) for name in self.changes}
        over_angle = [(angle, accuracy[f"turned_by_{angle}"]) for angle in ANGLES]
        over_scale = [(scale, accuracy[f"scaled_to_{scale}"]) for scale in SCALES]
        changed = torch.cat([turned(batch["image"][:1], *change) for change in self.changes.values()])
        return {
            **super().figures(batch),
            "accuracy of turned images": figures.curves({"accuracy": over_angle}, xlabel="degrees", ylabel="accuracy"),
            "accuracy of scaled images": figures.curves({"accuracy": over_scale}, xlabel="percent", ylabel="accuracy"),
            "one image changed": figures.image_grid(changed, [name.replace("_", " ") for name in self.changes], columns=10),
        }

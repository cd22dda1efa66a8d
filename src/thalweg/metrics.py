"""Metrics that torchmetrics has not."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, normalize, one_hot
from torchmetrics import MeanMetric, Metric
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities import dim_zero_cat


class MeanLoss(MeanMetric):
    """The mean of the terms of a loss, of which less is better."""

    higher_is_better = False  # type: ignore[assignment]


class Perplexity(MeanLoss):
    """exp of the mean loss in nats: among how many equally probable tokens one would be as unsure.   LBDL 3.2, D2L 8.4"""

    def compute(self) -> Tensor:
        return super().compute().exp()


class MostWrong(Metric):
    """Keeps the examples of the largest loss: input, label, prediction and its probability.

    What a model gets most wrong is where the data are wrong, or where it has something to learn.
    """

    higher_is_better = None
    full_state_update = False

    def __init__(self, kept: int = 24, **arguments: Any):
        super().__init__(**arguments)
        self.kept = kept
        for name in ("loss", "label", "predicted", "probability", "image"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, label: Tensor, image: Tensor) -> None:
        logits = logits.float()
        loss = torch.nn.functional.cross_entropy(logits, label, reduction="none")
        probability, predicted = logits.softmax(-1).max(-1)
        new = {"loss": loss, "label": label, "predicted": predicted, "probability": probability, "image": image}
        rows = {name: torch.cat([*held, new[name]]) for name, held in self.metric_state.items()}
        for name, value in self._worst(rows).items():
            setattr(self, name, [value])

    def compute(self) -> dict[str, Tensor]:
        return self._worst({name: dim_zero_cat(held) for name, held in self.metric_state.items()})

    def _worst(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        worst = rows["loss"].topk(min(self.kept, len(rows["loss"]))).indices
        return {name: value[worst] for name, value in rows.items()}


class _Features(Metric):
    """Keeps features and labels; a subclass says how well classes are told apart by them.

    Examples in even places are known, those in odd places are asked for: what is measured was not learned from.
    """

    higher_is_better = True
    full_state_update = False
    features: list[Tensor]
    label: list[Tensor]

    def __init__(self, **arguments: Any):
        super().__init__(**arguments)
        self.add_state("features", [], dist_reduce_fx="cat")
        self.add_state("label", [], dist_reduce_fx="cat")

    def update(self, features: Tensor, label: Tensor) -> None:
        self.features.append(features)
        self.label.append(label)

    def seen(self) -> tuple[Tensor, Tensor]:
        """All features [example feature] and labels [example]."""
        return dim_zero_cat(self.features), dim_zero_cat(self.label)


class LinearProbe(_Features):
    """Accuracy of a linear classifier by ridge regression on standardised features, ahead of which nothing is tuned.

    W = (X'X + ridge n I)^-1 X'Y, Y one-hot, n the number of known examples.   Hoerl, Kennard 1970.   D2L 3.1
    """

    def __init__(self, ridge: float = 1e-2, **arguments: Any):
        super().__init__(**arguments)
        self.ridge = ridge

    def compute(self) -> Tensor:
        features, label = self.seen()
        deviation, mean = torch.std_mean(features[::2].double(), 0)
        x = (features.double() - mean) / deviation.clamp(min=1e-6)
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        known, y = x[::2], one_hot(label[::2], int(label.max()) + 1).double()
        gram = known.T @ known + self.ridge * len(known) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        answer = x[1::2] @ torch.linalg.solve(gram, known.T @ y)
        return (answer.argmax(1) == label[1::2]).float().mean()


class NearestNeighbours(_Features):
    """Accuracy of the most frequent class among the `neighbours` known examples of the most similar direction."""

    def __init__(self, neighbours: int = 10, **arguments: Any):
        super().__init__(**arguments)
        self.neighbours = neighbours

    def compute(self) -> Tensor:
        features, label = self.seen()
        unit = normalize(features.float(), dim=-1)
        nearest = (unit[1::2] @ unit[::2].T).topk(min(self.neighbours, len(label[::2]))).indices
        return (label[::2][nearest].mode(1).values == label[1::2]).float().mean()


class Verification(_Features):
    """How well "are these two of one class?" is answered by the similarity of the directions of their features.

    The area under the ROC curve over all pairs of a known example and one asked for: the chance that two of one class are
    more similar than two of different classes; 1/2 by guessing. Classes need not have been seen before.   LBDL 3.1
    """

    def compute(self) -> Tensor:
        features, label = self.seen()
        unit = normalize(features.float(), dim=-1)
        similarity = unit[1::2] @ unit[::2].T
        return binary_auroc((1 + similarity.flatten()) / 2, (label[1::2, None] == label[::2]).flatten().long())


class ProposalRecall(Metric):
    """The share of true boxes that one of the first proposals of their image overlaps by half.

    count: how many proposals of an image are looked at.   threshold: intersection over union that is enough.
    """

    higher_is_better = True
    full_state_update = False
    found: Tensor
    total: Tensor

    def __init__(self, count: int = 100, threshold: float = 0.5, **arguments: Any):
        super().__init__(**arguments)
        self.count, self.threshold = count, threshold
        for name in ("found", "total"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, overlap: Tensor, box_label: Tensor) -> None:
        """overlap: of boxes with proposals, best first, [batch box proposal].   box_label: [batch box], -1 is padding"""
        real = box_label >= 0
        self.found += ((overlap[..., : self.count].amax(-1) >= self.threshold) & real).sum()
        self.total += real.sum()

    def compute(self) -> Tensor:
        return self.found / self.total.clamp(min=1)


class RandomFeatures(nn.Module):
    """What a fixed random network sees: the mean of each of its 224 maps, at a half, a quarter and an eighth of the extent.

    Not trained on anything, so it knows no classes; but the Frechet distance between two sets of images in it grows with
    noise, with blur, with images that only share mean and covariance, and with classes left out.
    image: [batch 1 or 3 height width] uint8 or float in [0, 1] -> [batch 224]
    Naeem et al. 2020, arXiv:2002.09797, for networks with random weights where no trained one fits the images.
    """

    num_features = 224

    def __init__(self, seed: int = 0):
        super().__init__()
        random, channels = torch.Generator().manual_seed(seed), 3
        for stage, out in enumerate((32, 64, 128)):
            weight = torch.randn(out, channels, 3, 3, generator=random) * (2 / (9 * channels)) ** 0.5
            bias = torch.randn(out, generator=random) / 2
            self.register_buffer(f"weight{stage}", weight, persistent=False)  # a function of the seed: nothing to save
            self.register_buffer(f"bias{stage}", bias, persistent=False)
            channels = out

    def forward(self, image: Tensor) -> Tensor:
        scale = 255 if image.dtype == torch.uint8 else 1
        means = []
        with torch.autocast(image.device.type, enabled=False):
            x = (2 * image.float() / scale - 1).expand(-1, 3, -1, -1)
            for stage in range(3):
                x = conv2d(x, getattr(self, f"weight{stage}"), getattr(self, f"bias{stage}"), stride=2, padding=1).relu()
                means.append(x.mean((2, 3)))
        return torch.cat(means, 1)

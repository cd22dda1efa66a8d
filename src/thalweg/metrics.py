"""Metrics that torchmetrics has not."""

from collections.abc import Sequence
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


class AveragePrecision(Metric):
    """Mean average precision of a detector by COCO's rules, from what its boxes, or masks, share with the true ones.

    From the most to the least probable, a detection is right if, of the true objects of its class in its image that no
    other has found, the most similar has an intersection over union of at least t. P(r): the best precision at recall r
    or more. AP = mean of P over r = 0, 0.01 .. 1; then the mean over t (0.5, 0.55 .. 0.95, unless given) and over classes.
    most: detections of a class and image that count, the most probable.   Lin et al. 2014, arXiv:1405.0312.
    Elsewhere: torchmetrics asks pycocotools, and counts crowds, areas and numbers of detections apart.
    """

    higher_is_better = True
    full_state_update = False
    score: list[Tensor]
    label: list[Tensor]
    right: list[Tensor]
    present: Tensor

    def __init__(self, classes: int, thresholds: Sequence[float] | None = None, most: int = 100, **arguments: Any):
        super().__init__(**arguments)
        self.thresholds = [0.5 + 0.05 * step for step in range(10)] if thresholds is None else list(thresholds)
        self.most = most
        for name in ("score", "label", "right"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.add_state("present", torch.zeros(classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, overlap: Tensor, score: Tensor, label: Tensor, true_label: Tensor) -> None:
        """Of one image: intersection over union [detection true], score and label of detections, label of what is there."""
        order = score.argsort(descending=True, stable=True)
        before = torch.stack([(label[order] == c).cumsum(0) for c in range(len(self.present))], 1)  # of its class, with it
        order = order[before.gather(1, label[order, None])[:, 0] <= self.most]
        score, label = score[order], label[order]
        similar = overlap[order].masked_fill(label[:, None] != true_label, -1).double().cpu()
        least = torch.tensor(self.thresholds, dtype=torch.float64)
        right = torch.zeros(len(order), len(least), dtype=torch.bool)
        free = torch.ones(len(least), len(true_label), dtype=torch.bool)
        able = similar.amax(1) >= least.min() if len(true_label) else torch.zeros(0)
        for detection in able.nonzero()[:, 0].tolist():
            most, index = similar[detection].where(free, -1).flip(1).max(1)  # of equal ones the last, as COCO has it
            right[detection] = most >= least
            free[right[detection], len(true_label) - 1 - index[right[detection]]] = False
        self.score.append(score)
        self.label.append(label)
        self.right.append(right.to(score.device))
        self.present += true_label.bincount(minlength=len(self.present))

    def table(self) -> Tensor:
        """Average precision of every class at every threshold, nan for a class that is nowhere.   [class threshold]"""
        score, label, right = (dim_zero_cat(held).cpu() for held in (self.score, self.label, self.right))
        order = score.argsort(descending=True, stable=True)
        rows = []
        for number, count in enumerate(self.present.tolist()):
            hit = right[order[label[order] == number]].double().cumsum(0)  # [detection threshold]
            precision = hit / torch.arange(1, len(hit) + 1)[:, None]
            best = torch.cat([precision.flip(0).cummax(0).values.flip(0), hit.new_zeros(1, hit.shape[1])])
            wanted = torch.linspace(0, 1, 101, dtype=torch.float64).expand(hit.shape[1], -1).contiguous()
            place = torch.searchsorted((hit / max(count, 1)).T.contiguous(), wanted).T  # the first of at least this recall
            rows.append(best.gather(0, place).mean(0) if count else hit.new_full(hit.shape[1:], torch.nan))
        return torch.stack(rows)

    def compute(self) -> Tensor:
        return self.table().nanmean().float()


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

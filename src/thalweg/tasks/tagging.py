"""Tagging: any number of labels an example, none of which excludes another.   D2L 1.1"""

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics import MetricCollection
from torchmetrics.classification import MultilabelF1Score

from thalweg import figures
from thalweg.metrics import LabelF1, LabelPrecision, LabelsAboveFrequency, MeanLoss, Worst
from thalweg.training import Task
from thalweg.vocabulary import Batch

SHOWN = 12  # images of the figure


class Tagging(Task):
    """Any number of labels an example.   loss = - sum_l (y_l log p_l + (1 - y_l) log(1 - p_l))

    logit p_l = model(image)_l + logit f_l, f_l the frequency of the label: the model says what the image makes of the odds.
    A label is given where logit p_l > min(0, logit(f_l) / 2): halfway, as odds multiply, between what is known without
    looking and an even chance. F1 is highest at half of its highest value (Lipton, Elkan, Narayanaswamy 2014,
    arXiv:1402.1892), which is between f / (1 + f), where images tell nothing, and 1/2, where they tell all.
    batch: image [batch channel height width], label [batch class], 1 where the example has the class, 0 where not.
    model: image -> [batch class].   classes: their names.   frequency: the share of training examples with each.
    Beside three metrics stands what an answer attains that never looks: for macro_f1 it gives every label, for micro_f1 the
    most frequent ones, so many as suit the training examples best, for mAP it ranks at random.
    ValueError unless there is a frequency above 0 and below 1 for each class.
    """

    prior: Tensor
    threshold: Tensor
    frequent: Tensor

    def __init__(self, model: nn.Module, classes: Sequence[str], frequency: Sequence[float]):
        super().__init__()
        self.model, self.classes, count = model, tuple(classes), len(classes)
        if len(frequency) != count or not all(0 < share < 1 for share in frequency):
            raise ValueError(f"frequency={list(frequency)}: expected a number above 0 and below 1 for each of {count} classes")
        share = torch.tensor(frequency, dtype=torch.float64)
        self.register_buffer("prior", share.logit().float(), persistent=False)
        self.register_buffer("threshold", (share.logit() / 2).clamp(max=0).sigmoid().float(), persistent=False)
        self.register_buffer("frequent", most_frequent(share), persistent=False)
        self.metrics = MetricCollection(
            {
                "macro_f1": LabelF1(count),
                "micro_f1": MultilabelF1Score(count, average="micro"),
                "mAP": LabelPrecision(),
                "baseline_macro_f1": LabelF1(count),
                "baseline_micro_f1": MultilabelF1Score(count, average="micro"),
                "baseline_mAP": LabelPrecision(),
                "labels_above_baseline": LabelsAboveFrequency(count),
                "loss": MeanLoss(),
                "worst": Worst("image", "label", "said", "probability", kept=SHOWN),
            },
            compute_groups=False,
        )

    def change(self, batch: Batch) -> Tensor:
        """By how much the logit of each label differs from that of its frequency.   [batch class]"""
        return self.model(batch["image"])

    def logits(self, batch: Batch) -> Tensor:
        return self.change(batch) + self.prior

    def chances(self, inputs: Batch) -> Tensor:
        """The probability of each label.   inputs: image [batch channel height width] -> [batch class]"""
        return (self.model(inputs["image"]) + self.prior).sigmoid()

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        logits = self.logits(batch)
        return binary_cross_entropy_with_logits(logits, batch["label"], reduction="sum"), logits.numel()

    def evaluate(self, batch: Batch) -> None:
        logits, label = self.logits(batch), batch["label"]
        probability, true = logits.sigmoid(), label.long()
        said = (probability > self.threshold).long()
        always, frequent = torch.ones_like(true), self.frequent.long().expand_as(true)
        for name, answer, baseline in (("macro_f1", said, always), ("micro_f1", said, frequent),
                                       ("mAP", probability, torch.zeros_like(probability))):  # fmt: skip
            self.metrics[name].update(answer, true)
            self.metrics[f"baseline_{name}"].update(baseline, true)
        self.metrics["labels_above_baseline"].update(said, true)
        loss = binary_cross_entropy_with_logits(logits, label, reduction="none")
        self.metrics["loss"].update(loss)
        self.metrics["worst"].update(loss.mean(1), image=batch["image"], label=true, said=said, probability=probability)

    @torch.inference_mode()
    def predict(self, inputs: Batch, *, least: float | None = None) -> dict[str, Any]:
        """label: names of the labels of each image, the most probable first; probability: theirs.

        inputs: as of `chances`.   least: the probability that a label needs; if not given, each its own.
        ValueError for one that is no probability.
        """
        if least is not None and not 0 <= least <= 1:
            raise ValueError(f"least={least}: expected a number in [0, 1]")
        chances = self.chances(inputs)
        given = chances > self.threshold if least is None else chances >= least
        ranked, order = chances.where(given, -1).sort(descending=True)
        count = given.sum(1).tolist()
        return {"label": [[self.classes[i] for i in row[:k]] for row, k in zip(order.tolist(), count, strict=True)],
                "probability": [row[:k] for row, k in zip(ranked, count, strict=True)]}  # fmt: skip

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """F1 of each label, beside that of giving it always; the images of the largest loss, in red what is wrong of them."""
        metric: Any = self.metrics["labels_above_baseline"]
        f1, always = metric.table().T.tolist()
        worst = self.metrics["worst"].compute()
        rows = zip(*(worst[name].tolist() for name in ("probability", "said", "label")), strict=True)
        return {
            "f1": figures.bars(self.classes, {"F1": f1, "F1 if always given": always}),
            "most wrong": figures.captioned(worst["image"], [self._compared(*row) for row in rows]),
        }

    def _compared(self, probability: list[float], said: list[int], label: list[int]) -> list[tuple[str, str]]:
        """What was said of an image and what was missed, the most probable first, and the colour of each."""
        found = sorted(zip(probability, said, label, self.classes, strict=True), reverse=True)
        return [(f"{'' if given else 'missed: '}{name} {chance:.2f}", "seagreen" if given and there else "firebrick")
                for chance, given, there, name in found if given or there]  # fmt: skip


class TaggingFeatures(Tagging):
    """Tagging whose batches carry what the model's frozen encoder made of the images, see `thalweg.tasks.transfer`.

    model: a Probe or another with `read`, features -> logits.   batch: image, label, features [batch feature]
    """

    def change(self, batch: Batch) -> Tensor:
        return self.model.read(batch["features"])  # type: ignore[operator]


def most_frequent(share: Tensor) -> Tensor:
    """Which labels to give always so that F1 over all answers is highest: the k most frequent, of the best k.

    F1 = 2 sum_{l <= k} f_l / (k + sum_l f_l).   share: f, [class] -> bool [class]
    """
    ranked, order = share.sort(descending=True, stable=True)
    best = int((ranked.cumsum(0) / (torch.arange(1, len(share) + 1) + share.sum())).argmax())
    return torch.zeros_like(share, dtype=torch.bool).index_fill(0, order[: best + 1], True)

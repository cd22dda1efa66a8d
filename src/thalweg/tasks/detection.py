"""Detection: what is where on an image.   LBDL 6.3, D2L 13.3 to 13.7"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, smooth_l1_loss
from torchmetrics import MetricCollection

from thalweg import figures
from thalweg.layers.boxes import class_nms, clip, decode, encode, generalised_iou, iou, match, to_centres
from thalweg.losses import quality_focal
from thalweg.metrics import AveragePrecision, MeanLoss
from thalweg.training import Task
from thalweg.vocabulary import Batch


class Found(NamedTuple):
    """What was found on an image, the most probable first.   [box 4] in its pixels, [box], [box]"""

    boxes: Tensor
    probability: Tensor
    label: Tensor


class Detection(Task):
    """What is where on an image; a subclass says what a model's raw output costs, and what it means.

    model: a Detector, or whatever the subclass reads.   classes: names, in the order of box_label.
    overlap: of two boxes of one class that share more than this (intersection over union) the less probable is dropped.
    batch: image [batch channel height width], boxes [batch box 4] in its pixels, box_label [batch box], -1 for padding.
    """

    def __init__(self, model: nn.Module, classes: Sequence[str], overlap: float = 0.5):
        super().__init__()
        if not 0 <= overlap <= 1:
            raise ValueError(f"overlap={overlap}: expected a number in [0, 1]")
        self.model, self.classes, self.overlap = model, tuple(classes), overlap
        count = len(self.classes)
        self.metrics = MetricCollection(
            {"mAP50": AveragePrecision(count, [0.5]), "mAP": AveragePrecision(count), "loss": MeanLoss()},
            compute_groups=False,
        )

    def cost(self, raw: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum and count of the terms of the loss of a raw output."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its model's output costs")

    def read(self, raw: Any) -> tuple[Tensor, Tensor]:
        """Probabilities [batch anchor class] and boxes [batch anchor 4], in shares of the image, of a raw output.

        Here: of logits whose class 0 is nothing, and of offsets as `encode` has them.
        """
        logits, offsets, anchors = raw
        return logits.float().softmax(-1)[..., 1:], decode(offsets.float(), anchors)

    def raw(self, batch: Batch) -> Any:
        """What the model says of the images."""
        return self.model(batch["image"])

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor | int]:
        return self.cost(self.raw(batch), batch)

    def found(self, raw: Any, size: Sequence[int], least: float) -> list[Found]:
        """What a raw output finds on each image of that height and width, with at least that probability: 100 boxes at most."""
        (height, width), (probability, boxes) = size, self.read(raw)
        boxes = clip(boxes * boxes.new_tensor([width, height, width, height]), height, width)
        answers = []
        for p, b in zip(probability, boxes, strict=True):
            score, place = p.flatten().topk(min(1000, p.numel()))
            score, place = score[score >= least], place[score >= least]
            box, label = b[place // len(self.classes)], place % len(self.classes)
            kept = class_nms(box, score, label, self.overlap)[:100]
            answers.append(Found(box[kept], score[kept], label[kept]))
        return answers

    def evaluate(self, batch: Batch) -> None:
        self.measure(self.raw(batch), batch)

    def measure(self, raw: Any, batch: Batch) -> None:
        """Updates the metrics by a raw output."""
        total, count = self.cost(raw, batch)
        self.metrics["loss"].update(total / count, count)
        self.rank(self.found(raw, batch["image"].shape[2:], least=0.01), batch)

    def rank(self, found: list[Found], batch: Batch) -> None:
        """Updates the average precision by what was found on the images of a batch."""
        for seen, boxes, label in zip(found, batch["boxes"], batch["box_label"], strict=True):
            real = label >= 0
            overlap = iou(seen.boxes.double(), boxes[real].double())
            for name in ("mAP50", "mAP"):
                self.metrics[name].update(overlap, seen.probability, seen.label, label[real])

    @torch.inference_mode()
    def predict(self, inputs: Batch, *, least: float = 0.5) -> dict[str, Any]:
        """boxes in pixels, probability of at least `least`, and name of what is found on each image, most probable first."""
        return self.told(self.found(self.raw(inputs), inputs["image"].shape[2:], least=least))

    def told(self, found: list[Found]) -> dict[str, Any]:
        """What was found, as predict gives it."""
        return {
            "label": [[self.classes[i] for i in seen.label.tolist()] for seen in found],
            "probability": [seen.probability for seen in found],
            "boxes": [seen.boxes for seen in found],
        }

    def draw(self, inputs: Batch, predicted: dict[str, Any]) -> Figure:
        """The images with what was found on them."""
        titles = [
            [f"{name} {p:.2f}" for name, p in zip(*row, strict=True)]
            for row in zip(predicted["label"], predicted["probability"], strict=True)
        ]
        colours = [[f"C{self.classes.index(name) % 10}" for name in row] for row in predicted["label"]]
        width = 6.4 if len(titles) == 1 else 3.2
        return figures.draw_boxes(inputs["image"], predicted["boxes"], titles, colours, width=width)

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """What is there beside what was found, on the first images that hold something and on the worst; precision a class."""
        size = batch["image"].shape[2:]
        with torch.no_grad():
            raw = self.raw(batch)
            found = self.found(raw, size, least=0.5)
        truth = [
            (boxes[label >= 0], label[label >= 0]) for boxes, label in zip(batch["boxes"], batch["box_label"], strict=True)
        ]
        wrong = torch.tensor([self._wrong(seen, *there) for seen, there in zip(found, truth, strict=True)])
        pictures = {}
        filled = [
            index for index, (seen, there) in enumerate(zip(found, truth, strict=True)) if len(seen.label) + len(there[1])
        ]
        some = {"detections": (filled or [0])[:4], "worst": wrong.argsort(descending=True)[:4].tolist()}
        for name, chosen in some.items():
            boxes, titles, colours = [], [], []
            for index in chosen:
                (there, label), seen = truth[index], found[index]
                boxes += [there, seen.boxes]
                titles += [[self.classes[i] for i in label.tolist()],
                           [f"{p:.2f}" for p in seen.probability.tolist()]]  # fmt: skip
                colours += [[f"C{i % 10}" for i in held.tolist()] for held in (label, seen.label)]
            pictures[name] = figures.draw_boxes(self.compared(batch, raw, chosen), boxes, titles, colours)
        precision: Any = self.metrics["mAP"]
        if len(precision.score):
            table = precision.table().nan_to_num(0.0)
            of_class = {"AP50": table[:, 0].tolist(), "AP": table.mean(1).tolist()}
            pictures["precision"] = figures.bars(self.classes, of_class)
        return pictures

    def compared(self, batch: Batch, raw: Any, chosen: list[int]) -> Tensor:
        """The chosen images of a batch twice each, to draw what is there on the one and what was found on the other."""
        return batch["image"][chosen].repeat_interleave(2, 0)

    def _wrong(self, seen: Found, boxes: Tensor, label: Tensor) -> int:
        """How many were missed, and found where nothing of the class is."""
        same = (iou(seen.boxes, boxes) >= 0.5) & (seen.label[:, None] == label)
        return int((~same.any(0)).sum() + (~same.any(1)).sum())


def _shares(batch: Batch) -> Tensor:
    """The boxes of a batch in shares of its images' width and height."""
    height, width = batch["image"].shape[2:]
    return batch["boxes"].float() / batch["boxes"].new_tensor([width, height, width, height], dtype=torch.float32)


class MultiBox(Detection):
    """Detection by anchors: each that overlaps a thing is taught its class and the offset of its box, others "nothing".

    sum over matched anchors of cross-entropy and of smooth L1 of the offsets, plus the cross-entropy of those anchors with
    nothing in them that are most wrong, `negatives` times as many as there are matched ones in the image; a term a match.
    Liu et al. 2015, arXiv:1512.02325.   D2L 13.4, 13.7
    """

    def __init__(
        self, model: nn.Module, classes: Sequence[str], overlap: float = 0.5, negatives: float = 3.0, threshold: float = 0.5
    ):
        super().__init__(model, classes, overlap)
        self.negatives, self.threshold = negatives, threshold
        self.metrics.add_metrics({"class_error": MeanLoss(), "offset_error": MeanLoss()})

    def targets(self, anchors: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The label of each anchor [batch anchor], -1 for nothing, and the offsets of the boxes of the others, in order."""
        boxes = _shares(batch)
        index, label = match(anchors, boxes, batch["box_label"], self.threshold)
        taught = label >= 0
        chosen = boxes.gather(1, index[..., None].expand(-1, -1, 4))[taught]
        return label, encode(chosen, anchors.expand(len(label), -1, -1)[taught])

    def cost(self, raw: tuple[Tensor, Tensor, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        logits, offsets, anchors = raw
        label, wanted = self.targets(anchors, batch)
        taught = label >= 0
        surprise = cross_entropy(logits.float().flatten(0, 1), label.flatten() + 1, reduction="none").view_as(label)
        count = taught.sum(1).clamp(min=1)  # an image of nothing teaches as one with a thing
        rank = surprise.detach().masked_fill(taught, -1).argsort(1, descending=True).argsort(1)
        hard = ~taught & (rank < self.negatives * count[:, None])
        apart = smooth_l1_loss(offsets[taught].float(), wanted, reduction="sum")
        return surprise[taught | hard].sum() + apart, count.sum()

    def measure(self, raw: tuple[Tensor, Tensor, Tensor], batch: Batch) -> None:
        """As any detection; and over all anchors the share of wrong classes and the mean absolute error of offsets.

        Most anchors have nothing, and their offsets count as right: both are small early.   D2L 13.7
        """
        super().measure(raw, batch)
        logits, offsets, anchors = raw
        label, wanted = self.targets(anchors, batch)
        self.metrics["class_error"].update((logits.argmax(-1) != label + 1).float())
        apart = (offsets[label >= 0].float() - wanted).abs().sum()
        self.metrics["offset_error"].update(apart / offsets.numel(), offsets.numel())


class SingleBox(Detection):
    """LBDL's detection: each thing has one place, of the scale of its longer side and nearest to its centre.

    Cross-entropy of every place, most of which have nothing, plus the mean squared error of the boxes of those with a thing.
    Of several things with the same place the first has it.   LBDL 6.3
    """

    def cost(self, raw: tuple[Tensor, Tensor, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        logits, offsets, anchors = raw
        boxes, box_label = _shares(batch), batch["box_label"]
        place, owns = places(anchors, boxes, box_label)
        label = torch.zeros_like(logits[..., 0], dtype=torch.long).scatter_reduce(1, place, (box_label + 1) * owns, "amax")
        surprise = cross_entropy(logits.float().flatten(0, 1), label.flatten(), reduction="sum")
        given = offsets.gather(1, place[..., None].expand(-1, -1, 4))[owns].float()
        apart = (given - encode(boxes[owns], anchors[place[owns]])).square().mean(1).sum()
        return surprise + apart, owns.sum().clamp(min=1)


def places(anchors: Tensor, boxes: Tensor, box_label: Tensor) -> tuple[Tensor, Tensor]:
    """The anchor of each box: of those whose size is nearest to its longer side the one nearest to its centre.

    anchors [anchor 4], boxes [batch box 4] -> index [batch box], and whether the box has it: it is real and no box before
    it has the same.   Of equally near ones the first.
    """
    around, box = to_centres(anchors), to_centres(boxes)
    side = (around[:, 2:].amax(-1).log() - box[..., 2:].amax(-1, keepdim=True).clamp(min=1e-6).log()).abs()
    other = side > side.amin(-1, keepdim=True) + 1e-4  # of another scale
    apart = (box[..., None, :2] - around[:, :2]).square().sum(-1).masked_fill(other, torch.inf)
    place, real = apart.argmin(-1), box_label >= 0
    same = (place[:, :, None] == place[:, None, :]) & real[:, None, :]  # [batch box other]
    return place, real & ~same.tril(-1).any(-1)


class TaskAligned(Detection):
    """Detection without anchors: of the places in a thing those are taught it whose class and box are already best.

    Quality focal loss of the logits, whose target is how good a place's box is, plus twice 1 - GIoU of the boxes, weighted by
    that target; divided by the sum of the targets.   taught: places a thing, see `aligned`.
    Feng et al. 2021, arXiv:2108.07755; GIoU: Rezatofighi et al. 2019, arXiv:1902.09630.
    """

    def __init__(self, model: nn.Module, classes: Sequence[str], overlap: float = 0.6, taught: int = 10):
        super().__init__(model, classes, overlap)
        self.taught = taught

    def cost(self, raw: tuple[Tensor, Tensor, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        logits, _, cells = raw
        probability, boxes = self.read(raw)
        truth = _shares(batch)
        with torch.no_grad():
            index, quality = aligned(probability, boxes, cells, truth, batch["box_label"], self.taught)
            label = batch["box_label"].gather(1, index).clamp(min=0)
            target = torch.zeros_like(probability).scatter_(2, label[..., None], quality[..., None])
        total, count = quality_focal(logits, target)
        taught = quality > 0
        there = truth.gather(1, index[..., None].expand(-1, -1, 4))[taught]
        apart = (quality[taught] * (1 - generalised_iou(boxes[taught], there))).sum()
        return total + 2 * apart, count.clamp(min=1)

    def read(self, raw: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        logits, distances, cells = raw
        around, far = to_centres(cells), distances.float().clamp(max=6.9).exp()
        centre, side = around[:, :2], around[:, 2:]
        boxes = torch.cat([centre - side * far[..., :2], centre + side * far[..., 2:]], -1)
        return logits.float().sigmoid(), boxes


def aligned(
    probability: Tensor, boxes: Tensor, cells: Tensor, truth: Tensor, box_label: Tensor, taught: int = 10
) -> tuple[Tensor, Tensor]:
    """The thing that each place is taught, and how good its box is: index and quality [batch place], 0 for nothing.

    Of the places whose centre is in a thing, and the nearest one, those `taught` of the largest p^(1/2) IoU^6, p the
    probability of the right class; of several things of a place the one its box is most like. The quality is that
    product, scaled so that the best place of a thing has the best IoU of its places.
    probability [batch place class], boxes [batch place 4], cells [place 4], truth [batch box 4], box_label [batch box].
    """
    if not truth.shape[1]:
        return torch.zeros_like(boxes[..., 0], dtype=torch.long), torch.zeros_like(boxes[..., 0])
    centre = to_centres(cells)[:, :2]
    inside = ((centre > truth[..., None, :2]) & (centre < truth[..., None, 2:])).all(-1)  # [batch box place]
    nearest = (centre - to_centres(truth)[..., None, :2]).square().sum(-1).argmin(-1, keepdim=True)
    able = inside.scatter(2, nearest, True) & (box_label >= 0)[..., None]
    overlap = iou(truth, boxes)
    right = probability.mT.gather(1, box_label.clamp(min=0)[..., None].expand(-1, -1, len(cells)))
    fit = (right.sqrt() * overlap**6).masked_fill(~able, -1)
    best = fit.topk(min(taught, len(cells))).indices
    chosen = torch.zeros_like(able).scatter_(2, best, True) & able
    index = overlap.masked_fill(~chosen, -1).argmax(1)
    chosen &= torch.zeros_like(chosen).scatter_(1, index[:, None], True)  # a place is taught one thing
    fit = fit * chosen
    quality = fit / fit.amax(2, keepdim=True).clamp(min=1e-12) * (overlap * chosen).amax(2, keepdim=True)
    return index, quality.amax(1)

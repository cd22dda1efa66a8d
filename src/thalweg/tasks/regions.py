"""Detection in two stages: regions that may hold something, then what each holds, where, and which pixels.   D2L 13.8"""

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, smooth_l1_loss
from torchmetrics import MetricCollection

from thalweg.data.proposals import with_proposals
from thalweg.figures import palette, tinted, topmost
from thalweg.layers.boxes import area, encode, iou, mask_iou, match
from thalweg.layers.regions import paste, pyramid_align
from thalweg.metrics import AveragePrecision, Share
from thalweg.models.vision.rcnn import ONES, detections, picked
from thalweg.tasks.detection import Detection, Found
from thalweg.vocabulary import Batch

BETA = 1 / 9  # where the loss of an offset turns from a square into a line


def sample(positive: Tensor, negative: Tensor, count: int, most: int) -> tuple[Tensor, Tensor]:
    """Some of the positive ones, at most `most` a row, and so many of the negative that they are `count`; at random.

    positive, negative: bool [batch n] -> those chosen of each, bool [batch n].
    """
    draw = torch.rand(positive.shape, device=positive.device)

    def first(among: Tensor, number: int | Tensor) -> Tensor:
        return among & (draw.masked_fill(~among, 2).argsort(-1).argsort(-1) < number)

    chosen = first(positive, most)
    return chosen, first(negative, count - chosen.sum(-1, keepdim=True))


def offset_loss(offsets: Tensor, boxes: Tensor, anchors: Tensor, deviation: Sequence[float] = (0.1, 0.1, 0.2, 0.2)) -> Tensor:
    """Smooth L1 between offsets and those of the boxes, summed over the four.   [batch n 4] each -> [batch n]"""
    return smooth_l1_loss(offsets.float(), encode(boxes, anchors, deviation), beta=BETA, reduction="none").sum(-1)


class RegionDetection(Detection):
    """Objects among given proposals, by R-CNN or Fast R-CNN.

    loss = sum over images of 1/regions sum_r (- log p(class_r) + [class_r not nothing] smooth_l1(offsets_r - offsets*_r)).
    Of an image `regions` proposals and true boxes are drawn, at most a quarter of which hold an object: overlap its box by
    half. An image is divided by constants, so that neither its neighbours in the batch nor padding change its loss.
    batch: image, boxes, box_label (-1 is padding), proposals [batch region 4] (without area: padding).
    model: behind Standardized.   classes: their names.   regions: drawn of an image for a step.
    """

    def __init__(self, model: nn.Module, classes: Sequence[str], regions: int = 128):
        super().__init__(model, classes)
        if regions < 4:
            raise ValueError(f"regions={regions}: expected at least 4, of which one may hold an object")
        self.regions = regions
        count = len(self.classes)
        self.metrics = MetricCollection(
            {"mAP50": AveragePrecision(count, [0.5]), "mAP": AveragePrecision(count), "recall": Share()},
            compute_groups=False,
        )

    def seen(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The images as the model sees them, and what a box of the batch is to be multiplied by to lie in them."""
        outer: Any = self.model
        image = outer.standardize(batch["image"])
        down, across = (now / was for now, was in zip(image.shape[-2:], batch["image"].shape[-2:], strict=True))
        return image, image.new_tensor([across, down, across, down])

    def truths(self, batch: Batch, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes as the model sees them, without area where there are none, and their labels."""
        label = batch["box_label"]
        return batch["boxes"] * scale * (label >= 0)[..., None], label

    @torch.no_grad()
    def drawn(self, proposals: Tensor, boxes: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Regions to learn from [batch region 4], the index and label (-1: nothing) of the box in each, and if it counts.

        Those that hold an object are in front.
        """
        regions = torch.cat([proposals, boxes], 1)
        index, found = match(regions, boxes, label, 0.5, rescue=False)
        real = area(regions) > 0
        positive, negative = sample((found >= 0) & real, (found < 0) & real, self.regions, self.regions // 4)
        rank, order = (2 * positive.int() + negative).topk(min(self.regions, regions.shape[1]))
        return picked(regions, order), index.gather(1, order), found.gather(1, order), rank > 0

    def region_loss(
        self, logits: Tensor, offsets: Tensor, regions: Tensor, boxes: Tensor, label: Tensor, counts: Tensor
    ) -> Tensor:
        """What each region is and where exactly.   boxes, label: of the object in each region"""
        classes = cross_entropy(logits.float().flatten(0, 1), (label + 1).flatten(), reduction="none").view_as(label)
        own = offsets.take_along_dim((label + 1)[..., None, None], 2).squeeze(2)
        places = offset_loss(own, boxes, regions)
        return (classes * counts + places * (counts & (label >= 0))).sum() / self.regions

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        image, scale = self.seen(batch)
        boxes, box_label = self.truths(batch, scale)
        regions, index, label, counts = self.drawn(batch["proposals"] * scale, boxes, box_label)
        said = self.model.model(image, regions)  # type: ignore[operator, union-attr]
        return self.region_loss(said["logits"], said["offsets"], regions, picked(boxes, index), label, counts), len(image)

    def raw(self, batch: Batch) -> dict[str, Tensor]:
        """What is in the images, in their own pixels, see `detections`; and the regions that were looked at."""
        image, scale = self.seen(batch)
        said = self.model.model(image, batch["proposals"] * scale)  # type: ignore[operator, union-attr]
        found = detections(said["regions"], said["logits"], said["offsets"], image.shape[-2:])
        return {**found, "boxes": found["boxes"] / scale, "regions": batch["proposals"]}

    def found(self, raw: dict[str, Tensor], size: Sequence[int], least: float) -> list[Found]:
        kept = raw["probability"] >= least
        return [Found(boxes[k], probability[k], label[k]) for boxes, probability, label, k in
                zip(raw["boxes"], raw["probability"], raw["box_label"], kept, strict=True)]  # fmt: skip

    @torch.inference_mode()
    def predict(self, inputs: Batch, *, least: float = 0.5) -> dict[str, Any]:
        """As other detections; without proposals, those of selective search are looked at."""
        return super().predict(inputs if "proposals" in inputs else with_proposals(inputs), least=least)

    def evaluate(self, batch: Batch) -> None:
        self._count(self.raw(batch), batch)

    def _count(self, raw: dict[str, Tensor], batch: Batch) -> None:
        """What share of the true boxes one of the first 100 regions overlaps by half, and how precise the detections are."""
        overlap, real = iou(batch["boxes"], raw["regions"][:, :100]), batch["box_label"] >= 0
        self.metrics["recall"].update((overlap.amax(-1) >= 0.5)[real].float())
        self.rank(self.found(raw, batch["image"].shape[2:], 0.01), batch)


class TwoStageDetection(RegionDetection):
    """Objects by a model that proposes regions itself, Faster R-CNN; and their pixels, if it is Mask R-CNN.

    To the loss of RegionDetection on its own proposals come, of `anchors` anchors drawn an image, at most half of which
    hold an object (overlap its box by 0.7 or more than all others do; those between 0.3 and that are not drawn),
    1/anchors sum_a (cross-entropy of "something is here" + [so it is] smooth_l1(offsets_a - offsets*_a)), and, with masks,
    the mean over regions that hold an object and over pixels of the cross-entropy of the mask of its class.
    batch: image, boxes, box_label; masks [batch box height width] for Mask R-CNN.
    """

    def __init__(self, model: nn.Module, classes: Sequence[str], regions: int = 128, anchors: int = 256):
        super().__init__(model, classes, regions)
        if anchors < 2:
            raise ValueError(f"anchors={anchors}: expected at least 2, of which one may hold an object")
        self.anchors, count = anchors, len(self.classes)
        if model.model.mask_head is not None:  # type: ignore[union-attr]
            self.metrics.add_metrics(
                {"mask_mAP50": AveragePrecision(count, [0.5]), "mask_mAP": AveragePrecision(count), "mask_iou": Share()}
            )

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        image, scale = self.seen(batch)
        boxes, box_label = self.truths(batch, scale)
        model: Any = self.model.model
        size, maps = image.shape[-2:], model.maps(image)
        anchors = model.anchors(maps, size)
        logits, offsets = model.proposal_head(maps)
        total = self.proposal_loss(logits, offsets, torch.cat(anchors), boxes, box_label)
        proposals = model.propose(anchors, logits, offsets, size)
        regions, index, label, counts = self.drawn(proposals, boxes, box_label)
        labels, places = model.box_head(model.align(maps, regions, size, 7))
        total = total + self.region_loss(labels, places, regions, picked(boxes, index), label, counts)
        if model.mask_head is not None:
            most = self.regions // 4  # those with an object are in front
            regions, index, label = regions[:, :most], index[:, :most], label[:, :most]
            masks = model.mask_head(model.align(maps, regions, size, 14))
            total = total + self.mask_loss(masks, regions / scale, batch["masks"], index, label, counts[:, :most])
        return total, len(image)

    def proposal_loss(self, logits: Tensor, offsets: Tensor, anchors: Tensor, boxes: Tensor, box_label: Tensor) -> Tensor:
        """Whether something is at an anchor, and where exactly."""
        index, label = match(anchors, boxes, box_label, 0.7, 0.3)
        positive, negative = sample(label >= 0, label == -1, self.anchors, self.anchors // 2)
        something = binary_cross_entropy_with_logits(logits.float(), positive.float(), reduction="none")
        places = offset_loss(offsets, picked(boxes, index), anchors, ONES)
        return (something * (positive | negative) + places * positive).sum() / self.anchors

    def mask_loss(self, logits: Tensor, regions: Tensor, masks: Tensor, index: Tensor, label: Tensor, counts: Tensor) -> Tensor:
        """Which pixels of a region are its object's: of its own class's mask alone, so that classes do not compete.

        regions: in pixels of the masks.   masks: [batch box height width], of which `index` is each region's
        """
        extent = (logits.shape[-2], logits.shape[-1])
        own = logits.take_along_dim((label + 1)[..., None, None, None], 2).squeeze(2).float()
        one_by_one = [masks[:, number : number + 1].float() for number in range(masks.shape[1])]
        truth = pyramid_align(one_by_one, regions, index, extent, [1.0] * len(one_by_one)).squeeze(2)
        wrong = binary_cross_entropy_with_logits(own, truth, reduction="none").mean((2, 3))
        holds = counts & (label >= 0)
        return ((wrong * holds).sum(1) / holds.sum(1).clamp(min=1)).sum()

    def raw(self, batch: Batch) -> dict[str, Tensor]:
        image, scale = self.seen(batch)
        said = self.model.model(image)  # type: ignore[operator, union-attr]
        return {**said, "boxes": said["boxes"] / scale, "regions": said["regions"] / scale}

    def pixels(self, raw: dict[str, Tensor], size: Sequence[int], least: float) -> list[Tensor]:
        """The pixels of what was found on each image of that height and width, as `found` has it.   [box height width]"""
        at_once = max(1, 4_000_000 // (size[0] * size[1]))  # a photograph has few at a time, for the sake of memory
        answers = []
        for grids, boxes, probability in zip(raw["masks"], raw["boxes"], raw["probability"], strict=True):
            kept = probability >= least
            parts = zip(grids[kept].float().sigmoid().split(at_once), boxes[kept].split(at_once), strict=True)
            answers.append(torch.cat([paste(grid[None], box[None], size)[0] > 0.5 for grid, box in parts]))
        return answers

    def _count(self, raw: dict[str, Tensor], batch: Batch) -> None:
        """Of masks, how precise they are; and how much of the union a true one and the best found for it share."""
        super()._count(raw, batch)
        if "masks" not in raw:
            return
        masks = self.pixels(raw, batch["image"].shape[2:], 0.01)
        for place, label in enumerate(batch["box_label"]):
            real, kept = label >= 0, raw["probability"][place] >= 0.01
            score, said = raw["probability"][place][kept], raw["box_label"][place][kept]
            shared = mask_iou(masks[place], batch["masks"][place][real])
            for name in ("mask_mAP50", "mask_mAP"):
                self.metrics[name].update(shared.double(), score, said, label[real])
            sure = (said[:, None] == label[real]) & (score >= 0.5)[:, None]
            best = torch.cat([shared * sure, shared.new_zeros(1, shared.shape[1])]).amax(0)  # 0 for what was missed
            self.metrics["mask_iou"].update(best)

    @torch.inference_mode()
    def predict(self, inputs: Batch, *, least: float = 0.5) -> dict[str, Any]:
        """What is on each image, most probable first: its name, probability of at least `least`, box and, if told, pixels."""
        raw = self.raw(inputs)
        said = self.told(self.found(raw, inputs["image"].shape[2:], least=least))
        if "masks" in raw:
            said["masks"] = self.pixels(raw, inputs["image"].shape[2:], least)
        return said

    def compared(self, batch: Batch, raw: dict[str, Tensor], chosen: list[int]) -> Tensor:
        """As of boxes; if it tells masks, their pixels are in the colours of their classes."""
        images = super().compared(batch, raw, chosen)
        if "masks" not in raw:
            return images
        mine = {name: raw[name][chosen] for name in ("masks", "boxes", "probability", "box_label")}
        classes = []
        for index, seen, probability, label in zip(chosen, self.pixels(mine, images.shape[2:], 0.5), mine["probability"],
                                                   mine["box_label"], strict=True):  # fmt: skip
            real = batch["box_label"][index] >= 0
            classes += [topmost(batch["masks"][index][real], batch["box_label"][index][real].tolist()),
                        topmost(seen, label[probability >= 0.5].tolist())]  # fmt: skip
        return tinted(images, torch.stack(classes), palette(len(self.classes)))

    def draw(self, inputs: Batch, predicted: dict[str, Any]) -> Figure:
        """The images with what was found on them, its pixels in the colour of its class."""
        if "masks" in predicted:
            classes = [topmost(masks, [self.classes.index(name) for name in names])
                       for masks, names in zip(predicted["masks"], predicted["label"], strict=True)]  # fmt: skip
            colours = palette(len(self.classes))
            inputs = {**inputs, "image": tinted(inputs["image"], torch.stack(classes), colours)}
        return super().draw(inputs, predicted)

"""Networks that look at regions (R-CNN): where something may be is proposed first, then each region is told what it is.

R-CNN            crops of given proposals, a network for each              Girshick et al. 2013, arXiv:1311.2524
Fast R-CNN       one network for the image, its map within each proposal   Girshick 2015, arXiv:1504.08083
Faster R-CNN     the network's own maps propose                            Ren et al. 2015, arXiv:1506.01497
Mask R-CNN       and a second branch gives the pixels of each              He et al. 2017, arXiv:1703.06870

p(class | region) = softmax(logits), class 0 is "nothing"; box = region moved and scaled by the offsets of that class.
Maps of all extents see alike through a feature pyramid.   D2L 13.8
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from thalweg.layers.boxes import anchors, area, class_nms, clip, decode, ordered_nms
from thalweg.layers.pyramid import FeaturePyramid
from thalweg.layers.regions import pyramid_align, roi_align, roi_pool
from thalweg.layers.trunk import trunk
from thalweg.models import builder
from thalweg.weights import Config, Layout, understood

Maps = list[Tensor]
ONES = (1.0, 1.0, 1.0, 1.0)  # offsets of anchors are not scaled


def picked(x: Float[Tensor, "batch n 4"], index: Int[Tensor, "batch k"]) -> Float[Tensor, "batch k 4"]:
    """Of each image those of these indices."""
    return x.gather(1, index[..., None].expand(-1, -1, 4))


def first(score: Tensor, boxes: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The boxes of highest score of each image, best first, their scores and indices; zeros where the score is 0."""
    score, index = score.topk(min(count, score.shape[1]))
    return picked(boxes, index) * (score > 0)[..., None], score, index


def detections(
    regions: Float[Tensor, "batch region 4"],
    logits: Float[Tensor, "batch region class"],
    offsets: Float[Tensor, "batch region class 4"],
    size: Sequence[int],
    *,
    least: float = 0.05,
    threshold: float = 0.5,
    count: int = 100,
) -> dict[str, Tensor]:
    """What was found: boxes [batch n 4], box_label [batch n] (-1: nothing more), probability [batch n], best first.

    size: height and width of the image.   Regions without an area are padding.
    least: the smallest probability that is told.   threshold: intersection over union above which one suppresses another.
    """
    probability = (logits.float().softmax(-1) * (area(regions) > 0)[..., None])[..., 1:].flatten(1)
    boxes = clip(decode(offsets[..., 1:, :].float(), regions[:, :, None]), *size).flatten(1, 2)
    classes = logits.shape[-1] - 1
    image, place = ((probability >= least) & (area(boxes) > 0)).nonzero(as_tuple=True)
    of_class = image * classes + place % classes  # of other images and of other classes: not suppressed
    kept = class_nms(boxes[image, place], probability[image, place].detach(), of_class, threshold)
    image, place = image[kept], place[kept]
    score = torch.zeros_like(probability).index_put((image, place), probability[image, place])
    boxes, score, index = first(score, boxes, count)
    return {"boxes": boxes, "box_label": torch.where(score > 0, index % classes, -1), "probability": score}


class BoxHead(nn.Module):
    """Two fully connected layers, then the class of a region and, for each class, the offsets of its box.

    x: [batch region channel row column] -> logits [batch region 1 + class], offsets [batch region 1 + class 4]
    """

    def __init__(self, in_features: int, hidden_dim: int, num_classes: int):
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(in_features, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, hidden_dim), nn.ReLU())
        self.label = nn.Linear(hidden_dim, 1 + num_classes)
        self.offset = nn.Linear(hidden_dim, 4 * (1 + num_classes))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.hidden(x.flatten(2))
        return self.label(x), self.offset(x).unflatten(-1, (-1, 4))


def whole(image: Tensor) -> Tensor:
    """The image as its only proposal.   [batch 1 4]"""
    return image.new_tensor([0, 0, image.shape[-1], image.shape[-2]]).expand(len(image), 1, 4)


class RCNN(nn.Module):
    """Every proposal is cut out, scaled to one extent and seen by the whole backbone: slow, as nothing is shared.

    crop: height and width of what the backbone sees of a proposal.
    image: [batch channel height width], proposals: [batch region 4], the whole image unless given -> the regions, and
    logits [batch region 1 + class] and offsets [batch region 1 + class 4] of each.
    Elsewhere: in 2013 linear support vector machines were fitted to the features afterwards, a class each.
    """

    def __init__(self, backbone: nn.Module, num_classes: int, crop: Sequence[int] = (64, 64)):
        super().__init__()
        channels = trunk(backbone)[-1][0]
        self.backbone, self.crop = backbone, (crop[0], crop[1])
        self.label = nn.Linear(channels, 1 + num_classes)
        self.offset = nn.Linear(channels, 4 * (1 + num_classes))

    def forward(self, image: Tensor, proposals: Tensor | None = None) -> dict[str, Tensor]:
        regions = whole(image) if proposals is None else proposals
        crops = roi_align(image, regions, self.crop, sampling_ratio=2)
        features = self.backbone.features(crops.flatten(0, 1))[-1].mean((2, 3))  # type: ignore[operator]
        features = features.unflatten(0, regions.shape[:2])
        return {"regions": regions, "logits": self.label(features), "offsets": self.offset(features).unflatten(-1, (-1, 4))}


class FastRCNN(nn.Module):
    """The backbone sees the image once; a proposal is its part of the last map, pooled to 7x7.

    hidden_dim: width of the two layers of the head.   Inputs and outputs as of RCNN.
    """

    def __init__(self, backbone: nn.Module, num_classes: int, hidden_dim: int = 1024):
        super().__init__()
        channels = trunk(backbone)[-1][0]
        self.backbone = backbone
        self.box_head = BoxHead(49 * channels, hidden_dim, num_classes)

    def forward(self, image: Tensor, proposals: Tensor | None = None) -> dict[str, Tensor]:
        regions = whole(image) if proposals is None else proposals
        last = self.backbone.features(image)[-1]  # type: ignore[operator]
        logits, offsets = self.box_head(roi_pool(last, regions, (7, 7), last.shape[-1] / image.shape[-1]))
        return {"regions": regions, "logits": logits, "offsets": offsets}


class ProposalHead(nn.Module):
    """For every anchor at every place of every map, whether something is there and the offsets of its box.

    maps: [batch channel height width] each -> logits [batch anchor], offsets [batch anchor 4], map by map
    """

    def __init__(self, channels: int, shapes: int):
        super().__init__()
        self.hidden = nn.Conv2d(channels, channels, 3, padding=1)
        self.label = nn.Conv2d(channels, shapes, 1)
        self.offset = nn.Conv2d(channels, 4 * shapes, 1)
        for convolution in (self.hidden, self.label, self.offset):
            nn.init.normal_(convolution.weight, std=0.01)
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]

    def forward(self, maps: Maps) -> tuple[Tensor, Tensor]:
        hidden = [relu(self.hidden(x)) for x in maps]
        logits = [self.label(x).movedim(1, 3).flatten(1) for x in hidden]
        offsets = [self.offset(x).movedim(1, 3).flatten(1).unflatten(1, (-1, 4)) for x in hidden]
        return torch.cat(logits, 1), torch.cat(offsets, 1)


class MaskHead(nn.Module):
    """Four convolutions and a transposed one: for each class a mask of twice the extent of the region's map.

    x: [batch region channel row column] -> logits [batch region 1 + class 2*row 2*column]
    """

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.hidden = nn.Sequential()
        for _ in range(4):
            self.hidden.append(nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()))
        self.up = nn.ConvTranspose2d(channels, channels, 2, 2)
        self.label = nn.Conv2d(channels, 1 + num_classes, 1)
        for module in (*(layer[0] for layer in self.hidden), self.up, self.label):  # type: ignore[index]
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.label(relu(self.up(self.hidden(x.flatten(0, 1))))).unflatten(0, x.shape[:2])


class FasterRCNN(nn.Module):
    """Proposes regions by its own maps, then tells what each is; with masks, which of its pixels belong to it too.

    backbone: gives a map a stage; its head is dropped.   levels: how many of its maps, the last, make the pyramid.
    channels: of every map of the pyramid.   hidden_dim: width of the two layers of the box head.
    anchor_sizes: in pixels, for each map of the pyramid and for the smaller one that is pooled from its last.
    ratios: width over height of anchors.   proposals: regions an image, at most.   masks: Mask R-CNN.
    image: [batch channel height width] -> logits and offsets of the anchors; regions [batch region 4], best first, then
    zeros; logits and offsets of each; what was found by them, see `detections`; and masks [batch n 28 28], the logits of its
    pixels within the box of each thing found.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        levels: int = 4,
        channels: int = 256,
        hidden_dim: int = 1024,
        anchor_sizes: Sequence[float] = (32, 64, 128, 256, 512),
        ratios: Sequence[float] = (2.0, 1.0, 0.5),
        proposals: int = 1000,
        masks: bool = False,
    ):
        super().__init__()
        if len(anchor_sizes) != levels + 1:
            raise ValueError(f"anchor_sizes={anchor_sizes}: expected {levels + 1}, one a level and one for the map pooled")
        if proposals < 1:
            raise ValueError(f"proposals={proposals}: expected at least 1")
        widths = [width for width, _ in trunk(backbone)]
        if not 1 <= levels <= len(widths):
            raise ValueError(f"levels={levels}: expected 1 to {len(widths)}, as the backbone gives {len(widths)} maps")
        self.anchor_sizes, self.ratios, self.proposals = tuple(anchor_sizes), tuple(ratios), proposals
        self.backbone = backbone
        self.pyramid = FeaturePyramid(widths[-levels:], channels)
        self.proposal_head = ProposalHead(channels, len(ratios))
        self.box_head = BoxHead(49 * channels, hidden_dim, num_classes)
        self.mask_head = MaskHead(channels, num_classes) if masks else None

    def maps(self, image: Tensor) -> Maps:
        """The maps of the pyramid, the largest first, and every second pixel of the last."""
        seen = self.backbone.features(image)  # type: ignore[operator]
        maps = self.pyramid(seen[-len(self.pyramid.lateral) :])
        return [*maps, max_pool2d(maps[-1], 1, 2)]

    def anchors(self, maps: Maps, size: Sequence[int]) -> list[Tensor]:
        """The anchors of each map, [anchor 4]."""
        return [anchors(x.shape[-2:], size, [side], self.ratios, every=True, device=x.device)
                for x, side in zip(maps, self.anchor_sizes, strict=True)]  # fmt: skip

    @torch.no_grad()
    def propose(self, shapes: list[Tensor], logits: Tensor, offsets: Tensor, size: Sequence[int]) -> Tensor:
        """Regions [batch region 4], best first; zeros where there are no more.

        shapes: the anchors of each map.   logits, offsets: of the proposal head.   size: height and width of the image.
        """
        parts = [len(shape) for shape in shapes]
        boxes, scores = [], []
        for shape, score, offset in zip(shapes, logits.float().split(parts, 1), offsets.float().split(parts, 1), strict=True):
            score, index = score.topk(min(self.proposals, len(shape)))  # of each map, so that no extent is forgotten
            box = clip(decode(picked(offset, index), shape[index], ONES), *size)
            boxes.append(box)
            scores.append(score.sigmoid() * (ordered_nms(box, 0.7) & (area(box) > 0)))
        return first(torch.cat(scores, 1), torch.cat(boxes, 1), self.proposals)[0]

    def align(self, maps: Maps, boxes: Tensor, size: Sequence[int], extent: int) -> Tensor:
        """The map within each box, [batch box channel extent extent]: the one in which the box is 14 to 28 pixels wide."""
        side = area(boxes).sqrt() * (maps[0].shape[-1] / size[-1])
        level = (side / 14 + 1e-6).log2().floor().clamp(0, len(maps) - 2).long()
        return pyramid_align(maps[:-1], boxes, level, (extent, extent), [x.shape[-1] / size[-1] for x in maps[:-1]])

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        size, maps = image.shape[-2:], self.maps(image)
        something, places = self.proposal_head(maps)
        regions = self.propose(self.anchors(maps, size), something, places, size)
        logits, offsets = self.box_head(self.align(maps, regions, size, 7))
        found = detections(regions, logits, offsets, size)
        if self.mask_head is not None:
            masks = self.mask_head(self.align(maps, found["boxes"].detach(), size, 14))
            found["masks"] = masks.take_along_dim((found["box_label"] + 1)[..., None, None, None], 2).squeeze(2)
        return {"anchor_logits": something, "anchor_offsets": places, "regions": regions, "logits": logits,
                "offsets": offsets, **found}  # fmt: skip


def rcnn(backbone: str = "resnet18", num_classes: int = 90, crop: Sequence[int] = (64, 64), **arguments: Any) -> RCNN:
    """R-CNN with the backbone of that name and arguments."""
    return RCNN(builder(backbone)(**arguments), num_classes, crop)


def fast_rcnn(backbone: str = "resnet18", num_classes: int = 90, hidden_dim: int = 1024, **arguments: Any) -> FastRCNN:
    """Fast R-CNN with the backbone of that name and arguments."""
    return FastRCNN(builder(backbone)(**arguments), num_classes, hidden_dim)


def faster_rcnn(
    backbone: str = "resnet50",
    num_classes: int = 90,
    levels: int = 4,
    channels: int = 256,
    hidden_dim: int = 1024,
    anchor_sizes: Sequence[float] = (32, 64, 128, 256, 512),
    proposals: int = 1000,
    masks: bool = False,
    **arguments: Any,
) -> FasterRCNN:
    """Faster R-CNN with the backbone of that name and arguments; on ResNet-50, for COCO's 90 numbers of classes, 41,808,406
    parameters: 53,120 more than are published, where batch normalisation's do not learn."""
    made = builder(backbone)(**arguments)
    return FasterRCNN(made, num_classes, levels, channels, hidden_dim, anchor_sizes, proposals=proposals, masks=masks)


def mask_rcnn(**arguments: Any) -> FasterRCNN:
    """Mask R-CNN, as faster_rcnn; on ResNet-50 44,454,513 parameters, again 53,120 more than are published."""
    return faster_rcnn(masks=True, **arguments)


def torchvision_arguments(config: Config) -> dict[str, Any]:
    """What faster_rcnn takes; torchvision writes no config.json, so this is what `torchvision_config` wrote."""
    known = {"fasterrcnn_resnet50_fpn": False, "maskrcnn_resnet50_fpn": True}
    understood(config, ("architecture", "num_classes"))
    if config.get("architecture") not in known:
        raise ValueError(f"config.json says architecture={config.get('architecture')!r}: expected one of {', '.join(known)}")
    return {"num_classes": config["num_classes"] - 1, "masks": known[config["architecture"]]}


def torchvision_config(model: FasterRCNN) -> Config:
    """Which of torchvision's models this is, which count "nothing" as a class; ValueError if it has none such."""
    stages = [len(stage) for stage in model.backbone.stages]  # type: ignore[union-attr, arg-type]
    if stages != [3, 4, 6, 3] or len(model.pyramid.lateral) != 4:
        raise ValueError("model: expected Faster or Mask R-CNN on the four stages of ResNet-50, the one that torchvision has")
    name = "fasterrcnn_resnet50_fpn" if model.mask_head is None else "maskrcnn_resnet50_fpn"
    return {"architecture": name, "num_classes": model.box_head.label.out_features}


PUBLIC = {  # their networks are the same; their anchors lie half a step, their regions half a pixel to the upper left of ours
    "torchvision": Layout(
        {
            "backbone.body.conv1.*": "backbone.stem.0.0.*",
            "backbone.body.bn1.*": "backbone.stem.0.1.*",
            "backbone.body.layer{1}.{0}.conv{1}.*": "backbone.stages.{0}.{0}.layers.{0}.0.*",
            "backbone.body.layer{1}.{0}.bn{1}.*": "backbone.stages.{0}.{0}.layers.{0}.1.*",
            "backbone.body.layer{1}.{0}.downsample.*": "backbone.stages.{0}.{0}.shortcut.*",
            "backbone.fpn.inner_blocks.{0}.0.*": "pyramid.lateral.{0}.*",
            "backbone.fpn.layer_blocks.{0}.0.*": "pyramid.output.{0}.*",
            "rpn.head.conv.0.0.*": "proposal_head.hidden.*",
            "rpn.head.cls_logits.*": "proposal_head.label.*",
            "rpn.head.bbox_pred.*": "proposal_head.offset.*",
            "roi_heads.box_head.fc6.*": "box_head.hidden.0.*",
            "roi_heads.box_head.fc7.*": "box_head.hidden.2.*",
            "roi_heads.box_predictor.cls_score.*": "box_head.label.*",
            "roi_heads.box_predictor.bbox_pred.*": "box_head.offset.*",
            "roi_heads.mask_head.{0}.0.*": "mask_head.hidden.{0}.0.*",
            "roi_heads.mask_predictor.conv5_mask.*": "mask_head.up.*",
            "roi_heads.mask_predictor.mask_fcn_logits.*": "mask_head.label.*",
        },
        torchvision_arguments,
        torchvision_config,
    ),
}

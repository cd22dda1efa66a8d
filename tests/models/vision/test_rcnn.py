"""The networks of the R-CNN family: as torchvision's, with proposals and detections as a person would count them."""

from pathlib import Path

import pytest
import torch
from parity import filled, images
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from thalweg.build import unallocated
from thalweg.layers.boxes import area, clip, decode, iou
from thalweg.models.vision.rcnn import (
    ONES,
    PUBLIC,
    RCNN,
    FasterRCNN,
    FastRCNN,
    detections,
    faster_rcnn,
    mask_rcnn,
)
from thalweg.models.vision.resnet import ResNet, resnet9
from thalweg.public import export, pretrained
from thalweg.weights import from_public, to_public

GOLDEN = Path(__file__).parents[2] / "golden" / "maskrcnn-torchvision.safetensors"
TABLE = PUBLIC["torchvision"].table
SMALL = {"num_classes": 3, "levels": 2, "channels": 4, "hidden_dim": 8, "anchor_sizes": (8, 16, 24), "proposals": 12}


def small(**more):
    return FasterRCNN(resnet9(width=4), **{**SMALL, **more}).eval()


def said(model):
    """All logits and offsets of the networks, the heads on noise, in the golden file's order."""
    maps = model.maps(images(1, 3, 64, 48))
    parts = [len(shape) for shape in model.anchors(maps, (64, 48))]
    logits, offsets = model.proposal_head(maps)
    found = [*logits.split(parts, 1), *offsets.split(parts, 1), *model.box_head(images(2, 6, 7, 7)[None])]
    return torch.cat([x.flatten() for x in (*found, model.mask_head(images(2, 6, 4, 4)[None]))])


@torch.inference_mode()
def test_its_networks_answer_what_those_of_torchvision_answer():
    model = FasterRCNN(ResNet((1, 1, 1, 1), bottleneck=True), 3, channels=6, hidden_dim=10, masks=True).double().eval()
    public = filled(to_public(model.state_dict(), TABLE))
    model.load_state_dict(from_public(public, TABLE, model.state_dict()))
    with safe_open(GOLDEN, "pt") as file:
        output = file.get_tensor("output")
    assert (said(model) - output).abs().max() <= 1e-10 * output.abs().max()
    model.pyramid.lateral[3].bias += 1e-7
    assert (said(model) - output).abs().max() > 1e-10 * output.abs().max()


@pytest.mark.parametrize(("model", "published"), [(faster_rcnn, 41_755_286), (mask_rcnn, 44_401_393)])
def test_parameters_are_as_many_as_published(model, published):
    with unallocated():
        made = model()
    frozen = sum(p.numel() for m in made.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    assert sum(p.numel() for p in made.parameters()) - frozen == published


def test_a_public_file_is_read_and_given_back(tmp_path):
    arguments = {"backbone": "resnet9", "width": 4, "stem": "large", "masks": True, **SMALL}
    public = filled(to_public(faster_rcnn(**arguments).state_dict(), TABLE))
    save_file(public, tmp_path / "public.safetensors")
    again = to_public(pretrained(faster_rcnn, tmp_path / "public.safetensors", **arguments).state_dict(), TABLE)
    assert again.keys() == public.keys()
    assert all(torch.equal(again[name], value.to(again[name].dtype)) for name, value in public.items())


def test_what_torchvision_has_not_is_not_exported(tmp_path):
    layout = PUBLIC["torchvision"]
    with unallocated():
        assert layout.arguments(layout.config(mask_rcnn(num_classes=5))) == {"num_classes": 5, "masks": True}
    with pytest.raises(ValueError, match="the one that torchvision has"):
        export(small(), tmp_path, "torchvision")
    with pytest.raises(ValueError, match="architecture='ssd300'"):
        layout.arguments({"architecture": "ssd300", "num_classes": 91})


def greedy(boxes, score, threshold):
    """Non-maximum suppression as it is told: the best, then the best that none before overlaps too much."""
    kept = []
    for place in score.argsort(descending=True).tolist():
        if all(iou(boxes[place][None], boxes[other][None]) <= threshold for other in kept):
            kept.append(place)
    return kept


def test_proposals_are_the_best_of_each_map_without_those_that_repeat_one():
    model, size = small(proposals=9), (32, 40)
    shapes = model.anchors(model.maps(torch.rand(2, 3, *size)), size)
    logits, offsets = torch.randn(2, sum(map(len, shapes))), torch.randn(2, sum(map(len, shapes)), 4) * 0.3
    found = model.propose(shapes, logits, offsets, size)
    for image in range(2):
        boxes, scores, start = [], [], 0
        for shape in shapes:
            some = slice(start, start + len(shape))
            start += len(shape)
            best = logits[image, some].argsort(descending=True)[:9]
            moved = clip(decode(offsets[image, some][best], shape[best], ONES), *size)
            kept = greedy(moved, logits[image, some][best], 0.7)
            boxes.append(moved[kept])
            scores.append(logits[image, some][best][kept])
        order = torch.cat(scores).argsort(descending=True)[:9]
        expected = torch.cat(boxes)[order]
        torch.testing.assert_close(found[image, : len(expected)], expected)
        assert not found[image, len(expected) :].any()


def test_detections_are_what_is_probable_once_and_padding_is_none():
    regions = torch.tensor([[[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 40], [0, 0, 0, 0]], [[5, 5, 9, 9]] + [[0] * 4] * 3])
    logits = torch.tensor([[[0, 3, -9], [0, 2, -9], [0, -9, 1], [-9, 9, 9]], [[9, 0, 0]] + [[-9, 9, 9]] * 3])
    found = detections(regions.float(), logits.float(), torch.zeros(2, 4, 3, 4), (36, 64), least=0.2, count=5)
    assert found["box_label"].tolist() == [[0, 1, -1, -1, -1], [-1] * 5]
    assert found["boxes"][0, :2].tolist() == [[0, 0, 10, 10], [20, 20, 30, 36]]
    expected = torch.tensor([[0.0, 3, -9], [0, -9, 1]]).softmax(-1)
    torch.testing.assert_close(found["probability"][0, :2], torch.stack([expected[0, 1], expected[1, 2]]))
    assert not found["boxes"][1].any()


def test_a_region_is_seen_in_the_map_where_it_is_14_to_28_pixels_wide():
    model, size = small(levels=3, anchor_sizes=(8, 16, 32, 64)), (256, 256)
    maps = [torch.full((1, 4, 256 >> level, 256 >> level), float(level)) for level in range(4)]
    boxes = torch.tensor([[[0, 0, side, side] for side in (5, 20, 27, 29, 55, 57, 250)]]).float() + 1
    seen = model.align(maps, boxes, size, 7)[0, :, 0, 3, 3]
    assert seen.round(decimals=4).tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_without_masks_there_is_none_and_with_them_one_a_detection():
    image = torch.rand(2, 3, 32, 32)
    assert "masks" not in small()(image)
    found = small(masks=True)(image)
    assert found["masks"].shape == (*found["box_label"].shape, 28, 28)
    assert (area(found["regions"]) >= 0).all()


@pytest.mark.parametrize("model", [RCNN, FastRCNN])
def test_proposals_are_seen_one_by_one_whoever_they_come_with(model):
    torch.manual_seed(1)
    model, image = model(resnet9(width=4), 3).eval(), torch.rand(2, 3, 32, 32)
    regions = torch.tensor([[[0.0, 0, 20, 16], [3, 9, 30, 31]], [[8, 8, 24, 24], [0, 0, 32, 32]]])
    both, one = model(image, regions), model(image[1:], regions[1:, 1:])
    torch.testing.assert_close(both["logits"][1, 1], one["logits"][0, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one["offsets"], model(image[1:])["offsets"], rtol=1e-4, atol=1e-5)  # the whole image
    assert (both["logits"][0, 0] - both["logits"][0, 1]).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"anchor_sizes": (8, 16)}, "expected 3, one a level"), ({"proposals": 0}, "proposals=0"),
     ({"levels": 5, "anchor_sizes": (8,) * 6}, "levels=5: expected 1 to 4")],
)  # fmt: skip
def test_what_does_not_fit_is_named(wrong, words):
    with pytest.raises(ValueError, match=words):
        small(**wrong)

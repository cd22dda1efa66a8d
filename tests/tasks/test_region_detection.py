"""Learning by regions: losses against loops, shares that neither padding nor neighbours change, and drawn shapes found."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from thalweg.build import adapt, build, load, save
from thalweg.data.proposals import with_proposals
from thalweg.data.shapes import shapes
from thalweg.figures import palette
from thalweg.layers.boxes import encode, iou
from thalweg.layers.standardize import standardize
from thalweg.models.vision.rcnn import ONES, fast_rcnn, faster_rcnn, mask_rcnn, rcnn
from thalweg.tasks.regions import RegionDetection, TwoStageDetection, sample

CLASSES = ["circle", "square", "triangle"]
SEEN = {"mean": [0.4] * 3, "deviation": [0.3] * 3, "size": [32, 32]}
SMALL = {"backbone": "resnet9", "width": 4, "num_classes": 3, "levels": 2, "channels": 8, "hidden_dim": 16,
         "anchor_sizes": [8, 16, 24], "proposals": 20}  # fmt: skip


def task(builder=mask_rcnn, regions=2000, anchors=100_000, **more):
    """Of so many regions and anchors that all are drawn: nothing is left to chance."""
    arguments = (
        {**SMALL, **more}
        if builder in (faster_rcnn, mask_rcnn)
        else {"backbone": "resnet9", "width": 8, "num_classes": 3, **more}
    )
    model = adapt(build(builder, **arguments), standardize, **SEEN)
    if builder in (rcnn, fast_rcnn):
        return build(RegionDetection, model=model, classes=CLASSES, regions=regions).eval()
    return build(TwoStageDetection, model=model, classes=CLASSES, regions=regions, anchors=anchors).eval()


def test_a_sample_holds_as_many_as_it_may_and_no_others():
    positive, negative = torch.zeros(3, 40, dtype=torch.bool), torch.zeros(3, 40, dtype=torch.bool)
    positive[0, :20], positive[1, :2], negative[:2, 25:] = True, True, True
    some, others = sample(positive, negative, 12, 5)
    assert some.sum(1).tolist() == [5, 2, 0]
    assert others.sum(1).tolist() == [7, 10, 0]
    assert not (some & ~positive).any()
    assert not (others & ~negative).any()
    assert not torch.equal(some, sample(positive, negative, 12, 5)[0])  # and at random


def smooth(x):
    """A square up to 1/9, then a line."""
    return torch.where(x.abs() < 1 / 9, 4.5 * x**2, x.abs() - 1 / 18).sum()


def test_the_loss_of_proposals_is_that_of_a_loop():
    one = task(anchors=50)
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 9, 10], [0, 0, 10, 16], [20, 20, 30, 30]])
    boxes, label = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 0, 0]]]), torch.tensor([[1, -1]])
    logits, offsets = torch.randn(1, 4), torch.randn(1, 4, 4)
    expected = 0  # the third overlaps by 10/16, so it is neither
    for place, there in ((0, 1.0), (1, 1.0), (3, 0.0)):
        expected += binary_cross_entropy_with_logits(logits[0, place], torch.tensor(there))
        expected += there * smooth(offsets[0, place] - encode(boxes[0, 0], anchors[place], ONES))
    found = one.proposal_loss(logits, offsets, anchors, boxes, label)
    torch.testing.assert_close(found, expected / 50)


def test_the_loss_of_regions_is_that_of_a_loop():
    one = task(rcnn, regions=8)
    logits, offsets = torch.randn(1, 3, 4), torch.randn(1, 3, 4, 4)
    regions = torch.tensor([[[0.0, 0, 8, 8], [4, 4, 12, 16], [9, 9, 20, 20]]])
    boxes, label = regions + 1, torch.tensor([[2, -1, 0]])
    counts = torch.tensor([[True, True, False]])
    expected = cross_entropy(logits[0, :2], torch.tensor([3, 0]), reduction="sum")
    expected += smooth(offsets[0, 0, 3] - encode(boxes[0, 0], regions[0, 0]))
    torch.testing.assert_close(one.region_loss(logits, offsets, regions, boxes, label, counts), expected / 8)


def test_the_loss_of_masks_looks_at_the_part_of_its_own_object_in_a_region():
    one, masks = task(), torch.zeros(1, 2, 32, 32, dtype=torch.bool)
    masks[0, 1, 8:24, 8:16] = True  # the left half of the region
    logits = torch.zeros(1, 2, 4, 28, 28)
    logits[0, 0, 3, :, :14], logits[0, 0, 3, :, 14:] = 9, -9  # and of its class
    region = torch.tensor([[[8.0, 8, 24, 24], [0, 0, 5, 5]]])
    index, label, counts = torch.tensor([[1, 0]]), torch.tensor([[2, -1]]), torch.tensor([[True, True]])
    right = one.mask_loss(logits, region, masks, index, label, counts)
    assert right < 0.3  # the edge runs between pixels
    torch.testing.assert_close(one.mask_loss(logits, region, masks, index, label - 1, counts), torch.tensor(2.0).log())
    assert one.mask_loss(-logits, region, masks, index, label, counts) > 8


@pytest.mark.parametrize("builder", [mask_rcnn, fast_rcnn, rcnn])
def test_an_image_costs_the_same_alone_and_among_others_with_more_padding(builder):
    torch.manual_seed(3)
    one, batch = task(builder), with_proposals(shapes(3, 32), 10)
    whole, count = one.loss(batch)
    assert count == 3
    more = {"boxes": (0, 0, 0, 2), "box_label": (0, 2), "masks": (0, 0, 0, 0, 0, 2), "proposals": (0, 0, 0, 2)}
    padded = {name: torch.nn.functional.pad(value, more[name], value=-1 if name == "box_label" else 0)
              if name in more else value for name, value in batch.items()}  # fmt: skip
    parts = [one.loss({name: value[place : place + 1] for name, value in padded.items()})[0] for place in range(3)]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-4, atol=1e-4)


def test_every_part_of_mask_rcnn_learns_and_an_image_of_nothing_teaches_too():
    one, batch = task(), shapes(2, 32)
    for parameter in one.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # a residual network's branches start at 0
    one.loss(batch)[0].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in one.parameters())
    none = {**batch, "boxes": torch.zeros(2, 3, 4), "box_label": torch.full((2, 3), -1), "masks": batch["masks"] & False}
    assert one.loss(none)[0].isfinite()


def test_boxes_come_out_in_the_pixels_of_the_image_however_large_it_is():
    one, image = task(faster_rcnn), shapes(1, 32)["image"]
    torch.nn.init.normal_(one.model.model.box_head.label.weight, std=3)
    large = image.repeat_interleave(3, 2).repeat_interleave(2, 3)
    assert large.shape == (1, 3, 96, 64)
    found = one.predict({"image": large}, least=0.05)
    assert len(found["boxes"][0])
    assert found["boxes"][0].amax(0)[2:].gt(torch.tensor([32.0, 48])).any()
    assert (found["boxes"][0] <= torch.tensor([64.0, 96, 64, 96])).all()


def test_pictures_show_the_pixels_that_are_there_beside_those_found():
    one, batch = task(), shapes(2, 32)
    raw = {"masks": torch.full((2, 1, 28, 28), 9.0), "boxes": torch.tensor([[[4.0, 4, 14, 24]]] * 2),
           "probability": torch.tensor([[0.9], [0.3]]), "box_label": torch.tensor([[1], [1]])}  # fmt: skip
    drawn, plain = one.compared(batch, raw, [1, 0]), batch["image"] / 255
    assert drawn.shape == (4, 3, 32, 32)

    def changed(place, index):
        return (drawn[place] - plain[index]).abs().amax(0) > 1e-6

    for place, index in ((0, 1), (2, 0)):
        for label, mask in zip(batch["box_label"][index].tolist(), batch["masks"][index], strict=True):
            expected = 0.45 * plain[index] + 0.55 * palette(3)[label][:, None, None]
            torch.testing.assert_close(drawn[place][:, mask], expected[:, mask])
        assert not (changed(place, index) & ~batch["masks"][index].any(0)).any()
    assert not changed(1, 1).any()  # not probable enough
    where = changed(3, 0).nonzero()
    assert (where.amin(0).tolist(), where.amax(0).tolist()) == ([4, 4], [23, 13])
    assert set(one.figures(batch)) == {"detections", "worst"}  # before anything was measured


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="regions=3"):
        task(rcnn, regions=3)
    with pytest.raises(ValueError, match="anchors=1"):
        task(anchors=1)


def train(one, batch, steps, lr=3e-3):
    torch.manual_seed(0)
    one.train()
    optimizer = torch.optim.AdamW(one.parameters(), lr)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / steps)
        some = torch.randperm(len(batch["image"]))[:8]
        total, count = one.loss({name: value[some] for name, value in batch.items()})
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    one.eval()
    with torch.inference_mode():
        one.evaluate(batch)
    return {name: float(value) for name, value in one.metrics.compute().items()}


@pytest.mark.slow
def test_mask_rcnn_finds_what_it_was_shown_and_comes_back_from_its_folder(tmp_path):
    torch.manual_seed(0)
    one, batch = task(regions=32, anchors=64, width=8), shapes(16, 32, most=1)
    score = train(one, batch, 300)
    assert score["recall"] > 0.8
    assert score["mask_iou"] > 0.5
    save(one, tmp_path)
    before, after = one.predict(batch), load(tmp_path).predict(batch)
    assert before["label"] == after["label"]
    assert all(torch.equal(a, b) for a, b in zip(before["masks"], after["masks"], strict=True))
    assert one.draw(batch, before).axes


@pytest.mark.parametrize("builder", [rcnn, fast_rcnn])
def test_given_proposals_are_told_apart(builder):
    torch.manual_seed(0)
    arguments = {"crop": (16, 16)} if builder is rcnn else {"hidden_dim": 32}
    one, batch = task(builder, regions=16, **arguments), with_proposals(shapes(16, 32, most=1), 16)
    score = train(one, batch, 120)
    assert score["recall"] > 0.9  # of selective search
    assert score["mAP50"] > 0.8
    assert iou(one.predict(batch)["boxes"][0], batch["boxes"][0]).numel()

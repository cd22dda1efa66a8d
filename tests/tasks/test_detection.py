"""Detection: what its losses are, by loops; what it finds; and that it learns."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, smooth_l1_loss

from thalweg.build import adapt, build
from thalweg.data.shapes import SHAPES, shapes
from thalweg.layers.boxes import encode, generalised_iou, iou, match
from thalweg.layers.standardize import moments, standardize
from thalweg.models.vision.fcos import FCOS
from thalweg.models.vision.ssd import SSD, Plain, single_box_ssd
from thalweg.tasks.detection import MultiBox, SingleBox, TaskAligned, aligned, places


def raw(batch=3, anchors=40, classes=2):
    centre, half = torch.rand(anchors, 2), torch.rand(anchors, 2) / 4 + 0.05
    around = torch.cat([centre - half, centre + half], 1).double()
    return torch.randn(batch, anchors, classes + 1).double(), torch.randn(batch, anchors, 4).double(), around


def scenes(batch=3, height=40, width=80):
    corner = torch.rand(batch, 4, 2) * 0.6
    boxes = torch.cat([corner, corner + 0.1 + torch.rand(batch, 4, 2) * 0.3], -1) * torch.tensor([width, height] * 2)
    label = torch.tensor([[0, 1, 1, -1], [1, -1, -1, -1], [-1, -1, -1, -1]])[:batch]
    return {"image": torch.zeros(batch, 3, height, width), "boxes": boxes, "box_label": label}


def test_the_loss_of_anchors_is_that_of_matched_ones_and_of_the_hardest_of_the_rest():
    (logits, offsets, around), batch = raw(), scenes()
    shares = (batch["boxes"] / torch.tensor([80, 40, 80, 40])).double()
    index, label = match(around, shares, batch["box_label"])
    expected, count = 0.0, 0
    for image in range(3):
        easy, hard, matched = [], [], 0
        for a in range(40):
            term = cross_entropy(logits[image, a].float(), label[image, a] + 1).item()
            if label[image, a] < 0:
                hard.append(term)
                continue
            matched += 1
            easy.append(term)
            wanted = encode(shares[image, index[image, a]], around[a])
            expected += smooth_l1_loss(offsets[image, a], wanted, reduction="sum").item()
        expected += sum(easy) + sum(sorted(hard)[-3 * max(matched, 1) :])
        count += max(matched, 1)
    total, terms = MultiBox(nn.Identity(), ["a", "b"]).cost((logits, offsets, around.float()), batch)
    assert terms == count
    assert total.item() == pytest.approx(expected, rel=1e-5)


def test_errors_of_classes_and_offsets_count_every_anchor():
    (logits, offsets, around), batch = raw(), scenes()
    task = MultiBox(nn.Identity(), ["a", "b"])
    task.measure((logits, offsets, around.float()), batch)
    shares = (batch["boxes"] / torch.tensor([80, 40, 80, 40])).double()
    index, label = match(around, shares, batch["box_label"])
    wrong, apart = 0, 0.0
    for image in range(3):
        for a in range(40):
            wrong += logits[image, a].argmax().item() != label[image, a].item() + 1
            if label[image, a] >= 0:
                apart += (offsets[image, a] - encode(shares[image, index[image, a]], around[a])).abs().sum().item()
    assert task.metrics["class_error"].compute().item() == pytest.approx(wrong / 120)
    assert task.metrics["offset_error"].compute().item() == pytest.approx(apart / 480, rel=1e-4)


def test_a_thing_has_one_place_by_its_longer_side_and_its_centre():
    *_, around = single_box_ssd().eval()(torch.rand(1, 3, 128, 128))  # maps of 16, 8, 4, 2 and 1 pixels a side
    boxes = torch.tensor([[[0.02, 0.02, 0.08, 0.06], [0.0, 0.0, 1.0, 0.3], [0.49, 0.5, 0.72, 0.6], [0.01, 0.03, 0.08, 0.08],
                           [0.4, 0.4, 0.6, 0.6], [0.0, 0.0, 0.0, 0.0]]])  # fmt: skip
    place, owns = places(around, boxes, torch.tensor([[0, 1, 1, 0, 2, -1]]))
    coarser = 16 * 16 + 8 * 8
    assert place[0, :5].tolist() == [0, len(around) - 1, coarser + 2 * 4 + 2, 0, coarser + 1 * 4 + 1]  # ties: the first
    assert owns.tolist() == [[True, True, True, False, True, False]]  # the fourth finds its place taken, the last is padding


def test_the_loss_of_single_boxes_counts_every_place_and_the_boxes_of_things():
    *_, around = single_box_ssd().eval()(torch.rand(1, 3, 64, 64))
    logits, offsets, batch = torch.randn(3, len(around), 3), torch.randn(3, len(around), 4), scenes()
    shares = batch["boxes"] / torch.tensor([80, 40, 80, 40])
    place, owns = places(around, shares, batch["box_label"])
    expected, count = 0.0, 0
    for image in range(3):
        label = [0] * len(around)
        for box in range(4):
            if owns[image, box]:
                there = place[image, box]
                label[there] = batch["box_label"][image, box].item() + 1
                expected += (offsets[image, there] - encode(shares[image, box], around[there])).square().mean().item()
                count += 1
        expected += cross_entropy(logits[image], torch.tensor(label), reduction="sum").item()
    total, terms = SingleBox(nn.Identity(), ["a", "b"]).cost((logits, offsets, around), batch)
    assert terms == count
    assert total.item() == pytest.approx(expected, rel=1e-5)


def test_what_is_taught_is_found():
    """Raw output that says exactly what a scene holds gives its boxes, in the pixels of an image of any extent."""
    batch = scenes(2)
    shares = batch["boxes"] / torch.tensor([80, 40, 80, 40])
    *_, around = single_box_ssd().eval()(torch.rand(1, 3, 128, 128))
    index, label = match(around, shares, batch["box_label"], 0.3)
    logits = 20 * torch.nn.functional.one_hot(label + 1, 3).float()
    offsets = encode(shares.gather(1, index[..., None].expand(-1, -1, 4)), around.expand(2, -1, -1))
    task = MultiBox(nn.Identity(), ["a", "b"])
    for seen, boxes, names in zip(
        task.found((logits, offsets, around), (80, 160), 0.5), batch["boxes"], batch["box_label"], strict=True
    ):
        real = names >= 0
        overlap = iou(seen.boxes, 2 * boxes[real])
        assert len(seen.boxes) == real.sum()
        assert (overlap.amax(0) > 0.99).all()
        assert torch.equal(seen.label, names[real][overlap.argmax(1)])


def learned(task, steps, batch_size=16):
    data = shapes(160, 64, most=2)
    optimizer = torch.optim.AdamW(task.parameters(), 3e-3)
    for step in range(steps):
        chosen = torch.arange(step * batch_size, (step + 1) * batch_size) % 160
        total, count = task.loss({name: tensor[chosen] for name, tensor in data.items()})
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    task.eval()
    with torch.no_grad():
        task.evaluate(shapes(40, 64, seed=1, most=2))
    return task.metrics["mAP50"].compute().item()


def small(kind, plain):
    model = adapt(plain, standardize, **moments(shapes(20, 64)["image"]), size=[64, 64])
    return build(kind, model=model, classes=SHAPES)


def multi_box():
    sizes = [(0.25, 0.33), (0.42, 0.6)]
    return small(MultiBox, build(SSD, backbone=build(Plain, channels=[8, 16, 32]), num_classes=3, sizes=sizes, channels=[32],
                                 whole=False))  # fmt: skip


def test_anchors_learn_to_find_shapes():
    assert learned(multi_box(), 30) > 0.3


@pytest.mark.slow
def test_single_boxes_learn_to_find_shapes():
    assert learned(small(SingleBox, build(single_box_ssd, num_classes=3, width=8, scales=3)), 120) > 0.4


def test_it_predicts_in_pixels_of_the_image_and_draws():
    task, image = multi_box().eval(), shapes(2, [96, 128])["image"]
    predicted = task.predict({"image": image}, least=0.01)
    assert len(predicted["boxes"]) == len(predicted["label"]) == len(predicted["probability"]) == 2
    boxes = torch.cat(predicted["boxes"])
    assert 64 < boxes.max() <= 128
    assert {name for names in predicted["label"] for name in names} <= set(SHAPES)
    assert len(task.draw({"image": image}, predicted).axes) == 2
    task.evaluate(shapes(3, 64))
    assert set(task.figures(shapes(3, 64))) == {"detections", "worst", "precision"}


@torch.no_grad()
def test_images_that_hold_something_are_drawn_before_those_that_do_not():
    task, batch = multi_box().eval(), shapes(4, 64)
    for parameter in task.parameters():
        parameter.zero_()  # nothing is found with a probability of a half
    for empty, expected in (([], [0, 1, 2, 3]), ([0, 2], [1, 3]), ([0, 1, 2, 3], [0])):
        batch["box_label"] = shapes(4, 64)["box_label"].index_fill(0, torch.tensor(empty, dtype=torch.long), -1)
        shown = [axis.images[0].get_array() for axis in task.figures(batch)["detections"].axes if axis.images]
        assert len(shown) == 2 * len(expected)
        for index, pixels in zip(expected, shown[::2], strict=True):
            assert torch.allclose(torch.tensor(pixels).movedim(-1, 0), batch["image"][index] / 255)


def test_an_overlap_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"overlap=2: expected a number in \[0, 1\]"):
        MultiBox(nn.Identity(), ["a"], overlap=2)


def test_the_places_taught_a_thing_are_those_in_it_that_find_it_best():
    batch, places = 2, 30
    *_, cells = single_box_ssd().eval()(torch.rand(1, 3, 128, 128))
    cells = cells[:: len(cells) // places][:places].double()
    corner = torch.rand(batch, 3, 2).double() * 0.6
    truth = torch.cat([corner, corner + 0.2 + 0.2 * torch.rand(batch, 3, 2)], -1)
    truth[0, 2] = torch.tensor([0.5, 0.5, 0.501, 0.501])  # no centre of a place is in it
    names = torch.tensor([[1, 0, 1], [0, 1, -1]])
    probability = torch.rand(batch, places, 2).double()
    boxes = truth[:, torch.randint(2, (places,))] + 0.1 * torch.randn(batch, places, 4).double()
    index, quality = aligned(probability, boxes, cells, truth, names, taught=4)
    for image in range(batch):
        centre, takers = (cells[:, :2] + cells[:, 2:]) / 2, {}
        overlap = iou(truth[image], boxes[image])
        for thing in range(3):
            if names[image, thing] < 0:
                continue
            left, top, right, bottom = truth[image, thing].tolist()
            middle = torch.tensor([(left + right) / 2, (top + bottom) / 2])
            able = {(centre - middle).square().sum(1).argmin().item()}
            able |= {p for p in range(places) if left < centre[p, 0] < right and top < centre[p, 1] < bottom}
            fit = {p: probability[image, p, names[image, thing]] ** 0.5 * overlap[thing, p] ** 6 for p in able}
            for p in sorted(fit, key=fit.get, reverse=True)[:4]:
                if p not in takers or overlap[thing, p] > overlap[takers[p][0], p]:
                    takers[p] = thing, fit[p]
        expected = torch.zeros(places, dtype=torch.float64)
        for p, (thing, fit) in takers.items():
            own = [q for q in takers if takers[q][0] == thing]
            best = max(takers[q][1] for q in own)
            expected[p] = fit / best * max(overlap[thing, q] for q in own) if best > 0 else 0
            assert index[image, p] == thing
        torch.testing.assert_close(quality[image], expected, rtol=0, atol=1e-9)
    none, zero = aligned(probability, boxes, cells, truth[:, :0], names[:, :0])
    assert not none.any()
    assert not zero.any()


def test_the_loss_without_anchors_is_that_of_its_formula():
    model = FCOS(Plain([8, 8, 8]), 3, channels=8, depth=1, coarser=1).eval()
    data = shapes(3, 64, most=2)
    task, raw = TaskAligned(model, SHAPES), model(data["image"] / 255)
    total, count = task.cost(raw, data)
    probability, boxes = task.read(raw)
    truth = data["boxes"] / 64
    index, quality = aligned(probability, boxes, raw[2], truth, data["box_label"])
    expected = 0.0
    for image in range(3):
        for p in range(len(raw[2])):
            name = data["box_label"][image, index[image, p]]
            for c in range(3):
                t, prob = (quality[image, p].item() if c == name else 0.0), probability[image, p, c].item()
                expected -= abs(t - prob) ** 2 * (t * math.log(prob) + (1 - t) * math.log(1 - prob))
            apart = generalised_iou(boxes[image, p], truth[image, index[image, p]]).item()
            expected += 2 * quality[image, p].item() * (1 - apart)
    assert total.item() == pytest.approx(expected, rel=1e-4)
    assert count.item() == pytest.approx(max(quality.sum().item(), 1))
    total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.slow
def test_pixels_learn_to_find_shapes():
    plain = build(FCOS, backbone=build(Plain, channels=[8, 16, 32]), num_classes=3, channels=32, depth=1, coarser=1)
    assert learned(small(TaskAligned, plain), 60) > 0.4

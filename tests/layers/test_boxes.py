"""Boxes, against loops over pairs of them and against cases worked out by hand."""

import math

import pytest
import torch
from definitions import EXACT, equal_with_gradients
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor
from torch.testing import assert_close

from thalweg.layers.boxes import (
    anchors,
    area,
    class_nms,
    clip,
    decode,
    encode,
    generalised_iou,
    iou,
    mask_iou,
    match,
    nms,
    soft_nms,
    to_centres,
    to_corners,
)


def random_boxes(*shape: int, extent: float = 100.0) -> Tensor:
    first = torch.rand(*shape, 2, dtype=torch.float64) * extent
    return torch.cat([first, first + 1 + torch.rand(*shape, 2, dtype=torch.float64) * extent / 2], -1).requires_grad_()


def test_masks_share_what_both_hold_of_what_either_holds():
    first = torch.zeros(2, 4, 4, dtype=torch.bool)
    first[0, :2], first[1, 0, 0] = True, True
    assert mask_iou(first, first[:1]).tolist() == [[1.0], [0.125]]


def test_centres_and_corners_convert_exactly():
    centres = to_centres(torch.tensor([[60.0, 45.0, 378.0, 516.0], [400.0, 112.0, 655.0, 493.0]]))  # D2L 13.3: dog and cat
    assert centres.tolist() == [[219.0, 280.5, 318.0, 471.0], [527.5, 302.5, 255.0, 381.0]]
    whole = torch.randint(0, 4000, (1000, 4)).float()
    assert torch.equal(to_corners(to_centres(whole)), whole)
    boxes = random_boxes(5, 7)
    assert_close(to_corners(to_centres(boxes)), boxes, **EXACT)


def pair(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Intersection, union and hull of two boxes."""
    wide = min(first[2], second[2]) - max(first[0], second[0])
    tall = min(first[3], second[3]) - max(first[1], second[1])
    both = wide * tall if wide > 0 and tall > 0 else 0 * wide
    union = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (first, second)) - both
    hull = (max(first[2], second[2]) - min(first[0], second[0])) * (max(first[3], second[3]) - min(first[1], second[1]))
    return both, union, hull


def test_intersection_over_union_is_that_of_every_pair():
    first, second = random_boxes(2, 5), random_boxes(2, 4)
    naive = [[[both / union for s in second[b] for both, union, _ in [pair(f, s)]] for f in first[b]] for b in range(2)]
    equal_with_gradients(iou(first, second), torch.stack([torch.stack([torch.stack(row) for row in b]) for b in naive]),
                         [first, second])  # fmt: skip


def test_generalised_intersection_over_union_of_pairs():
    first, second = random_boxes(12), random_boxes(12)
    parts = [pair(f, s) for f, s in zip(first, second, strict=True)]
    naive = torch.stack([both / union - (hull - union) / hull for both, union, hull in parts])
    equal_with_gradients(generalised_iou(first, second), naive, [first, second])
    one, far = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[9.0, 0.0, 10.0, 1.0]])
    assert generalised_iou(one, one).item() == 1
    assert generalised_iou(one, far).item() == pytest.approx(-0.8)


def test_boxes_without_extent_have_nothing_in_common_and_finite_gradients():
    empty = torch.tensor([[3.0, 3.0, 3.0, 3.0], [5.0, 5.0, 2.0, 9.0]], requires_grad=True)
    assert area(empty).tolist() == [0, 0]
    assert iou(empty, empty).tolist() == [[0, 0], [0, 0]]
    (iou(empty, empty).sum() + generalised_iou(empty, empty.flip(0)).sum() + encode(empty, empty).sum()).backward()
    assert empty.grad.isfinite().all()


def test_offsets_are_those_of_the_formula_and_give_the_boxes_back():
    boxes, around = random_boxes(2, 6), random_boxes(6)
    rows = []
    for row in boxes:
        for (l, t, r, b), (al, at, ar, ab) in zip(row, around, strict=True):
            w, h, aw, ah = r - l, b - t, ar - al, ab - at
            moved = ((l + r - al - ar) / 2 / aw / 0.1, (t + b - at - ab) / 2 / ah / 0.1)
            rows.append(torch.stack([*moved, (w / aw).log() / 0.2, (h / ah).log() / 0.2]))
    equal_with_gradients(encode(boxes, around), torch.stack(rows).unflatten(0, (2, 6)), [boxes, around])
    assert_close(decode(encode(boxes, around), around), boxes, **EXACT)
    assert_close(decode(encode(boxes, around, (1, 1, 1, 1)), around, (1, 1, 1, 1)), boxes, **EXACT)
    assert decode(torch.full((1, 4), 1e4), torch.tensor([[0.0, 0.0, 9.0, 9.0]])).isfinite().all()


def test_clipped_boxes_lie_in_the_image():
    boxes = torch.tensor([[-5.0, 2.0, 9.0, 80.0], [70.0, 1.0, 90.0, 3.0]])
    assert clip(boxes, 40, 60).tolist() == [[0, 2, 9, 40], [60, 1, 60, 3]]


def test_anchors_are_as_many_as_the_books_and_lie_around_the_pixels():
    assert len(anchors((561, 728), (561, 728), (0.75 * 561, 0.5 * 561, 0.25 * 561), (1, 2, 0.5))) == 2_042_040  # D2L 13.4
    made = anchors((2, 3), (40, 90), (10, 20), (1, 4))
    assert made.shape == (2 * 3 * 3, 4)
    around = to_centres(made).unflatten(0, (2, 3, 3))
    for row in range(2):
        for column in range(3):
            assert around[row, column, :, :2].tolist() == [[15 + 30 * column, 10 + 20 * row]] * 3
            assert around[row, column, :, 2:].tolist() == [[10, 10], [20, 20], [20, 5]]
    every = to_centres(anchors((1, 1), (9, 9), (10, 20), (1, 4), every=True))
    assert every[:, 2:].tolist() == [[10, 10], [20, 5], [20, 20], [40, 10]]
    with pytest.raises(ValueError, match="sizes"):
        anchors((1, 1), (9, 9), ())


# D2L 13.4: a dog and a cat, and five anchors, in shares of the image
TRUTH = torch.tensor([[[0.1, 0.08, 0.52, 0.92], [0.55, 0.2, 0.9, 0.88]]])
FIVE = torch.tensor([[0, 0.1, 0.2, 0.3], [0.15, 0.2, 0.4, 0.4], [0.63, 0.05, 0.88, 0.98], [0.66, 0.45, 0.8, 0.8],
                     [0.57, 0.3, 0.92, 0.9]])  # fmt: skip


def test_anchors_are_labelled_as_worked_out_by_hand():
    index, label = match(FIVE, TRUTH, torch.tensor([[0, 1]]), 0.5)
    assert label.tolist() == [[-1, 0, 1, -1, 1]]
    assert index[0, [1, 2, 4]].tolist() == [0, 1, 1]
    offsets = encode(TRUTH[0, index[0]], FIVE)
    expected = [[1.40, 10.0, 2.59, 7.18], [-1.20, 0.269, 1.68, -1.57], [-0.571, -1.0, 4.17e-6, 0.626]]  # as in the book
    assert_close(offsets[[1, 2, 4]], torch.tensor(expected), rtol=5e-3, atol=5e-3)


def test_matching_leaves_out_what_is_neither_and_rescues_only_when_asked():
    _, label = match(FIVE, TRUTH, torch.tensor([[0, 1]]), 0.5, 0.1)
    assert label.tolist() == [[-1, 0, 1, -2, 1]]
    _, label = match(FIVE, TRUTH, torch.tensor([[0, 1]]), 0.5, rescue=False)
    assert label.tolist() == [[-1, -1, 1, -1, 1]]


def test_padding_is_matched_with_nothing():
    _, label = match(FIVE, TRUTH, torch.tensor([[0, -1]]), 0.5)
    assert label.tolist() == [[-1, 0, -1, -1, -1]]
    index, label = match(FIVE, TRUTH[:, :0], torch.empty(1, 0, dtype=torch.long))
    assert label.tolist() == [[-1] * 5]
    assert index.tolist() == [[0] * 5]
    index, label = match(FIVE, TRUTH, torch.tensor([[-1, -1]]), 0.5)
    assert (index.tolist(), label.tolist()) == ([[0] * 5], [[-1] * 5])


def labelled_by_loops(around: Tensor, boxes: Tensor, box_label: Tensor, threshold: float) -> list[int]:
    overlap = iou(around, boxes)
    overlap[:, box_label < 0] = -1
    label = [box_label[row.argmax()].item() if row.max() >= threshold else -1 for row in overlap]
    for _ in range(len(boxes)):
        anchor, box = divmod(overlap.argmax().item(), len(boxes))
        if overlap[anchor, box] > 0:
            label[anchor] = box_label[box].item()
        overlap[anchor] = -1
        overlap[:, box] = -1
    return label


def test_every_box_gets_its_best_anchor_that_is_free():
    around, boxes = random_boxes(30).detach(), random_boxes(20, 6).detach()
    box_label = torch.arange(6).expand(20, 6).clone()
    box_label[3, 4:] = -1
    _, label = match(around, boxes, box_label, 0.7)
    assert label.tolist() == [labelled_by_loops(around, boxes[b], box_label[b], 0.7) for b in range(20)]
    crowd = random_boxes(1, 6).detach()
    _, label = match(crowd[0, :1], crowd, box_label[:1], 0.7)  # one anchor for six boxes
    assert label.tolist() == [labelled_by_loops(crowd[0, :1], crowd[0], box_label[0], 0.7)]


def kept_by_loops(boxes: Tensor, score: Tensor, threshold: float, label: Tensor | None = None) -> list[int]:
    kept: list[int] = []
    clash = iou(boxes, boxes) > threshold
    clash = (clash if label is None else clash & (label[:, None] == label)).tolist()
    for i in sorted(range(len(boxes)), key=(-score).tolist().__getitem__):
        if not any(clash[i][j] for j in kept):
            kept.append(i)
    return kept


@settings(max_examples=60, deadline=None)
@given(some.integers(0, 40), some.integers(0, 1000), some.sampled_from([0.0, 0.3, 0.5, 1.0]), some.booleans())
def test_what_is_kept_is_what_the_greedy_rule_keeps(count, seed, threshold, ties):
    random = torch.Generator().manual_seed(seed)
    first = torch.randint(0, 12, (count, 2), generator=random)
    boxes = torch.cat([first, first + torch.randint(0, 8, (count, 2), generator=random)], -1).float()
    score, label = torch.rand(count, generator=random), torch.randint(0, 3, (count,), generator=random)
    if ties:
        score = (3 * score).round()
    assert nms(boxes, score, threshold).tolist() == kept_by_loops(boxes, score, threshold)
    assert class_nms(boxes, score, label, threshold).tolist() == kept_by_loops(boxes, score, threshold, label)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("extent", [60, 600, 6000])
def test_what_is_kept_of_many_blocks_is_what_the_greedy_rule_keeps(extent, compiled, monkeypatch):
    if compiled:
        pytest.importorskip("numba")
    monkeypatch.setattr("thalweg.layers.boxes.COMPILED", compiled)
    boxes, score = random_boxes(900, extent=60).detach(), torch.rand(900)
    boxes = (boxes + torch.rand(900, 1, dtype=torch.float64) * extent).float()
    label = torch.randint(0, 2, (900,))
    for threshold in (0.0, 0.4, 0.8, 1.0):
        kept = nms(boxes, score, threshold)
        assert kept.tolist() == kept_by_loops(boxes, score, threshold)
        assert torch.equal(nms(boxes[kept], score[kept], threshold), torch.arange(len(kept)))  # nothing more the second time
    assert class_nms(boxes, score, label, 0.2).tolist() == kept_by_loops(boxes, score, 0.2, label)


@pytest.mark.parametrize("compiled", [True, False])
def test_boxes_that_are_nowhere_or_nothing_are_near_none(compiled, monkeypatch):
    monkeypatch.setattr("thalweg.layers.boxes.COMPILED", compiled)
    boxes = torch.tensor([[0.0, 0, 10, 10], [torch.nan, 0, 1, 1], [5, 5, 5, 5], [10, 10, 0, 0], [0, 0, 9, 10]]).repeat(100, 1)
    kept = nms(boxes, torch.arange(500.0).flip(0), 0.5)
    assert kept.tolist() == [0, *(i for i in range(500) if i % 5 in (1, 2, 3))]


def test_a_chain_of_boxes_loses_every_second():
    x = torch.arange(1500.0)
    boxes = torch.stack([x, 0 * x, x + 3, 0 * x + 1], -1)
    assert torch.equal(nms(boxes, -x, 0.4), torch.arange(0, 1500, 2))


def test_nms_keeps_the_boxes_worked_out_by_hand():
    boxes = torch.tensor([[0.1, 0.08, 0.52, 0.92], [0.08, 0.2, 0.56, 0.95], [0.15, 0.3, 0.62, 0.91], [0.55, 0.2, 0.9, 0.88]])
    score, label = torch.tensor([0.9, 0.8, 0.7, 0.9]), torch.tensor([0, 0, 0, 1])  # D2L 13.4: dogs and a cat
    assert class_nms(boxes, score, label, 0.5).tolist() == [0, 3]
    assert nms(boxes[:0], score[:0]).tolist() == []


def test_soft_suppression_lowers_scores_by_overlap():
    boxes, score = random_boxes(25).detach(), torch.rand(25, dtype=torch.float64)
    left, expected = dict(enumerate(score.tolist())), []
    while left and max(left.values()) >= 0.05:
        best = max(left, key=left.get)
        expected.append((best, left.pop(best)))
        for other in left:
            left[other] *= math.exp(-(iou(boxes[[best]], boxes[[other]]).item() ** 2) / 0.5)
    kept, scores = soft_nms(boxes, score, least=0.05)
    assert kept.tolist() == [box for box, _ in expected]
    assert_close(scores.tolist(), [value for _, value in expected], **EXACT)

"""Drawn shapes: what is said of an image is what is seen in it."""

import pytest
import torch

from thalweg.data.shapes import SHAPES, drawn_shapes, extents, shapes


def test_boxes_masks_and_classes_are_what_is_seen():
    drawn = shapes(60, (32, 48), seed=1, most=4)
    kept = drawn["box_label"] >= 0
    assert (kept.sum(1) >= 1).all()
    assert kept.sum(1).unique().tolist() == [1, 2, 3, 4]
    for index in range(60):
        covered = torch.zeros(32, 48, dtype=torch.long)
        for place in range(4):
            mask, box = drawn["masks"][index, place], drawn["boxes"][index, place].tolist()
            if not kept[index, place]:
                assert not mask.any()
                assert box == [0, 0, 0, 0]
                continue
            rows, columns = mask.nonzero(as_tuple=True)
            assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert (covered[mask] == 0).all()  # no pixel is of two
            covered[mask] = 1 + drawn["box_label"][index, place]
        assert torch.equal(covered, drawn["segmentation"][index])


def test_forms_are_circles_squares_and_triangles():
    """By the share of its box that each fills: pi / 4, all, half."""
    drawn = shapes(300, 64, seed=2, most=1)
    size = (drawn["boxes"][:, 0, 2:] - drawn["boxes"][:, 0, :2]).prod(-1)
    share = drawn["masks"].sum((1, 2, 3)) / size
    for number, expected in enumerate((0.785, 1.0, 0.5)):
        assert abs(float(share[drawn["box_label"][:, 0] == number].mean()) - expected) < 0.04
    assert drawn["box_label"].flatten().bincount().min() > 60


def test_a_shape_is_seen_against_its_ground():
    drawn = shapes(100, 48, seed=3, most=1)
    image, mask = drawn["image"].float(), drawn["masks"]
    brightest = (image * mask).sum((2, 3)).amax(1) / mask.sum((1, 2, 3))
    ground = (image * ~mask).sum((2, 3)).mean(1) / (~mask).sum((1, 2, 3))
    assert (brightest > ground).all()


def test_the_seed_decides_and_the_parts_differ():
    one, same, other = shapes(8, 32, 5), shapes(8, 32, 5), shapes(8, 32, 6)
    for name in one:
        assert torch.equal(one[name], same[name])
    assert not torch.equal(one["image"], other["image"])
    splits = drawn_shapes(20, 24, most=2, classes=1)
    assert splits.classes == SHAPES[:1]
    assert [len(part["image"]) for part in (splits.train, splits.valid, splits.test)] == [20, 4, 4]
    assert splits.train["box_label"].max() == 0
    assert not torch.equal(splits.valid["image"], splits.test["image"])


def test_extents_are_the_smallest_boxes():
    masks = torch.zeros(2, 3, 5, 7, dtype=torch.bool)
    masks[0, 1, 2:4, 3] = True
    masks[1, 2, 0, 0] = masks[1, 2, 4, 6] = True
    boxes = extents(masks)
    assert boxes[0, 1].tolist() == [3, 2, 4, 4]
    assert boxes[1, 2].tolist() == [0, 0, 7, 5]
    assert boxes[0, 0].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("arguments", [{"count": 0}, {"size": 8}, {"most": 0}, {"classes": 4}])
def test_what_cannot_be_drawn_is_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments)) + "="):
        shapes(**{"count": 1, "size": 16} | arguments)

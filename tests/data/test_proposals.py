"""Selective search: segments by their rule, proposals that cover what is there."""

import pytest
import torch

from thalweg.data.proposals import segments, selective_search, with_proposals
from thalweg.data.shapes import shapes
from thalweg.layers.boxes import iou


def test_two_plain_halves_are_two_segments_and_one_if_asked_for_large_ones():
    image = torch.zeros(3, 12, 16, dtype=torch.uint8)
    image[:, :, 8:] = 200
    label = segments(image, scale=20, least=0, sigma=0)
    assert torch.equal(label, (torch.arange(16) >= 8).long().expand(12, 16))
    assert not segments(image, scale=1e6, least=0, sigma=0).any()


def test_small_segments_are_joined_to_a_neighbour():
    image = torch.zeros(3, 12, 16, dtype=torch.uint8)
    image[:, 4:6, 4:6] = 255
    assert segments(image, scale=1, least=0, sigma=0).max() == 1
    assert segments(image, scale=1, least=5, sigma=0).max() == 0


def test_a_graded_side_is_one_segment_though_its_ends_differ_as_much_as_the_halves():
    image = torch.zeros(3, 8, 32, dtype=torch.uint8)
    image[:, :, 16:] = (100 + 8 * torch.arange(16)).byte()
    label = segments(image, scale=120, least=0, sigma=0)  # a step of 14 joins columns: 14 < 120 / 8
    assert torch.equal(label, (torch.arange(32) >= 16).long().expand(8, 32))


def test_every_segment_and_all_that_were_joined_are_proposals_the_whole_first():
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    image[0, 2:6, 3:9] = 255
    image[1, 9:14, 8:15] = 255
    found = selective_search(image, scale=1, least=0).tolist()
    assert found[0] == [0, 0, 16, 16]
    assert len({tuple(box) for box in found}) == len(found)
    boxes = torch.tensor(found)
    for there in ([3.0, 2, 9, 6], [8.0, 9, 15, 14]):
        assert iou(torch.tensor([there]), boxes).max() > 0.6  # the blur takes its edge


def test_proposals_cover_what_is_drawn():
    batch = with_proposals(shapes(12, 64, seed=5), 40)
    assert batch["proposals"].shape == (12, 40, 4)
    covered = (iou(batch["boxes"], batch["proposals"]).amax(-1) >= 0.5)[batch["box_label"] >= 0]
    assert covered.float().mean() > 0.9


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="scale=-1"):
        segments(torch.zeros(3, 4, 4, dtype=torch.uint8), scale=-1)

"""FCOS: what sees what, and the form of its answer."""

import pytest
import torch
from torch.testing import assert_close

from thalweg.models.vision.fcos import FCOS, fcos
from thalweg.models.vision.ssd import Plain


def test_every_pixel_of_every_map_is_a_place_and_their_squares_fill_the_image():
    model = FCOS(Plain([4, 4, 4]), 3, channels=8, depth=1, coarser=2).eval()
    logits, distances, cells = model(torch.rand(2, 3, 64, 96))
    extents = [(8, 12), (4, 6), (2, 3)]
    assert len(cells) == sum(h * w for h, w in extents)
    assert logits.shape == (2, len(cells), 3)
    assert distances.shape == (2, len(cells), 4)
    assert_close(cells[13], torch.tensor([1 / 12, 1 / 8, 2 / 12, 2 / 8]))  # second row, second column
    assert_close(cells[96 + 5], torch.tensor([5 / 6, 0, 1, 1 / 4]))
    assert_close(logits.sigmoid(), torch.full_like(logits, 0.01), atol=0.02, rtol=0)  # nothing, at first


def test_a_map_of_odd_extent_is_enlarged_to_the_finer_one():
    assert fcos("resnet9", 2, 8, 1, width=4, stem="medium").eval()(torch.rand(1, 3, 50, 70))[0].shape[2] == 2
    with pytest.raises(ValueError, match="finest=64"):
        fcos("resnet9", finest=64)

"""SSD: its places, its scales, and the numbers of the book."""

import pytest
import torch
from torch.testing import assert_close

from thalweg.layers.boxes import iou, to_centres
from thalweg.models.vision.resnet import resnet9
from thalweg.models.vision.ssd import SSD, single_box_ssd, tiny_ssd


def test_the_tiny_detector_has_as_many_anchors_as_that_of_the_book():
    logits, offsets, around = tiny_ssd().eval()(torch.rand(2, 3, 256, 256))
    assert logits.shape == (2, 5444, 2)
    assert offsets.shape == (2, 5444, 4)
    assert around.shape == (5444, 4)
    sides = to_centres(around)[:, 2:]
    assert_close(
        sides[:4], torch.tensor([[0.2, 0.2], [0.272, 0.272], [0.2 * 2**0.5, 0.2 / 2**0.5], [0.2 / 2**0.5, 0.2 * 2**0.5]])
    )
    assert_close(sides[-4], torch.tensor([0.88, 0.88]))


def test_a_pixel_speaks_for_the_anchors_around_it():
    """What changes when a pixel changes lies around it, in the order of the anchors."""
    model, image = tiny_ssd().eval().double(), torch.zeros(1, 3, 256, 256, dtype=torch.float64)
    before, _, around = model(image)
    image[..., 40, 200] = 5
    moved = (model(image)[0] - before).abs().amax((0, 2))[: 32 * 32 * 4]
    place = to_centres(around)[moved.argmax(), :2] * 256
    assert (place - torch.tensor([200.5, 40.5])).abs().max() <= 20


def test_anchors_keep_their_shape_on_an_image_that_is_not_square():
    model = SSD(resnet9(width=4, stem="medium"), 2, [(0.5,), (0.9,)], (1.0,), channels=(), whole=False)
    *_, around = model(torch.rand(1, 3, 32, 64))
    assert_close(to_centres(around)[0, 2:] * torch.tensor([64, 32]), torch.tensor([16.0, 16.0]))


def test_more_ratios_fit_more_boxes():
    random = torch.rand(300, 2) * 0.6 + 0.2
    ratio, size = torch.tensor([0.5, 1.0, 2.0])[torch.randint(3, (300, 1))].sqrt(), torch.rand(300, 1) * 0.3 + 0.2
    half = torch.cat([size * ratio, size / ratio], 1) / 2
    boxes = torch.cat([random - half, random + half], 1)
    recalls = [(iou(boxes, tiny_ssd(ratios=ratios)(torch.rand(1, 3, 128, 128))[2]).amax(1) > 0.6).float().mean().item()
               for ratios in ((1.0,), (1.0, 2.0, 0.5))]  # fmt: skip
    assert recalls[0] < 0.5
    assert recalls[1] > 0.75


def test_the_single_box_has_one_place_a_pixel_down_to_the_whole_image():
    logits, _, around = single_box_ssd(num_classes=3).eval()(torch.rand(1, 3, 128, 128))
    assert logits.shape == (1, 16**2 + 8**2 + 4**2 + 2**2 + 1, 4)
    assert_close(around[-1], torch.tensor([0.0, 0.0, 1.0, 1.0]))


def test_errors_name_what_does_not_fit():
    with pytest.raises(ValueError, match="sizes: for 1 scales, expected 5"):
        tiny_ssd(sizes=[(0.2,)])
    with pytest.raises(ValueError, match="finest=64"):
        tiny_ssd(finest=64)

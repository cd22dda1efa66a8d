"""Segmentation: what counts, what is measured, and what a person gets."""

import pytest
import torch
from torch import nn

from thalweg.tasks.segmentation import Segmentation

CLASSES = ("sky", "road", "tree")


class Fixed(nn.Module):
    """Gives the logits that it holds, one a pixel or one a block of pixels."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, image):
        return self.logits[: len(image)]


@pytest.fixture
def scene():
    segmentation = torch.randint(0, 3, (2, 6, 8))
    segmentation[:, :2] = 255
    return {"image": torch.rand(2, 3, 6, 8), "segmentation": segmentation}


def test_the_loss_is_a_sum_over_the_pixels_that_count_and_the_others_teach_nothing(scene):
    task = Segmentation(Fixed(torch.randn(2, 3, 6, 8)), CLASSES)
    total, count = task.loss(scene)
    log, expected = task.model.logits.log_softmax(1), 0.0
    for image in range(2):
        for row in range(2, 6):
            for column in range(8):
                expected -= float(log[image, scene["segmentation"][image, row, column], row, column])
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert int(count) == 2 * 4 * 8
    total.backward()
    assert not task.model.logits.grad[:, :, :2].any()
    assert task.model.logits.grad[:, :, 2:].all()


def test_where_no_pixel_counts_there_is_no_loss(scene):
    task = Segmentation(Fixed(torch.randn(2, 3, 6, 8)), CLASSES, dice=1.0)
    total, count = task.loss({**scene, "segmentation": torch.full((2, 6, 8), 255)})
    assert (float(total), int(count)) == (0, 0)


def test_dice_adds_its_mean_for_every_pixel_that_counts(scene):
    task = Segmentation(Fixed(torch.randn(2, 3, 6, 8)), CLASSES)
    plain, count = task.loss(scene)
    task.dice = 0.5
    both, _ = task.loss(scene)
    probability, apart = task.model.logits.softmax(1)[:, :, 2:], []
    for image in range(2):
        for label in range(3):
            true = scene["segmentation"][image, 2:] == label
            p = probability[image, label]
            apart.append(1 - (2 * p[true].sum() + 1) / (p.sum() + true.sum() + 1))
    torch.testing.assert_close(both, plain + 0.5 * count * torch.stack(apart).mean())
    with pytest.raises(ValueError, match="dice=-1: expected at least 0"):
        Segmentation(Fixed(torch.zeros(1)), CLASSES, dice=-1)


def test_metrics_are_those_of_the_pixels_that_count(scene):
    task = Segmentation(Fixed(torch.randn(2, 3, 6, 8)), CLASSES)
    task.evaluate(scene)
    counted = scene["segmentation"] != 255
    predicted, true = task.model.logits.argmax(1)[counted], scene["segmentation"][counted]
    overlap = [((predicted == c) & (true == c)).sum() / ((predicted == c) | (true == c)).sum() for c in range(3)]
    assert float(task.metrics["accuracy"].compute()) == pytest.approx(float((predicted == true).float().mean()))
    assert float(task.metrics["mean_iou"].compute()) == pytest.approx(float(torch.stack(overlap).mean()))
    assert int(task.metrics["confusion"].compute().sum()) == int(counted.sum())
    wrong = task.metrics["worst"].compute()["loss"]
    assert len(wrong) == 2
    assert wrong[0] >= wrong[1]


def test_a_coarse_map_is_scaled_to_the_segmentation(scene):
    task = Segmentation(Fixed(torch.randn(2, 3, 3, 4)), CLASSES)
    large = nn.functional.interpolate(task.model.logits, (6, 8), mode="bilinear")
    torch.testing.assert_close(task.loss(scene)[0], Segmentation(Fixed(large.detach()), CLASSES).loss(scene)[0])


def test_a_person_gets_the_class_of_every_pixel_of_the_own_image_and_the_share_of_each():
    logits = torch.randn(1, 3, 5, 7)
    task = Segmentation(Fixed(logits), CLASSES)
    image = torch.randint(0, 256, (1, 3, 31, 40), dtype=torch.uint8)
    predicted = task.predict({"image": image})
    expected = nn.functional.interpolate(logits, (31, 40), mode="bilinear").argmax(1)
    assert torch.equal(predicted["segmentation"], expected)
    shares = {name: float((expected == c).float().mean()) for c, name in enumerate(CLASSES) if (expected == c).any()}
    assert predicted["share"][0] == pytest.approx(shares)
    assert list(predicted["share"][0].values()) == sorted(shares.values(), reverse=True)
    drawn = task.draw({"image": image}, predicted)
    assert {text.get_text() for text in drawn.legends[0].get_texts()} == set(shares)


def test_its_figures_show_image_truth_and_prediction(scene):
    task = Segmentation(Fixed(torch.randn(2, 3, 6, 8)), CLASSES)
    task.evaluate(scene)
    drawn = task.figures(scene)
    assert set(drawn) == {"segmentation", "worst", "confusion"}
    assert [axis.get_title() for axis in drawn["worst"].axes[:3]] == ["image", "true", "predicted"]
    assert len(drawn["worst"].axes) == 6

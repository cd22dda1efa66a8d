"""What a turn or a change of scale costs a classifier."""

import torch
from torch import nn

from thalweg.build import adapt, build
from thalweg.data.augmentation import rotate, turned
from thalweg.data.sources import digits
from thalweg.data.streams import TensorStream, take
from thalweg.layers.standardize import moments, standardize
from thalweg.models.vision.lenet import lenet
from thalweg.tasks.invariance import ANGLES, SCALES, Invariance
from thalweg.training import Experiment, Training
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import linear, warmup


def test_a_quarter_turn_is_counterclockwise_and_twice_the_scale_keeps_the_middle():
    image = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(turned(image, 90), image.rot90(1, (2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(turned(image, 0), image, rtol=1e-4, atol=1e-5)
    square = torch.zeros(1, 1, 12, 12)
    square[..., 4:8, 4:8] = 1
    assert turned(square, 0, 2.0).sum() > 3.2 * square.sum()
    torch.testing.assert_close(turned(square, 0, 0.5).sum(), torch.tensor(4.0), rtol=0.1, atol=0)
    assert turned((255 * image).byte(), 30).dtype == torch.uint8


class Brightest(nn.Module):
    """Names the half, left or right, in which more is."""

    def forward(self, image):
        left, right = image.float().sum((1, 2)).tensor_split(2, -1)
        return torch.stack([left.sum(-1), right.sum(-1)], 1)


def test_every_change_has_an_accuracy_of_its_own():
    image = torch.zeros(6, 1, 9, 9, dtype=torch.uint8)
    image[:, :, 4, 8] = 200  # at the right; turned by 90 degrees it is above the middle
    task = Invariance(Brightest(), ("left", "right"))
    task.evaluate({"image": image, "label": torch.ones(6, dtype=torch.long)})
    found = {name: float(value) for name, value in task.metrics.compute().items() if name.startswith(("turned", "scaled"))}
    assert len(found) == len(ANGLES) + len(SCALES)
    assert all(found[f"turned_by_{angle}"] == 1 for angle in ANGLES if abs(angle) < 75)
    assert found["scaled_to_80"] == found["scaled_to_100"] == 1
    assert found["scaled_to_140"] == found["scaled_to_160"] == 0  # it has left the image


def test_a_network_that_has_seen_upright_digits_only_fails_on_turned_ones_and_turned_examples_mend_it():
    splits = digits()
    shown = {}
    for degrees in (0, 90):
        model = adapt(build(lenet, image_size=8, channels=[16, 32], hidden_dim=64), standardize,
                      **moments(splits.train["image"]), size=[8, 8])  # fmt: skip
        task = build(Invariance, model=model, classes=splits.classes)
        train = TensorStream(splits.train, 64, shuffle=True, augment=[rotate(degrees)] if degrees else [])
        training = Training(Experiment(task=task, train=train, epochs=12 if degrees else 4, optimizer=adamw(5e-3),
                                       schedule=warmup(0.1, linear())), device="cpu", precision="fp32")  # fmt: skip
        for _ in training:
            pass
        task.eval()
        with torch.no_grad():
            task.evaluate(take(splits.test, torch.arange(len(splits.test["label"]))))
        shown[degrees] = {
            name: float(value) for name, value in task.metrics.compute().items() if name.startswith(("turned", "scaled"))
        }
    assert shown[0]["turned_by_0"] > 0.93
    assert shown[0]["turned_by_60"] < 0.6
    assert shown[0]["turned_by_-90"] < 0.4
    assert shown[90]["turned_by_60"] > shown[0]["turned_by_60"] + 0.25
    assert shown[90]["turned_by_-60"] > 0.75
    assert {"accuracy of turned images", "accuracy of scaled images"} <= set(task.figures(splits.test))

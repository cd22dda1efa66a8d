"""What the three sources say of segmenters, on scenes that are drawn: each is trained for seconds, in the same way."""

import pytest
import torch

from thalweg.build import adapt, build
from thalweg.data.shapes import SCENE_CLASSES, shapes
from thalweg.data.streams import TensorStream, generator
from thalweg.layers.standardize import moments, standardize
from thalweg.models.vision.fcn import fcn
from thalweg.models.vision.pspnet import pspnet
from thalweg.models.vision.unet import unet
from thalweg.tasks.segmentation import Segmentation
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import cosine, warmup

pytestmark = pytest.mark.slow


def measured(model, draw, classes, steps, lr=5e-3):
    """The metrics on 100 scenes that it has not seen, after so many steps of 16 of 400 others."""
    train, test = draw(400, seed=0), draw(100, seed=1)
    size = list(train["image"].shape[-2:])
    task = build(Segmentation, model=adapt(model, standardize, **moments(train["image"]), size=size), classes=classes)
    made = Experiment(task=task, train=TensorStream(train, 16, shuffle=True), steps=steps, optimizer=adamw(lr),
                      schedule=warmup(0.1, cosine()))  # fmt: skip
    training = Training(made, device="cpu")
    for _ in training:
        pass
    return {
        name: float(value) for name, value in evaluate(training, TensorStream(test, 50)) if name not in ("confusion", "worst")
    }


def wires(count, seed):
    """Three thin lines across noise."""
    random = generator(seed)
    place = torch.arange(48) + 0.5
    angle, offset = torch.rand(2, count, 3, 1, 1, generator=random)
    angle, offset = angle * torch.pi, (offset - 0.5) * 36
    distance = angle.cos() * (place - 24) + angle.sin() * (place[:, None] - 24) - offset
    wire = (distance.abs() < 0.8).any(1)
    image = 60 + 35 * torch.randn(count, 3, 48, 48, generator=random) + 110 * wire[:, None]
    return {"image": image.clamp(0, 255).byte(), "segmentation": wire.long()}


@pytest.fixture(scope="module")
def of_wires():
    torch.manual_seed(0)
    models = {
        "unet": build(unet, width=8, num_stages=3),
        "no skips": build(unet, width=8, num_stages=3, skips=False),
        "fcn": build(fcn, backbone="resnet9", num_classes=2, width=8),
    }
    return {name: measured(model, wires, ("nothing", "wire"), 80) for name, model in models.items()}


def test_a_unet_finds_thin_structures_better_than_an_fcn_without_skips(of_wires):
    assert of_wires["unet"]["mean_iou"] > of_wires["fcn"]["mean_iou"] + 0.15


def test_down_and_up_without_skips_loses_the_outlines(of_wires):
    assert of_wires["unet"]["boundary"] > of_wires["no skips"]["boundary"] + 0.1


def scenes(count, seed):
    """Squares that are boats where the left of the image is blue, and cars where it is grey."""
    random = generator(seed)
    image = 70 + 20 * torch.randn(count, 3, 64, 64, generator=random)
    water = torch.rand(count, generator=random) < 0.5
    image[water, 2, :, :12] += 90
    row, column = torch.randint(0, 40, (count, 1, 1), generator=random), torch.randint(40, 52, (count, 1, 1), generator=random)
    place = torch.arange(64)
    thing = (place[:, None] >= row) & (place[:, None] < row + 12) & (place >= column) & (place < column + 12)
    image[:, 0] += 110 * thing
    return {"image": image.clamp(0, 255).byte(), "segmentation": torch.where(water[:, None, None], 1, 2) * thing}


def test_with_a_pyramid_the_same_trunk_knows_what_the_scene_makes_of_a_thing():
    trunk = {"backbone": "resnet9", "num_classes": 3, "width": 4, "dilated": 1}
    found = {name: measured(build(make, **trunk, **more), scenes, ("none", "boat", "car"), 100)["mean_iou"]
             for name, make, more in (("pspnet", pspnet, {"hidden_dim": 16}), ("fcn", fcn, {}))}  # fmt: skip
    assert found["pspnet"] > found["fcn"] + 0.15


def test_an_fcn_names_four_of_five_pixels_of_drawn_shapes_and_more_than_the_commonest_class():
    def draw(count, seed):
        return {name: value for name, value in shapes(count, seed=seed).items() if name in ("image", "segmentation")}

    model = build(fcn, backbone="resnet9", num_classes=4, skips=2, width=16)
    found = measured(model, draw, SCENE_CLASSES, 120)
    share = draw(100, 1)["segmentation"].flatten().bincount() / (100 * 64 * 64)
    assert found["accuracy"] > max(0.8, float(share.max()) + 0.02)
    assert found["mean_iou"] > float(share.max()) / 4 + 0.1  # which names all pixels alike

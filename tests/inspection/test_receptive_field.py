"""The receptive field by arithmetic is that of the gradient."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from thalweg import cli
from thalweg.adaptation.heads import probe
from thalweg.build import adapt, build
from thalweg.data.streams import TensorStream
from thalweg.inspection.receptive_field import (
    ReceptiveField,
    draw_receptive_fields,
    measured_receptive_field,
    receptive_field,
)
from thalweg.layers.standardize import standardize
from thalweg.models.vision.airbench import Airbench
from thalweg.models.vision.lenet import lenet
from thalweg.models.vision.resnet import resnet9
from thalweg.tasks.classification import Classification
from thalweg.training import Experiment
from thalweg.training.optimisers import sgd


def positive(model: nn.Module) -> nn.Module:
    """Weights above zero, so that nothing cancels and no unit is off."""
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.1, 1)
    return model.double().eval()


def branches(x: Tensor) -> Tensor:
    wide = functional.conv2d(x, torch.ones(1, 1, 7, 3).double(), padding=(3, 1))
    far = functional.conv2d(x, torch.ones(1, 1, 3, 3).double(), padding=2, dilation=2)
    return torch.cat([wide + far, x], 1)


CHAIN = nn.Sequential(
    nn.Conv2d(1, 2, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3, stride=2, padding=1), nn.BatchNorm2d(2),
    nn.Softplus(), nn.Conv2d(2, 1, (3, 1), dilation=(2, 1)), nn.AvgPool2d(2, 1),
)  # fmt: skip
MODELS = {
    "chain": (positive(CHAIN), 1, (1, 2)),
    "branches": (branches, 1, (9, 15)),
    "lenet": (lambda x: positive(lenet(channels=[2, 3], image_size=32)).features(x)[-1], 1, (4, 3)),
    "resnet": (lambda x: positive(resnet9(width=2)).features(x)[2], 3, (3, 4)),
}


@pytest.mark.parametrize("name", MODELS)
def test_arithmetic_and_gradient_agree(name):
    function, channels, place = MODELS[name]
    image = torch.rand(60, channels, 32, 32, dtype=torch.float64)
    fields = receptive_field(function, image[:1])
    measured = measured_receptive_field(function, image, place)
    assert measured == tuple(field.pixels(i, 32) for field, i in zip(fields, place, strict=True))


def test_the_field_of_a_chain_follows_the_formula():
    rows, columns = receptive_field(CHAIN, torch.zeros(1, 1, 40, 40).double())
    # kernels 5, 2, 3, 3 (dilated by 2) or 1, and 2; steps before them 1, 1, 2, 4, 4
    assert rows == ReceptiveField(1 + 4 + 1 + 2 * 2 + 2 * 2 * 4 + 4, 4, -2 - 2)
    assert columns == ReceptiveField(1 + 4 + 1 + 2 * 2 + 0 + 4, 4, -2 - 2)


def test_each_layer_adds_a_kernel_less_one_and_after_strides_more():
    deep = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(5)))
    assert receptive_field(deep, torch.zeros(1, 1, 8, 8))[0] == ReceptiveField(11, 1, -5)
    halving = nn.Sequential(*(nn.Conv2d(1, 1, 3, stride=2, padding=1) for _ in range(4)))
    assert [receptive_field(halving[:n], torch.zeros(1, 1, 64, 64))[0].size for n in range(1, 5)] == [3, 7, 15, 31]


def test_the_last_convolution_of_lenet_sees_the_whole_image():
    sees = nn.Sequential(nn.Conv2d(1, 6, 5), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.AvgPool2d(2), nn.Conv2d(16, 120, 5))
    assert receptive_field(sees, torch.zeros(1, 1, 32, 32))[0].pixels(0, 32) == range(32)


def test_a_signal_has_a_field_of_one_axis():
    layer = positive(nn.Conv1d(1, 1, 4, stride=2))
    (field,) = receptive_field(layer, torch.zeros(1, 1, 20).double())
    assert field == ReceptiveField(4, 2, 0)
    assert measured_receptive_field(layer, torch.rand(2, 1, 20).double(), (3,)) == (range(6, 10),)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: x.flatten(2).cumsum(-1), "View"),
        (lambda x: functional.conv_transpose2d(x, torch.ones(1, 1, 2, 2)), "Convolution is no convolution"),
        (lambda x: x + functional.max_pool2d(x, 1, 2).repeat(1, 1, 2, 2), "Repeat"),
        (lambda x: x + functional.avg_pool2d(x, 4), "steps of 1 and 4"),
        (lambda x: torch.ones(1, 1, 2, 2, requires_grad=True) * 2, "does not depend on the image"),
    ],
)
def test_what_has_no_field_is_refused(function, words):
    with pytest.raises(ValueError, match=words):
        receptive_field(function, torch.zeros(1, 1, 4, 4))


def test_a_place_that_sees_nothing_is_refused():
    with pytest.raises(ValueError, match=r"place=\(1, 1\): no pixel"):
        measured_receptive_field(lambda x: 0 * x, torch.rand(1, 1, 4, 4), (1, 1))


def test_a_network_that_only_looks_through_another_is_drawn_by_that_one_s_maps(tmp_path):
    eyes = adapt(build(resnet9, width=4, num_classes=3), standardize, mean=[0.5] * 3, deviation=[0.2] * 3, size=[16, 16])
    task = build(Classification, model=adapt(eyes, probe, feature_dim=3, num_classes=2), classes=["a", "b"])
    stream = TensorStream({"image": torch.rand(4, 3, 16, 16), "label": torch.zeros(4, dtype=torch.long)}, 4)
    experiment = Experiment(task=task, train=stream, steps=1, optimizer=sgd(0.1))
    assert draw_receptive_fields(experiment, tmp_path / "a.png").startswith("stage 1: 7x7 pixels, every 1, of 16x16")


def test_norms_without_weights_are_no_obstacle(tmp_path):
    network = build(Airbench, filters=torch.randn(4, 3, 2, 2).tolist(), num_classes=2, widths=[4, 4, 4])
    eyes = adapt(network, standardize, mean=[0.5] * 3, deviation=[0.2] * 3, size=[32, 32])
    stream = TensorStream({"image": torch.rand(4, 3, 32, 32), "label": torch.zeros(4, dtype=torch.long)}, 4)
    task = build(Classification, model=eyes, classes=["a", "b"])
    experiment = Experiment(task=task, train=stream, steps=1, optimizer=sgd(0.1))
    assert draw_receptive_fields(experiment, tmp_path / "a.png").startswith("stage 1: 9x9 pixels, every 2, of 32x32")


def test_a_network_that_sees_images_as_they_are_has_no_maps_to_draw(tmp_path):
    task = build(Classification, model=build(resnet9, width=4, num_classes=2), classes=["a", "b"])
    stream = TensorStream({"image": torch.rand(4, 3, 16, 16), "label": torch.zeros(4, dtype=torch.long)}, 4)
    with pytest.raises(ValueError, match="Classification: expected a recipe whose model gives a map a stage"):
        draw_receptive_fields(Experiment(task=task, train=stream, steps=1, optimizer=sgd(0.1)), tmp_path / "a.png")


def test_the_command_draws_the_field_of_each_map_over_an_image(tmp_path, capsys):
    cli.main(["show", "--receptive-field", "unet-shapes", "--out", str(tmp_path / "field.png")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "stage 1: 5x5 pixels, every 1, of 64x64"
    assert (tmp_path / "field.png").read_bytes().startswith(b"\x89PNG")

"""DeepLab answers what torchvision answers, and reaches as far as its rates say."""

from pathlib import Path

import pytest
import torch
from parity import filled, images
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from thalweg.build import unallocated
from thalweg.models.vision.deeplab import PUBLIC, DeepLab, deeplabv3, deeplabv3_plus
from thalweg.models.vision.resnet import ResNet
from thalweg.public import export, pretrained
from thalweg.weights import from_public, to_public

GOLDEN = Path(__file__).parents[2] / "golden" / "deeplabv3-torchvision.safetensors"
TABLE = PUBLIC["torchvision"].table


@pytest.fixture(scope="module")
def trained():
    """DeepLabv3 on three stages of a ResNet of bottlenecks, with the weights that torchvision had."""
    backbone = ResNet((1, 2, 2), bottleneck=True, dilated=2)
    model = DeepLab(backbone, 3, rates=(1, 2, 4), detail=0).double().eval()
    public = filled(to_public(model.state_dict(), TABLE))
    model.load_state_dict(from_public(public, TABLE, model.state_dict()))
    with safe_open(GOLDEN, "pt") as file:
        return model, file.get_tensor("output")


@torch.inference_mode()
def test_it_answers_what_torchvision_answers(trained):
    model, output = trained
    assert (model(images(1, 3, 41, 33)) - output).abs().max() <= 1e-10 * output.abs().max()


@pytest.mark.parametrize("place", [(1, 0), (2, 0), (2, 1)])
@torch.inference_mode()
def test_the_golden_file_sees_a_dilation_that_is_a_little_wrong(trained, place):
    model, output = trained
    layer = model.backbone.stages[place[0]][place[1]].layers[1][0]
    right = layer.dilation, layer.padding
    layer.dilation = layer.padding = (3, 3)
    try:
        assert (model(images(1, 3, 41, 33)) - output).abs().max() > 1e-8 * output.abs().max()
    finally:
        layer.dilation, layer.padding = right


def test_parameters_are_as_many_as_torchvision_counts():
    with unallocated():
        assert sum(parameter.numel() for parameter in deeplabv3().parameters()) == 39_638_869


def test_a_public_file_with_the_head_that_helps_training_is_read_and_given_back(tmp_path):
    arguments = {"backbone": "resnet9", "num_classes": 3, "hidden_dim": 8, "width": 4, "stem": "large"}
    public = filled(to_public(deeplabv3(**arguments).state_dict(), TABLE))
    save_file({**public, "aux_classifier.0.weight": torch.zeros(2)}, tmp_path / "public.safetensors")
    model = pretrained(deeplabv3, tmp_path / "public.safetensors", **arguments)
    again = to_public(model.state_dict(), TABLE)
    assert again.keys() == public.keys()
    assert all(torch.equal(again[name], value.to(again[name].dtype)) for name, value in public.items())


def test_what_torchvision_has_not_is_not_exported(tmp_path):
    layout = PUBLIC["torchvision"]
    with unallocated():
        assert layout.arguments(layout.config(deeplabv3(num_classes=5))) == {"num_classes": 5}
    with pytest.raises(ValueError, match="expected DeepLabv3 on ResNet-50"):
        export(deeplabv3_plus("resnet9", 3, hidden_dim=8, width=4), tmp_path, "torchvision")


def test_a_rate_is_the_distance_of_what_a_place_sees():
    model = DeepLab(ResNet((1, 1), width=2, stem="small"), 2, rates=(5,), hidden_dim=4, detail=0).double().eval()
    model.backbone.features = lambda image: [image, image]
    model.refine[0] = nn.Identity()
    for parameter in model.parameters():
        nn.init.uniform_(parameter)  # so that no relu is off
    nn.init.zeros_(model.context.scene[0].weight)
    x = torch.rand(1, 4, 21, 21, dtype=torch.float64, requires_grad=True)
    model(x)[0, :, 10, 10].sum().backward()
    seen = x.grad[0].abs().sum(0).nonzero().tolist()
    assert {tuple(place) for place in seen} == {(row, column) for row in (5, 10, 15) for column in (5, 10, 15)}


def test_the_decoder_hands_fine_detail_across():
    fine, coarse = (deeplabv3_plus("resnet9", 2, hidden_dim=8, width=4), deeplabv3("resnet9", 2, hidden_dim=8, width=4))
    for model, has in ((fine, True), (coarse, False)):
        model.eval()
        for layer in model.context.modules():  # what comes from below is always the same
            if isinstance(layer, nn.Conv2d):
                nn.init.zeros_(layer.weight)
        assert bool(model(torch.rand(1, 3, 32, 32)).std((2, 3)).max() > 1e-6) is has

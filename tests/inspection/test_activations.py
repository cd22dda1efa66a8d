"""Activation maps."""

import pytest
import torch
from torch import nn

from thalweg.inspection.activations import activations, draw_maps
from thalweg.models.vision.lenet import lenet


def test_the_activations_are_what_the_modules_give():
    model, image = lenet(image_size=8, channels=[2, 3]), torch.rand(2, 1, 8, 8)
    found = activations(model, image)
    with torch.no_grad():
        model.eval()
        first = model.stages[0](image)
        assert torch.equal(found["stages.0"], first)
        assert torch.equal(found["stages.1"], model.stages[1](first))
        assert torch.equal(found["head"], model(image))
        assert torch.equal(found["stages.0.0"], model.stages[0][0](image))
    assert next(iter(found)) == "stages.0.0"
    assert found["stages.0"].shape == (2, 2, 4, 4)  # [batch channel height width]: a map a channel


def test_only_what_is_named_is_kept_and_nothing_stays_behind():
    model, image = lenet(image_size=8).train(), torch.rand(2, 1, 8, 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert list(activations(model, image, names=["dense.0", "stages.1"])) == ["stages.1", "dense.0"]
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_what_works_in_place_does_not_change_what_was_kept():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True))
    x = torch.randn(5, 3)
    assert torch.equal(activations(model, x)["0"], model[0](x))


def test_the_maps_of_an_image_are_drawn_one_a_channel():
    drawn = draw_maps(lenet(image_size=8, channels=[5, 3]), torch.rand(1, 1, 8, 8), "stages.0")
    pictures = [axis.images[0].get_array() for axis in drawn.axes if axis.images]
    assert len(pictures) == 5
    assert all(picture.min() == 0 and picture.max() == 1 for picture in pictures)


def test_a_name_that_is_none_is_refused():
    model, image = lenet(image_size=8), torch.rand(1, 1, 8, 8)
    with pytest.raises(ValueError, match=r"no module 'stage.1', but \['stages.1'"):
        activations(model, image, names=["stage.1"])
    with pytest.raises(ValueError, match=r"name='head': the module gave \(1, 10\), expected maps"):
        draw_maps(model, image, "head")

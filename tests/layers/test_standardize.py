"""Images as they come -> images as the model sees them."""

import pytest
import torch
from torch import nn

from thalweg.build import adapt, build, load, save
from thalweg.layers.standardize import moments, standardize
from thalweg.models.vision.lenet import lenet
from thalweg.models.vision.resnet import resnet9

COLOURS = {"mean": [0.5, 0.4, 0.3], "deviation": [0.1, 0.2, 0.3], "size": [4, 4]}


def test_the_model_sees_mean_zero_and_deviation_one_by_the_formula():
    image = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    seen = standardize(nn.Identity(), **COLOURS).double()(image)
    for channel, (mean, deviation) in enumerate(zip(COLOURS["mean"], COLOURS["deviation"], strict=True)):
        expected = (image[:, channel] - torch.tensor(mean).double()) / torch.tensor(deviation).double()
        torch.testing.assert_close(seen[:, channel], expected, rtol=1e-10, atol=1e-10)


def test_bytes_and_floats_of_the_same_image_are_the_same_to_the_model():
    image = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    model = standardize(nn.Identity(), **COLOURS)
    torch.testing.assert_close(model(image), model(image.float() / 255))


def test_colour_becomes_luminance_and_grey_becomes_three_equal_channels():
    grey = standardize(nn.Identity(), mean=[0.0], deviation=[1.0], size=[4, 4])
    image = torch.rand(2, 3, 4, 4)
    expected = 0.299 * image[:, 0] + 0.587 * image[:, 1] + 0.114 * image[:, 2]
    torch.testing.assert_close(grey(image)[:, 0], expected)
    colour = standardize(nn.Identity(), mean=[0.0] * 3, deviation=[1.0] * 3, size=[4, 4])
    assert torch.equal(colour(image[:, :1]), image[:, :1].expand(-1, 3, -1, -1))


def test_any_size_becomes_the_models_own():
    model = standardize(nn.Identity(), **COLOURS)
    assert model(torch.rand(2, 3, 9, 2)).shape == (2, 3, 4, 4)


def test_a_smaller_image_is_made_of_averages_and_not_of_single_pixels():
    stripes = torch.tensor([0, 0, 0, 255], dtype=torch.uint8).repeat(8).expand(1, 1, 32, 32)
    seen = standardize(nn.Identity(), mean=[0.0], deviation=[1.0], size=[4, 4])(stripes)
    torch.testing.assert_close(seen[..., 1:3], torch.full((1, 1, 4, 2), 0.25), rtol=0, atol=0.02)


def test_it_is_saved_with_the_model(tmp_path):
    model = adapt(build(lenet, image_size=8), standardize, mean=[0.3], deviation=[0.2], size=[8, 8])
    save(model, tmp_path)
    image = torch.randint(0, 256, (3, 3, 11, 13), dtype=torch.uint8)
    loaded = load(tmp_path)
    assert loaded.size == (8, 8)
    assert torch.equal(loaded(image), model.eval()(image))


def test_a_backbone_behind_it_is_one_still():
    model = standardize(resnet9(width=4, num_classes=2), **COLOURS)
    assert [m.shape[-1] for m in model.features(torch.rand(2, 3, 8, 8))] == [4, 2, 1, 1]


@pytest.mark.parametrize("count", [7, 20_005])  # the second is sampled
def test_moments_are_mean_and_deviation_of_every_channel(count):
    image = torch.randint(0, 256, (count, 2, 3, 3), dtype=torch.uint8)
    image[:, 1] //= 4
    values = (image[:: max(1, count // 10_000)].double() / 255).transpose(0, 1).flatten(1)
    found = moments(image)
    torch.testing.assert_close(torch.tensor(found["mean"]), values.mean(1).float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.tensor(found["deviation"]), values.std(1, correction=0).float(), rtol=1e-6, atol=0)


def test_a_constant_channel_has_a_small_deviation_and_not_zero():
    found = moments(torch.full((4, 1, 5, 5), 255, dtype=torch.uint8))
    assert found == {"mean": [1.0], "deviation": [pytest.approx(1e-3)]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"deviation": [0.1]}, r"mean=\[0.5, 0.4, 0.3\], deviation=\[0.1\]"),
        ({"deviation": [0.1, 0.0, 0.1]}, "deviations above zero"),
        ({"size": [4]}, r"size=\[4\]: expected height and width"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        standardize(nn.Identity(), **{**COLOURS, **arguments})


def test_images_that_do_not_fit_are_refused():
    model = standardize(nn.Identity(), **COLOURS)
    with pytest.raises(ValueError, match="image: 4 channels, the model sees 3"):
        model(torch.rand(1, 4, 4, 4))
    with pytest.raises(ValueError, match=r"image: \(3, 4, 4\), expected \[batch channel height width\]"):
        model(torch.rand(3, 4, 4))

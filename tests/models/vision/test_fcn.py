"""FCN by its definition, and what its parts promise."""

import pytest
import torch
from definitions import equal_with_gradients
from torch import nn

from thalweg.models.vision.fcn import FCN, Enlarge, fcn
from thalweg.models.vision.resnet import ResNet


def transposed(x, layer):
    """y[c, i s + u - p, j s + v - p] += weight[c, u, v] x[c, i, j], cut to s times the extent."""
    layer = layer.conv
    weight, stride, padding = layer.weight, layer.stride[0], layer.padding[0]
    size, (batch, _, height, width) = weight.shape[-1], x.shape
    y = x.new_zeros(batch, weight.shape[0], (height - 1) * stride + size, (width - 1) * stride + size)
    for i in range(height):
        for j in range(width):
            step = torch.einsum("bc,cuv->bcuv", x[:, :, i, j], weight[:, 0])
            above, left = i * stride, j * stride
            window = nn.functional.pad(step, (left, y.shape[3] - left - size, above, y.shape[2] - above - size))
            y = y + window
    return y[..., padding : padding + height * stride, padding : padding + width * stride]


def naive(model, image):
    def score(x, layer):
        return torch.einsum("bchw,oc->bohw", x, layer.weight[:, :, 0, 0]) + layer.bias[:, None, None]

    maps = model.backbone.features(image)
    x = score(maps[-1], model.head)
    for number, layer in enumerate(model.skips):
        finer = score(maps[-2 - number], layer)
        x = transposed(x, model.up[number])[..., : finer.shape[2], : finer.shape[3]] + finer
    return transposed(x, model.up[-1])[..., : image.shape[2], : image.shape[3]]


@pytest.mark.parametrize("skips", [0, 1, 2])
def test_values_and_gradients_are_those_of_the_definition(skips):
    backbone = ResNet((1, 1, 1), in_channels=2, width=4, stem="medium")
    model = FCN(backbone, 3, skips).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    image = torch.randn(2, 2, 13, 10, dtype=torch.float64, requires_grad=True)
    equal_with_gradients(model(image), naive(model, image), [image, *model.parameters()])


@pytest.mark.parametrize(("skips", "factors"), [(0, [8]), (2, [2, 2, 2])])
def test_it_starts_as_the_bilinear_enlargement_of_the_coarsest_scores(skips, factors):
    model = fcn("resnet9", 3, skips, width=4).eval()
    image = torch.rand(2, 3, 64, 64)
    expected = model.head(model.backbone.features(image)[-1])
    for factor in factors:
        expected = nn.functional.interpolate(expected, scale_factor=factor, mode="bilinear")
    inside = slice(16, -16)  # at the border there is nothing outside to average with
    assert expected.std() > 1e-3
    torch.testing.assert_close(model(image)[..., inside, inside], expected[..., inside, inside], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_an_enlargement_has_that_factor(factor):
    assert Enlarge(2, factor)(torch.rand(1, 2, 3, 4)).shape == (1, 2, 3 * factor, 4 * factor)


def test_the_head_of_the_backbone_is_dropped_and_its_mode_kept():
    backbone = ResNet((1, 1), width=4)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    model = FCN(backbone, 3)
    assert isinstance(model.backbone.head, nn.Identity)
    assert model.training
    assert backbone.training
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_more_skips_than_maps_and_what_is_no_backbone_are_named():
    with pytest.raises(ValueError, match="skips=2: expected 0 to 1, as the backbone gives 2 maps"):
        FCN(ResNet((1, 1), width=4), 3, skips=2)
    with pytest.raises(ValueError, match="backbone: Linear has no features"):
        FCN(nn.Linear(2, 2), 3)

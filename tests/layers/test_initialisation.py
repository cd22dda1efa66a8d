"""How weights start: variances, orthogonality, bilinear enlargement; what a careless choice does to fifty layers."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import conv_transpose2d, interpolate, pad
from torch.testing import assert_close

from thalweg.layers.initialisation import bilinear_, initialise, lsuv
from thalweg.models.vision.lenet import lenet


@pytest.mark.parametrize(
    ("make", "inputs", "outputs"),
    [
        (lambda: nn.Linear(400, 300), 400, 300),
        (lambda: nn.Conv2d(40, 60, 3), 360, 540),
        (lambda: nn.Conv1d(64, 64, 5, groups=4), 80, 320),
    ],
)
@pytest.mark.parametrize("gain", [1.0, 1.5])
def test_a_scheme_has_the_variance_of_its_formula(make, inputs, outputs, gain):
    for scheme, variance in {"xavier": 2 / (inputs + outputs), "he": 2 / inputs, "lecun": 1 / inputs}.items():
        layer = initialise(make(), scheme, gain=gain)
        assert layer.weight.detach().var() == pytest.approx(gain**2 * variance, rel=0.05)
        assert layer.weight.mean().abs() < 0.1 * math.sqrt(variance)
        assert not layer.bias.any()


def test_orthogonal_rows_stay_orthogonal_with_the_gain_as_their_length():
    layer = initialise(nn.Conv2d(8, 20, 3).double(), "orthogonal", gain=1.5)
    rows = layer.weight.detach().flatten(1)
    assert_close(rows @ rows.T, 2.25 * torch.eye(20).double(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("scheme", ["lecun", "orthogonal"])
def test_what_a_transposed_convolution_gives_is_as_large_as_what_it_got(scheme, groups):
    layer = initialise(nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1, groups=groups), scheme)
    y = layer(torch.randn(8, 64, 16, 16)).detach()[:, :, 4:-4, 4:-4]
    assert y.var() == pytest.approx(1, rel=0.1)


def test_an_unknown_scheme_is_refused_and_the_rest_of_a_model_is_left_alone():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Embedding(5, 4))
    before = [parameter.clone() for parameter in model[1:].parameters()]
    initialise(model, "he")
    assert all(torch.equal(a, b) for a, b in zip(before, model[1:].parameters(), strict=True))
    with pytest.raises(ValueError, match=r"scheme='kaiming': expected one of \['xavier', 'he', 'lecun', 'orthogonal'\]"):
        initialise(model, "kaiming")


def deep(activation, width=128, depth=50):
    return nn.Sequential(*(nn.Sequential(nn.Linear(width, width), activation()) for _ in range(depth)))


def mean_squares(model, x):
    """Of what each layer gives before its activation, and of the gradient that comes back there."""
    forward, back = [], []

    def keep(_, __, y):
        forward.append(y.square().mean().item())
        y.register_hook(lambda gradient: back.append(gradient.square().mean().item()))

    hooks = [part[0].register_forward_hook(keep) for part in model]
    y = model(x)
    y.backward(torch.randn_like(y))
    for hook in hooks:
        hook.remove()
    return forward, back[::-1]


@pytest.mark.parametrize(("activation", "scheme"), [(nn.ReLU, "he"), (nn.Identity, "xavier"), (nn.Identity, "orthogonal")])
def test_the_right_scheme_keeps_the_size_of_values_and_gradients_through_fifty_layers(activation, scheme):
    logs = torch.zeros(2)
    for _ in range(5):  # a single network strays by chance
        sizes = mean_squares(initialise(deep(activation, width=512), scheme), torch.randn(64, 512))
        logs += torch.tensor([math.log(size[-1] / size[0]) / 5 for size in sizes])
    assert logs.abs().max() < math.log(2)


@pytest.mark.parametrize(("deviation", "explodes"), [(1.0, True), (0.01, False)])
def test_a_careless_deviation_explodes_or_vanishes(deviation, explodes):
    model = deep(nn.ReLU)
    for part in model:
        nn.init.normal_(part[0].weight, std=deviation)
        nn.init.zeros_(part[0].bias)
    forward, back = mean_squares(model, torch.randn(64, 128))
    per_layer = 128 * deviation**2 / 2  # what every layer multiplies the mean square by
    if explodes:
        assert per_layer > 10
        assert not forward[-1] < 1e30
        assert not back[0] < 1e30
    else:
        assert per_layer < 0.1
        assert forward[-1] < 1e-30
        assert back[0] < 1e-30


def test_equal_weights_stay_equal_and_so_make_one_unit_of_many():
    layer = nn.Linear(3, 4, bias=False)
    nn.init.constant_(layer.weight, 0.5)
    layer(torch.randn(8, 3)).tanh().sum().backward()
    assert (layer.weight.grad == layer.weight.grad[0]).all()


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU])
def test_lsuv_gives_every_layer_variance_1_whatever_the_activation(activation):
    model, x = deep(activation, width=64, depth=20).double(), torch.randn(32, 64, dtype=torch.float64)
    assert lsuv(model, x) is model
    assert model.training
    y = x
    for part in model:
        y = part[0](y).detach()
        assert y.var() == pytest.approx(1, abs=1e-6)  # the deviation is measured in float32
        y = part[1](y)
        rows = (part[0].weight @ part[0].weight.T).detach()
        assert_close(rows, rows[0, 0].item() * torch.eye(64).double(), rtol=0, atol=1e-8)


def test_lsuv_takes_convolutions_and_layers_that_run_twice():
    torch.manual_seed(0)
    model, images = lenet(image_size=8), torch.rand(64, 1, 8, 8)
    lsuv(model, images)
    seen = {}
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            part.register_forward_hook(lambda _, __, y, name=name: seen.update({name: y.var().item()}))
    model.eval()(images)
    assert len(seen) > 2
    assert all(variance == pytest.approx(1, abs=1e-4) for variance in seen.values())
    twice = nn.Sequential(shared := nn.Linear(8, 8), nn.Tanh(), shared)
    x = torch.randn(32, 8)
    lsuv(twice, x)
    assert shared(x).detach().var() == pytest.approx(1, abs=1e-4)


def test_lsuv_refuses_a_batch_that_says_nothing():
    with pytest.raises(ValueError, match="inputs: a Linear gives the same for all of them"):
        lsuv(nn.Linear(3, 3), torch.zeros(4, 3))


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("groups", [1, 3])
def test_a_bilinear_transposed_convolution_enlarges_as_interpolation_does(factor, groups):
    size = 2 * factor - factor % 2
    padding = (factor - factor % 2) // 2
    weight = bilinear_(torch.randn(3, 3 // groups, size, size, dtype=torch.float64))
    image = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    edged = pad(image, (1,) * 4, mode="replicate")  # interpolation repeats the border, a convolution sees zeros
    enlarged = conv_transpose2d(edged, weight, stride=factor, padding=padding, groups=groups)
    cut = enlarged[:, :, factor:-factor, factor:-factor]
    assert_close(cut, interpolate(image, scale_factor=factor, mode="bilinear"), rtol=0, atol=1e-10)


def test_a_bilinear_kernel_of_four_is_the_one_of_the_books():
    tent = torch.tensor([0.25, 0.75, 0.75, 0.25])
    weight = bilinear_(torch.empty(2, 2, 4, 4))
    assert torch.equal(weight[0, 0], torch.outer(tent, tent))
    assert torch.equal(weight[1, 1], torch.outer(tent, tent))
    assert not weight[0, 1].any()
    with pytest.raises(ValueError, match=r"weight: shape \(2, 3, 4, 4\), expected \[channel channel height width\]"):
        bilinear_(torch.empty(2, 3, 4, 4))


@pytest.mark.parametrize("groups", [1, 3])
def test_an_identity_gives_back_what_it_gets(groups):
    layer, x = nn.Conv2d(6, 6, 3, padding=1, groups=groups, bias=False), torch.randn(2, 6, 5, 5)
    nn.init.dirac_(layer.weight, groups)
    assert torch.equal(layer(x), x)
    linear = nn.Linear(6, 6, bias=False)
    nn.init.eye_(linear.weight)
    assert torch.equal(linear(x[:, :, 0, 0]), x[:, :, 0, 0])

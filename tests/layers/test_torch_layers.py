"""The layers that torch has, held to what the books say of them, written out with loops.   LBDL 4, D2L 4.6, 6, 7.5"""

import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import grad, gradcheck
from torch.nn import functional
from torch.testing import assert_close

EXACT = {"rtol": 0, "atol": 1e-10}


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def convolved(x: Tensor, weight: Tensor, bias: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1) -> Tensor:
    """y[b, o, i, j] = bias[o] + sum over c, k, l of weight[o, c, k, l] x[b, c, i s + k d - p, j s + l d - p]"""
    batch, channels, height, width = x.shape
    out, _, rows, columns = weight.shape
    size = [(n + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for n, k in ((height, rows), (width, columns))]
    maps = []
    for b, o, i, j in product(range(batch), range(out), range(size[0]), range(size[1])):
        total = bias[o]
        for c, k, l in product(range(channels), range(rows), range(columns)):
            row, column = i * stride + k * dilation - padding, j * stride + l * dilation - padding
            if 0 <= row < height and 0 <= column < width:
                total = total + weight[o, c, k, l] * x[b, c, row, column]
        maps.append(total)
    return torch.stack(maps).reshape(batch, out, *size)


def equal_with_gradients(ours: Tensor, naive: Tensor, inputs: list[Tensor]) -> None:
    assert_close(ours, naive, **EXACT)
    direction = torch.randn_like(ours)
    for one, other in zip(grad(ours, inputs, direction), grad(naive, inputs, direction), strict=True):
        assert_close(one, other, **EXACT)


def test_a_linear_layer_is_an_affine_map_of_the_last_axis_whatever_stands_before_it():
    layer, x = nn.Linear(5, 3).double(), numbers(2, 3, 4, 5)
    equal_with_gradients(layer(x), torch.einsum("abcd,od->abco", x, layer.weight) + layer.bias, [x, *layer.parameters()])
    assert layer.weight.shape == (3, 5)


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (1, 2, 2), (3, 1, 1)])
def test_a_convolution_is_the_same_weighted_sum_of_every_window(stride, padding, dilation):
    layer, x = nn.Conv2d(2, 3, (3, 2), stride, padding, dilation).double(), numbers(2, 2, 6, 7)
    naive = convolved(x, layer.weight, layer.bias, stride, padding, dilation)
    equal_with_gradients(layer(x), naive, [x, *layer.parameters()])
    assert gradcheck(layer, x)


def test_a_kernel_sums_over_its_input_channels_and_there_is_one_for_each_output_channel():
    x, weight = numbers(1, 3, 5, 5), numbers(4, 3, 3, 3)
    together = functional.conv2d(x, weight)
    assert together.shape == (1, 4, 3, 3)
    assert_close(together, sum(functional.conv2d(x[:, c : c + 1], weight[:, c : c + 1]) for c in range(3)), **EXACT)


def test_a_convolution_of_a_shifted_image_is_the_shifted_convolution():
    layer, x = nn.Conv2d(1, 2, 3).double(), numbers(1, 1, 9, 9)
    assert_close(layer(x.roll((1, 2), (2, 3)))[..., 1:, 2:], layer(x)[..., :-1, :-2], **EXACT)


def test_without_padding_ten_layers_of_5x5_take_forty_pixels():
    x = torch.zeros(1, 1, 240, 240)
    bare, padded = (nn.Sequential(*(nn.Conv2d(1, 1, 5, padding=p) for _ in range(10))) for p in (0, 2))
    assert bare(x).shape[-2:] == (200, 200)  # D2L 6.3
    assert padded(x).shape[-2:] == (240, 240)


def test_the_extent_after_a_convolution_follows_the_formula():
    for size, kernel, stride, padding in product((7, 8, 12), (1, 2, 3, 5), (1, 2, 3), (0, 1, 2)):
        expected = (size + 2 * padding - kernel) // stride + 1
        assert nn.Conv1d(1, 1, kernel, stride, padding)(torch.zeros(1, 1, size)).shape[-1] == expected


def test_a_dilated_kernel_is_the_kernel_with_zeros_between():
    x, weight = numbers(1, 1, 9, 9), numbers(1, 1, 3, 3)
    stuffed = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    stuffed[..., ::2, ::2] = weight
    assert_close(functional.conv2d(x, weight, dilation=2), functional.conv2d(x, stuffed), **EXACT)


def test_a_1x1_convolution_is_a_linear_layer_at_every_pixel():
    layer, x = nn.Conv2d(3, 4, 1).double(), numbers(2, 3, 5, 6)
    pixels = functional.linear(x.movedim(1, -1), layer.weight[:, :, 0, 0], layer.bias)
    equal_with_gradients(layer(x), pixels.movedim(-1, 1), [x, *layer.parameters()])


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1), (2, 0)])
def test_a_transposed_convolution_is_the_adjoint_of_the_convolution(stride, padding):
    weight = numbers(3, 2, 4, 4)
    x = numbers(1, 2, 8, 8)
    y = torch.randn_like(functional.conv2d(x, weight, stride=stride, padding=padding))
    enlarged = functional.conv_transpose2d(y, weight, stride=stride, padding=padding)
    assert enlarged.shape == x.shape  # g(f(X)) has the shape of X
    forward = (functional.conv2d(x, weight, stride=stride, padding=padding) * y).sum()
    assert_close(forward, (x * enlarged).sum(), **EXACT)


def test_a_transposed_convolution_sends_every_pixel_through_the_kernel_and_adds():
    x, weight = numbers(1, 2, 3, 3), numbers(2, 3, 2, 2)
    naive = x.new_zeros(1, 3, 7, 7)
    for i, j in product(range(3), range(3)):
        naive[0, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] += torch.einsum("c,cokl->okl", x[0, :, i, j], weight)
    assert_close(functional.conv_transpose2d(x, weight, stride=2, output_padding=1), naive, **EXACT)


ACTIVATIONS = {
    "relu": (nn.ReLU(), lambda x: x if x > 0 else 0.0, lambda x: float(x > 0)),
    "leaky relu": (nn.LeakyReLU(0.2), lambda x: x if x > 0 else 0.2 * x, lambda x: 1.0 if x > 0 else 0.2),
    "tanh": (nn.Tanh(), math.tanh, lambda x: 1 - math.tanh(x) ** 2),
    "sigmoid": (nn.Sigmoid(), lambda x: 1 / (1 + math.exp(-x)), lambda x: math.exp(-x) / (1 + math.exp(-x)) ** 2),
    "gelu": (
        nn.GELU(),  # x P(Z <= x)
        lambda x: x * (1 + math.erf(x / 2**0.5)) / 2,
        lambda x: (1 + math.erf(x / 2**0.5)) / 2 + x * math.exp(-x * x / 2) / (2 * math.pi) ** 0.5,
    ),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_and_its_slope_follow_their_formula(name):
    layer, formula, slope = ACTIVATIONS[name]
    x = torch.linspace(-6, 6, 100, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    assert_close(y, torch.tensor([formula(v) for v in x.tolist()], dtype=torch.float64), **EXACT)
    assert_close(grad(y.sum(), x)[0], torch.tensor([slope(v) for v in x.tolist()], dtype=torch.float64), **EXACT)


def test_half_the_rectifiers_are_active_at_the_start():
    network = nn.Sequential(nn.Linear(100, 500), nn.ReLU())
    assert (network(torch.randn(500, 100)) > 0).float().mean() == pytest.approx(0.5, abs=0.02)


def test_squashing_functions_stay_finite_and_their_slopes_vanish_far_out():
    x = torch.tensor([-1000.0, -40.0, 40.0, 1000.0], requires_grad=True)
    for function in (torch.tanh, torch.sigmoid):
        y = function(x)
        assert y.isfinite().all()
        assert (grad(y.sum(), x)[0].abs() < 1e-15).all()


def windows(x: Tensor, size: int, function) -> Tensor:
    batch, channels, height, width = x.shape
    rows = [[[[function(x[b, c, i : i + size, j : j + size]) for j in range(0, width, size)]
              for i in range(0, height, size)] for c in range(channels)] for b in range(batch)]  # fmt: skip
    return torch.stack([torch.stack([torch.stack([torch.stack(r) for r in c]) for c in b]) for b in rows])


def test_pooling_takes_the_largest_or_the_mean_of_every_window():
    x = numbers(2, 3, 6, 6)
    equal_with_gradients(nn.MaxPool2d(2)(x), windows(x, 2, torch.max), [x])
    equal_with_gradients(nn.AvgPool2d(3)(x), windows(x, 3, torch.mean), [x])


def test_maximum_pooling_does_not_see_a_movement_within_its_window():
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 0, 0] = 1
    assert torch.equal(nn.MaxPool2d(2)(x), nn.MaxPool2d(2)(x.roll(1, -1)))
    assert not torch.equal(nn.MaxPool2d(2)(x), nn.MaxPool2d(2)(x.roll(2, -1)))


def test_average_pooling_is_linear_and_maximum_pooling_is_not():
    x, y = numbers(1, 1, 4, 4), numbers(1, 1, 4, 4)
    average, maximum = nn.AvgPool2d(2), nn.MaxPool2d(2)
    assert_close(average(2 * x - 3 * y), 2 * average(x) - 3 * average(y), **EXACT)
    assert not torch.allclose(maximum(2 * x - 3 * y), 2 * maximum(x) - 3 * maximum(y))


def test_global_average_pooling_turns_2048_maps_into_a_vector():
    x = torch.randn(2, 2048, 7, 7, dtype=torch.float64)
    pooled = nn.AdaptiveAvgPool2d(1)(x).flatten(1)
    assert pooled.shape == (2, 2048)
    assert_close(pooled[1, 5], sum(x[1, 5].flatten()) / 49, **EXACT)


def test_flattening_keeps_the_batch_and_the_order():
    x = torch.arange(24).reshape(2, 3, 2, 2)
    assert torch.equal(nn.Flatten()(x), torch.arange(24).reshape(2, 12))


def test_dropout_zeroes_with_its_probability_scales_the_rest_and_rests_at_test_time():
    layer, x = nn.Dropout(0.3), torch.ones(1000, 1000)
    y = layer(x)
    assert y.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    assert (y == 0).float().mean() == pytest.approx(0.3, abs=0.003)
    assert y.mean() == pytest.approx(1, abs=0.01)  # the mean is preserved
    assert ((y != 0).view(-1, 4).all(1)).float().mean() == pytest.approx(0.7**4, abs=0.005)  # a group survives
    assert torch.equal(layer.eval()(x), x)


def test_channel_dropout_zeroes_whole_maps():
    y = nn.Dropout2d(0.5)(torch.ones(100, 50, 4, 4))
    per_map = y.flatten(2)
    assert (per_map == per_map[:, :, :1]).all()
    assert set(per_map[..., 0].unique().tolist()) == {0.0, 2.0}


def test_batch_normalisation_standardises_each_channel_over_batch_and_place_and_remembers():
    layer, x = nn.BatchNorm2d(3, momentum=0.1).double(), numbers(4, 3, 5, 6)
    nn.init.uniform_(layer.weight, 0.5, 2)
    nn.init.uniform_(layer.bias)
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    gamma, beta = layer.weight[:, None, None], layer.bias[:, None, None]
    equal_with_gradients(layer(x), gamma * (x - mean) / (variance + 1e-5).sqrt() + beta, [x, *layer.parameters()])
    standard = functional.batch_norm(x, None, None, training=True)
    assert_close(standard.mean((0, 2, 3)), torch.zeros(3).double(), **EXACT)
    assert_close(standard.var((0, 2, 3), correction=0), torch.ones(3).double(), rtol=0, atol=1e-4)
    assert_close(layer.running_mean, 0.1 * mean.flatten(), **EXACT)
    assert_close(layer.running_var, 0.9 + 0.1 * x.var((0, 2, 3)), **EXACT)  # the running one is unbiased
    scale = (layer.running_var[:, None, None] + 1e-5).sqrt()
    assert_close(layer.eval()(x), gamma * (x - layer.running_mean[:, None, None]) / scale + beta, **EXACT)  # a fixed affine map


def test_batch_normalisation_of_vectors_has_one_mean_a_component():
    x = numbers(7, 4)
    expected = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
    equal_with_gradients(nn.BatchNorm1d(4).double()(x), expected, [x])


def test_layer_normalisation_standardises_each_example_by_itself_in_training_and_test_alike():
    layer, x = nn.LayerNorm(6).double(), numbers(3, 4, 6)
    nn.init.uniform_(layer.weight, 0.5, 2)
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
    equal_with_gradients(layer(x), layer.weight * (x - mean) / (variance + 1e-5).sqrt() + layer.bias, [x, layer.weight])
    assert_close(layer(x)[:1], layer(x[:1]), **EXACT)
    assert torch.equal(layer.eval()(x), layer.train()(x))


def test_an_embedding_is_a_one_hot_vector_times_a_matrix_and_only_rows_read_learn():
    layer, tokens = nn.Embedding(10, 4).double(), torch.tensor([[1, 3], [3, 7]])
    one_hot = functional.one_hot(tokens, 10).double()
    equal_with_gradients(layer(tokens), one_hot @ layer.weight, [layer.weight])
    layer(tokens).sum().backward()
    assert layer.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [1, 3, 7]


def test_a_skip_carries_the_gradient_past_a_branch_that_is_zero():
    branch, x = nn.Linear(4, 4).double(), numbers(2, 4)
    nn.init.zeros_(branch.weight)
    assert not grad(branch(x).sum(), x)[0].any()
    assert_close(grad((x + branch(x)).sum(), x)[0], torch.ones(2, 4).double(), **EXACT)
    assert grad(torch.cat([x, branch(x)], -1).sum(), x)[0].any()


def residual_run(skip: bool, depth: int = 100) -> float:
    """Loss after training a perceptron of a hundred layers to tell the sign of a sum."""
    torch.manual_seed(0)
    layers = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16)) for _ in range(depth // 2))
    head = nn.Linear(16, 2)
    for layer in layers:
        nn.init.normal_(layer[2].weight, std=0.02)
    optimizer = torch.optim.AdamW([*layers.parameters(), *head.parameters()], lr=1e-3)
    x = torch.randn(256, 16)
    label = (x.sum(1) > 0).long()
    for _ in range(60):
        h = x
        for layer in layers:
            h = h + layer(h) if skip else layer(h)
        loss = functional.cross_entropy(head(h), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def test_a_hundred_layers_learn_with_residual_connections_and_not_without():
    assert residual_run(skip=True) < 0.15
    assert residual_run(skip=False) > 0.6

"""The normalisations that torch has, held to their formulas.   LBDL 4.6, D2L 7.5"""

import pytest
import torch
from definitions import EXACT, equal_with_gradients, numbers
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.testing import assert_close


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


def test_batch_normalisation_of_volumes_has_one_mean_a_channel():
    x = numbers(3, 2, 2, 3, 2)
    mean, variance = x.mean((0, 2, 3, 4), keepdim=True), x.var((0, 2, 3, 4), correction=0, keepdim=True)
    equal_with_gradients(nn.BatchNorm3d(2).double()(x), (x - mean) / (variance + 1e-5).sqrt(), [x])


def test_running_statistics_are_a_moving_average_or_with_no_momentum_the_mean_of_all_batches():
    moving, whole = nn.BatchNorm1d(2).double(), nn.BatchNorm1d(2, momentum=None).double()
    batches = [3 + 2 * torch.randn(8, 2, dtype=torch.float64) for _ in range(5)]
    expected = torch.zeros(2, dtype=torch.float64)
    for batch in batches:
        moving(batch), whole(batch)
        expected = 0.9 * expected + 0.1 * batch.mean(0)
    assert_close(moving.running_mean, expected, **EXACT)
    assert_close(whole.running_mean, torch.stack(batches).mean((0, 1)), **EXACT)
    assert_close(whole.running_var, torch.stack([batch.var(0) for batch in batches]).mean(0), **EXACT)


def test_batch_normalisation_refuses_a_single_vector_in_training_and_takes_it_at_test_time():
    layer = nn.BatchNorm1d(3)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        layer(torch.randn(1, 3))
    assert layer.eval()(torch.randn(1, 3)).isfinite().all()


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_normalisation_standardises_groups_of_channels_of_each_example(groups):
    layer, x = nn.GroupNorm(groups, 6).double(), numbers(2, 6, 3, 4)
    nn.init.uniform_(layer.weight, 0.5, 2)
    nn.init.uniform_(layer.bias)
    parts = []
    for example in x:
        for part in example.chunk(groups):
            parts.append((part - part.mean()) / (part.var(correction=0) + 1e-5).sqrt())
    naive = torch.cat(parts).reshape(x.shape) * layer.weight[:, None, None] + layer.bias[:, None, None]
    equal_with_gradients(layer(x), naive, [x, *layer.parameters()])
    assert_close(layer(x)[:1], layer(x[:1]), **EXACT)  # each example by itself


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_instance_normalisation_standardises_each_map_and_forgets_contrast(dimensions):
    layer = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[dimensions - 1](3)
    x = numbers(2, 3, *[3] * dimensions)
    places = tuple(range(2, x.ndim))
    mean, variance = x.mean(places, keepdim=True), x.var(places, correction=0, keepdim=True)
    equal_with_gradients(layer(x), (x - mean) / (variance + 1e-5).sqrt(), [x])
    assert_close(layer(1e3 * x + 7), layer(x), rtol=0, atol=1e-4)
    assert_close(layer(x), nn.GroupNorm(3, 3, affine=False).double()(x), **EXACT)  # groups of one channel


def test_root_mean_square_normalisation_divides_and_does_not_centre():
    layer, x = nn.RMSNorm(5, eps=1e-6).double(), numbers(2, 3, 5)
    nn.init.uniform_(layer.weight, 0.5, 2)
    equal_with_gradients(layer(x), layer.weight * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt(), [x, layer.weight])


def test_local_response_normalisation_divides_by_the_squares_of_neighbouring_channels():
    x = numbers(2, 7, 3)
    layer = nn.LocalResponseNorm(5, alpha=0.3, beta=0.75, k=2.0)
    columns = []
    for c in range(7):
        near = x[:, max(0, c - 2) : c + 3].square().sum(1)
        columns.append(x[:, c] / (2.0 + 0.3 / 5 * near) ** 0.75)  # torch divides alpha by the size, AlexNet's paper does not
    equal_with_gradients(layer(x), torch.stack(columns, 1), [x])


def test_weight_normalisation_learns_length_and_direction_apart():
    layer, x = weight_norm(nn.Linear(4, 3)).double(), numbers(2, 4)
    length, direction = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    nn.init.uniform_(length, 0.5, 2)
    weight = torch.stack([g * v / v.square().sum().sqrt() for g, v in zip(length, direction, strict=True)])
    equal_with_gradients(layer(x), functional.linear(x, weight, layer.bias), [x, length, direction])
    assert_close(layer.weight.norm(dim=1, keepdim=True), length, **EXACT)


def test_spectral_normalisation_makes_the_largest_singular_value_one():
    layer = spectral_norm(nn.Linear(6, 4), n_power_iterations=50).double()
    weight = layer.parametrizations.weight.original
    nn.init.normal_(weight, std=3)
    with torch.no_grad():
        for _ in range(3):
            layer(torch.zeros(1, 6).double())  # each forward pass takes iterations
        assert_close(layer.weight, weight / torch.linalg.matrix_norm(weight, 2), rtol=0, atol=1e-6)
    x, y = torch.randn(2, 100, 6, dtype=torch.float64)
    assert ((layer(x) - layer(y)).norm(dim=1) <= (x - y).norm(dim=1) * (1 + 1e-6)).all()  # Lipschitz by 1

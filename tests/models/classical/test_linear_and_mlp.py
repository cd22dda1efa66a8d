"""Linear models and perceptrons by their definitions."""

import torch
from torch import nn

from thalweg.models.classical.linear import linear_regression, softmax_regression
from thalweg.models.classical.mlp import mlp


def weighted_sums(layer, one):
    return torch.stack(
        [sum(w * v for w, v in zip(row, one, strict=True)) + b for row, b in zip(layer.weight, layer.bias, strict=True)]
    )


def test_linear_regression_is_a_weighted_sum():
    model, x = linear_regression(3, 2).double(), torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(model(x), torch.stack([weighted_sums(model.head, one) for one in x]), rtol=1e-10, atol=1e-10)


def test_softmax_regression_reads_every_pixel():
    model, image = softmax_regression(in_channels=3, image_size=4, num_classes=5), torch.rand(2, 3, 4, 4, requires_grad=True)
    assert model(image).shape == (2, 5)
    (gradient,) = torch.autograd.grad(model(image)[:, 0].sum(), image)
    assert torch.equal(gradient[0].flatten(), model.head.weight[0])


def test_a_perceptron_is_its_definition_with_gradients():
    model = mlp(6, 2, hidden_dims=[4, 3]).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    expected = []
    for one in x.flatten(1):
        for block in model.blocks:
            one = weighted_sums(block[0], one)
            one = torch.where(one > 0, one, 0.0)
        expected.append(model.head.weight @ one + model.head.bias)
    ours, theirs, parameters = model(x), torch.stack(expected), list(model.parameters())
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(ours)
    for our, their in zip(*(torch.autograd.grad(value, parameters, weights) for value in (ours, theirs)), strict=True):
        torch.testing.assert_close(our, their, rtol=1e-10, atol=1e-10)


def test_a_perceptron_without_hidden_layers_is_linear():
    model, a, b = mlp(3, 2, hidden_dims=[]), torch.randn(1, 3), torch.randn(1, 3)
    torch.testing.assert_close(model(a + b) - model(b), model(a) - model(torch.zeros(1, 3)))


def test_dropout_acts_in_training_alone():
    model, x = mlp(4, 2, dropout=0.5), torch.rand(8, 4)
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))

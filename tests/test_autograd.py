"""Differentiation as the three books describe it, held to finite differences and to derivations by hand.

LBDL 3.4, D2L 2.4-2.5, 4.7
"""

import random
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional
from torch.testing import assert_close


def numbers(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


UNARY = {
    "sin": torch.sin,
    "tanh": torch.tanh,
    "exp": lambda x: torch.exp(x / 4),
    "log": lambda x: torch.log(1 + x * x),
    "square root": lambda x: torch.sqrt(1 + x * x),
    "sigmoid": torch.sigmoid,
    "cube": lambda x: x**3,
    "normal": lambda x: torch.exp(-x * x),
}
BINARY = {"+": torch.add, "-": torch.sub, "*": torch.mul, "/": lambda x, y: x / (2 + torch.cos(y))}


def composed(seed: int):
    """A random function of two numbers: ten steps, each of earlier results."""
    choose = random.Random(seed)
    plan = [(choose.choice(list(UNARY)), choose.choice(list(BINARY)), choose.random(), choose.random()) for _ in range(10)]

    def function(x: Tensor, y: Tensor) -> Tensor:
        held = [x, y]
        for unary, binary, first, second in plan:
            one, other = held[int(first * len(held))], held[int(second * len(held))]
            held.append(torch.sin(BINARY[binary](UNARY[unary](one), other)))
        return sum(held[2:])

    return function


@pytest.mark.parametrize("seed", range(20))
def test_autograd_agrees_with_finite_differences_on_random_functions(seed):
    function, step = composed(seed), 1e-6
    x, y = numbers(1, seed=seed), numbers(1, seed=seed + 100)
    gradient = torch.autograd.grad(function(x, y), (x, y), allow_unused=True)
    with torch.no_grad():
        numeric = ((function(x + step, y) - function(x - step, y)) / (2 * step),
                   (function(x, y + step) - function(x, y - step)) / (2 * step))  # fmt: skip
    for ours, measured in zip(gradient, numeric, strict=True):
        assert_close(torch.zeros_like(measured) if ours is None else ours, measured, rtol=1e-6, atol=1e-7)


OPERATIONS = {  # those that the networks of this house are made of
    "linear": (functional.linear, numbers(2, 3, 4), numbers(5, 4), numbers(5)),
    "matmul": (torch.matmul, numbers(2, 3, 4), numbers(2, 4, 5)),
    "conv1d": (partial(functional.conv1d, stride=2, padding=1), numbers(2, 3, 7), numbers(4, 3, 3)),
    "conv2d": (partial(functional.conv2d, padding=1, dilation=2), numbers(1, 2, 6, 6), numbers(3, 2, 3, 3)),
    "conv_transpose2d": (partial(functional.conv_transpose2d, stride=2), numbers(1, 2, 3, 3), numbers(2, 3, 3, 3)),
    "max_pool2d": (partial(functional.max_pool2d, kernel_size=2), numbers(1, 2, 4, 4)),
    "avg_pool2d": (partial(functional.avg_pool2d, kernel_size=2), numbers(1, 2, 4, 4)),
    "batch_norm": (lambda x, w, b: functional.batch_norm(x, None, None, w, b, True), numbers(6, 3), numbers(3), numbers(3)),
    "layer_norm": (lambda x, w, b: functional.layer_norm(x, (4,), w, b), numbers(3, 4), numbers(4), numbers(4)),
    "rms_norm": (lambda x, w: functional.rms_norm(x, (4,), w), numbers(3, 4), numbers(4)),
    "embedding": (partial(functional.embedding, torch.tensor([0, 2, 2])), numbers(3, 4)),
    "attention": (partial(functional.scaled_dot_product_attention, is_causal=True),
                  numbers(1, 2, 3, 4), numbers(1, 2, 3, 4, seed=1), numbers(1, 2, 3, 4, seed=2)),
    "relu": (functional.relu, numbers(9)),
    "leaky_relu": (functional.leaky_relu, numbers(9)),
    "gelu": (functional.gelu, numbers(9)),
    "silu": (functional.silu, numbers(9)),
    "softmax": (partial(torch.softmax, dim=-1), numbers(2, 5)),
    "cross_entropy": (partial(functional.cross_entropy, target=torch.tensor([1, 4]), label_smoothing=0.1), numbers(2, 5)),
    "binary_cross_entropy": (partial(functional.binary_cross_entropy_with_logits, target=torch.ones(2).double()), numbers(2)),
    "smooth_l1": (functional.smooth_l1_loss, numbers(9), numbers(9, seed=1)),
    "cosine_similarity": (functional.cosine_similarity, numbers(3, 4), numbers(3, 4, seed=1)),
    "norm": (torch.linalg.vector_norm, numbers(5)),
    "gather": (partial(torch.gather, dim=1, index=torch.tensor([[0], [2]])), numbers(2, 3)),
    "amax": (partial(torch.amax, dim=1), numbers(2, 3)),
    "logsumexp": (partial(torch.logsumexp, dim=-1), numbers(2, 3)),
    "interpolate": (partial(functional.interpolate, size=(5, 5), mode="bilinear", antialias=True), numbers(1, 1, 3, 3)),
    "reshape": (lambda x: x.transpose(0, 1).reshape(4, 3)[1:, ::2], numbers(3, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_gradient_of_an_operation_passes_finite_differences(name):
    function, *inputs = OPERATIONS[name]
    assert gradcheck(function, inputs)


def test_a_wrong_gradient_does_not_pass_finite_differences():
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x * x

        @staticmethod
        def backward(context, gradient):
            return gradient

    assert not gradcheck(Wrong.apply, numbers(3), raise_exception=False)


def test_control_flow_of_python_is_differentiated_along_the_path_taken():
    def function(a: Tensor) -> Tensor:  # D2L 2.5.4: doubles until the norm passes 1000, then may scale
        b = a * 2
        while b.norm() < 1000:
            b = b * 2
        return b if b.sum() > 0 else 100 * b

    for value in (0.7, -0.7):
        a = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        d = function(a)
        d.backward()
        assert a.grad == d / a  # piecewise linear, so slope = value / argument


def test_any_quantity_is_differentiated_with_respect_to_any_other():
    x = numbers(4)
    hidden = x.sin()
    y = (hidden**3).sum()
    by_hidden, by_x = torch.autograd.grad(y, (hidden, x), create_graph=True)
    assert_close(by_hidden, 3 * hidden**2)
    assert_close(by_x, 3 * hidden**2 * x.cos())
    (second,) = torch.autograd.grad(by_x.sum(), x)  # a gradient is a quantity too
    assert_close(second, 6 * hidden * x.cos() ** 2 - 3 * hidden**2 * x.sin())
    assert (hidden.detach() * x).sum().backward() is None
    assert_close(x.grad, hidden)  # detached: a constant


def test_the_backward_pass_multiplies_by_the_jacobian_of_each_layer():
    """grad x^(d-1) = grad x^(d) J_x f^(d);  grad w_d = grad x^(d) J_w f^(d)"""
    x, weights = numbers(3), [numbers(4, 3), numbers(2, 4)]
    layers = [lambda x, w: torch.tanh(w @ x), lambda x, w: torch.tanh(w @ x)]
    activations = [x]
    for layer, w in zip(layers, weights, strict=True):
        activations.append(layer(activations[-1], w))
    direction = numbers(2).detach()
    expected = torch.autograd.grad(activations[-1] @ direction, [x, *weights], retain_graph=True)
    gradient, by_weight = direction, []
    for d in reversed(range(2)):
        by_x, by_w = torch.autograd.functional.jacobian(layers[d], (activations[d].detach(), weights[d]))
        by_weight.insert(0, torch.einsum("i,ijk->jk", gradient, by_w))
        gradient = gradient @ by_x
    for ours, theirs in zip([gradient, *by_weight], expected, strict=True):
        assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_a_vector_jacobian_product_is_the_vector_times_the_jacobian():
    x, v = numbers(5), numbers(4).detach()
    w = numbers(4, 5).detach()

    def function(x: Tensor) -> Tensor:
        return torch.sigmoid(w @ x)

    s = torch.sigmoid(w @ x.detach())
    explicit = (s * (1 - s))[:, None] * w  # by hand
    assert_close(torch.autograd.functional.vjp(function, x, v)[1], v @ explicit, rtol=0, atol=1e-12)
    assert_close(torch.func.jvp(function, (x.detach(),), (torch.ones(5).double(),))[1], explicit.sum(1), rtol=0, atol=1e-12)


def test_the_forward_pass_gives_the_activations_computed_by_hand():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 1.0]]))
        network[0].bias.copy_(torch.tensor([0.5, -1.0]))
        network[2].weight.copy_(torch.tensor([[2.0, -1.0]]))
        network[2].bias.copy_(torch.tensor([4.0]))
    seen = []
    for layer in network:
        layer.register_forward_hook(lambda layer, inputs, output: seen.append(output.tolist()))
    network(torch.tensor([1.0, 2.0]))
    # 1 - 4 + 0.5 = -2.5, 3 + 2 - 1 = 4;  relu: 0, 4;  2 * 0 - 4 + 4 = 0
    assert seen == [[-2.5, 4.0], [0.0, 4.0], [0.0]]


def perceptron(x: Tensor, weights: list[Tensor]) -> list[Tensor]:
    """x^(d) = tanh(W_d x^(d-1)), the last layer linear: every activation.   x: [batch feature]"""
    activations = [x]
    for number, w in enumerate(weights):
        s = activations[-1] @ w.T
        activations.append(s if number == len(weights) - 1 else torch.tanh(s))
    return activations


def backward(activations: list[Tensor], weights: list[Tensor], gradient: Tensor) -> list[Tensor]:
    """The gradient with respect to every weight, from that with respect to the output."""
    found = []
    for number in reversed(range(len(weights))):
        found.insert(0, gradient.T @ activations[number])
        gradient = gradient @ weights[number] * (1 - activations[number] ** 2)
    return found


def test_backpropagation_written_out_gives_the_gradients_of_autograd():
    x, label = numbers(8, 5).detach(), torch.arange(8) % 3
    weights = [numbers(7, 5), numbers(6, 7), numbers(3, 6)]
    functional.cross_entropy(perceptron(x, weights)[-1], label).backward()
    with torch.no_grad():
        activations = perceptron(x, weights)
        error = (activations[-1].softmax(-1) - functional.one_hot(label, 3)) / 8
        for ours, w in zip(backward(activations, weights, error), weights, strict=True):
            assert_close(ours, w.grad, rtol=0, atol=1e-12)


def test_backpropagation_of_a_perceptron_with_weight_decay_is_that_of_the_book():
    """D2L 4.7: o = W2 relu(W1 x), J = (o - y)^2 / 2 + lambda / 2 (|W1|^2 + |W2|^2)."""
    x, y, decay = numbers(4).detach(), numbers(2).detach(), 0.3
    first, second = numbers(5, 4), numbers(2, 5)
    z = first @ x
    h = z.relu()
    o = second @ h
    objective = (o - y).square().sum() / 2 + decay / 2 * (first.square().sum() + second.square().sum())
    objective.backward()
    with torch.no_grad():
        by_o = o - y
        by_second = torch.outer(by_o, h) + decay * second
        by_z = second.T @ by_o * (z > 0)
        by_first = torch.outer(by_z, x) + decay * first
    assert_close(by_second, second.grad, rtol=0, atol=1e-12)
    assert_close(by_first, first.grad, rtol=0, atol=1e-12)

"""The convolutions that torch has, held to what the books say of them.   LBDL 4.2, D2L 6, 13.10"""

from itertools import product

import pytest
import torch
from definitions import EXACT, equal_with_gradients, numbers
from torch import Tensor, nn
from torch.autograd import grad, gradcheck
from torch.nn import functional
from torch.testing import assert_close


def convolved(x: Tensor, weight: Tensor, bias: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1) -> Tensor:
    """y[b, o, i, ...] = bias[o] + sum over c, k, ... of weight[o, c, k, ...] x[b, first + c, i s + k d - p, ...]"""
    batch, channels, *extent = x.shape
    out, per_group, *kernel = weight.shape
    size = [(n + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(extent, kernel, strict=True)]
    values = []
    for b, o, *place in product(range(batch), range(out), *map(range, size)):
        first = o // (out // (channels // per_group)) * per_group
        total = bias[o]
        for c, *k in product(range(per_group), *map(range, kernel)):
            at = [i * stride + j * dilation - padding for i, j in zip(place, k, strict=True)]
            if all(0 <= a < n for a, n in zip(at, extent, strict=True)):
                total = total + weight[o, c, *k] * x[b, first + c, *at]
        values.append(total)
    return torch.stack(values).reshape(batch, out, *size)


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (1, 2, 2), (3, 1, 1)])
def test_a_convolution_is_the_same_weighted_sum_of_every_window(stride, padding, dilation):
    layer, x = nn.Conv2d(2, 3, (3, 2), stride, padding, dilation).double(), numbers(2, 2, 6, 7)
    naive = convolved(x, layer.weight, layer.bias, stride, padding, dilation)
    equal_with_gradients(layer(x), naive, [x, *layer.parameters()])
    assert gradcheck(layer, x)


@pytest.mark.parametrize(
    ("layer", "extent"),
    [
        (nn.Conv1d(2, 3, 3, stride=2, padding=1, dilation=2), [8]),
        (nn.Conv3d(2, 2, 2, stride=2, padding=1), [3, 2, 4]),
        (nn.Conv2d(4, 6, 2, groups=2), [3, 4]),
        (nn.Conv2d(3, 6, 2, groups=3), [3, 3]),  # a depthwise one, two filters a channel
    ],
)
def test_a_convolution_in_any_number_of_dimensions_and_groups_follows_the_same_formula(layer, extent):
    x = numbers(2, layer.in_channels, *extent)
    sizes = {"stride": layer.stride[0], "padding": layer.padding[0], "dilation": layer.dilation[0]}
    equal_with_gradients(layer.double()(x), convolved(x, layer.weight, layer.bias, **sizes), [x, *layer.parameters()])


def test_groups_see_only_their_own_channels_and_have_as_many_times_fewer_parameters():
    whole, grouped = nn.Conv2d(8, 8, 3, bias=False), nn.Conv2d(8, 8, 3, groups=4, bias=False)
    assert whole.weight.numel() == 4 * grouped.weight.numel()
    x = numbers(1, 8, 3, 3)
    reached = grad(grouped.double()(x)[:, 2:4].sum(), x)[0].abs().sum((0, 2, 3)) > 0
    assert reached.tolist() == [False] * 2 + [True] * 2 + [False] * 4


def test_a_depthwise_and_a_1x1_convolution_are_one_whose_kernels_are_products_and_take_fewer_parameters():
    depthwise, pointwise = nn.Conv2d(5, 5, 3, groups=5, bias=False).double(), nn.Conv2d(5, 7, 1, bias=False).double()
    kernel = torch.einsum("oc,ckl->ockl", pointwise.weight[:, :, 0, 0], depthwise.weight[:, 0])
    x = numbers(2, 5, 6, 6)
    equal_with_gradients(pointwise(depthwise(x)), functional.conv2d(x, kernel), [x, depthwise.weight, pointwise.weight])
    assert depthwise.weight.numel() + pointwise.weight.numel() == 5 * 9 + 5 * 7 < kernel.numel() == 5 * 7 * 9


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
        for dilation in (2, 3):
            if size + 2 * padding >= (span := dilation * (kernel - 1) + 1):
                layer = nn.Conv1d(1, 1, kernel, stride, padding, dilation)
                assert layer(torch.zeros(1, 1, size)).shape[-1] == (size + 2 * padding - span) // stride + 1


def test_the_extent_after_a_transposed_convolution_is_that_which_the_convolution_takes_back():
    for size, kernel, stride, padding, dilation in product((4, 7), (2, 3, 5), (1, 2, 3), (0, 1), (1, 2)):
        enlarge = nn.ConvTranspose1d(1, 1, kernel, stride, padding, dilation=dilation)
        extent = enlarge(torch.zeros(1, 1, size)).shape[-1]
        assert extent == (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1
        assert nn.Conv1d(1, 1, kernel, stride, padding, dilation)(torch.zeros(1, 1, extent)).shape[-1] == size


def test_a_dilated_kernel_is_the_kernel_with_zeros_between():
    x, weight = numbers(1, 1, 9, 9), numbers(1, 1, 3, 3)
    stuffed = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    stuffed[..., ::2, ::2] = weight
    assert_close(functional.conv2d(x, weight, dilation=2), functional.conv2d(x, stuffed), **EXACT)


def test_a_1x1_convolution_is_a_linear_layer_at_every_pixel():
    layer, x = nn.Conv2d(3, 4, 1).double(), numbers(2, 3, 5, 6)
    pixels = functional.linear(x.movedim(1, -1), layer.weight[:, :, 0, 0], layer.bias)
    equal_with_gradients(layer(x), pixels.movedim(-1, 1), [x, *layer.parameters()])


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1), (2, 0)])
def test_a_transposed_convolution_is_the_adjoint_of_the_convolution(stride, padding, dimensions):
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[dimensions - 1]
    transposed = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[dimensions - 1]
    weight, x = numbers(3, 2, *[4] * dimensions), numbers(1, 2, *[8] * dimensions)
    y = torch.randn_like(convolve(x, weight, stride=stride, padding=padding))
    enlarged = transposed(y, weight, stride=stride, padding=padding)
    assert enlarged.shape == x.shape  # g(f(X)) has the shape of X
    forward = (convolve(x, weight, stride=stride, padding=padding) * y).sum()
    assert_close(forward, (x * enlarged).sum(), **EXACT)
    assert_close(grad(forward, x)[0], enlarged, **EXACT)  # one's forward is the other's backward


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_a_transposed_convolution_sends_every_value_through_the_kernel_and_adds(dimensions):
    layer = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dimensions - 1](2, 3, 2, stride=2, output_padding=1)
    x = numbers(1, 2, *[3] * dimensions)
    naive = layer.double().bias.reshape(1, 3, *[1] * dimensions).expand(1, 3, *[7] * dimensions).clone()
    for place in product(range(3), repeat=dimensions):
        window = tuple(slice(2 * i, 2 * i + 2) for i in place)
        naive[0, :, *window] += torch.einsum("c,co...->o...", x[0, :, *place], layer.weight)
    equal_with_gradients(layer(x), naive, [x, *layer.parameters()])


def as_matrix(kernel: Tensor, extent: int) -> Tensor:
    """The matrix, mostly zero, that a vector of pixels is multiplied with: W[i n' + j, (i + k) n + j + l] = kernel[k, l]."""
    size = extent - len(kernel) + 1
    matrix = torch.zeros(size, size, extent, extent, dtype=kernel.dtype)
    for i, j in product(range(size), repeat=2):
        matrix[i, j, i : i + len(kernel), j : j + len(kernel)] = kernel
    return matrix.reshape(size * size, extent * extent)


def test_a_convolution_is_a_product_with_a_matrix_and_the_transposed_one_with_its_transpose():
    x, kernel = numbers(1, 1, 5, 5), numbers(3, 3)
    matrix = as_matrix(kernel, 5)
    y = (matrix @ x.flatten()).reshape(1, 1, 3, 3)
    equal_with_gradients(functional.conv2d(x, kernel[None, None]), y, [x, kernel])
    y = numbers(1, 1, 3, 3)
    back = (as_matrix(kernel, 5).T @ y.flatten()).reshape(1, 1, 5, 5)
    equal_with_gradients(functional.conv_transpose2d(y, kernel[None, None]), back, [y, kernel])


def test_a_kernel_learns_to_see_edges():
    image = torch.ones(1, 1, 6, 8)
    image[..., 2:6] = 0  # white, black, white
    edges = image[..., :-1] - image[..., 1:]
    kernel = nn.Conv2d(1, 1, (1, 2), bias=False)
    for _ in range(60):
        loss = (kernel(image) - edges).square().sum()
        kernel.weight.data -= 3e-2 * grad(loss, kernel.weight)[0]
    assert_close(kernel.weight.detach().flatten(), torch.tensor([1.0, -1.0]), rtol=0, atol=0.01)  # D2L 6.2.4


def test_a_kernel_answers_most_where_the_image_looks_like_it():
    template = torch.randn(1, 1, 5, 5)
    image = 0.1 * torch.randn(1, 1, 20, 20)
    image[..., 7:12, 3:8] += template[0, 0]
    answer = functional.conv2d(image, template)
    assert divmod(answer.argmax().item(), answer.shape[-1]) == (7, 3)


@pytest.mark.parametrize(("depth", "kernel"), [(1, 3), (4, 3), (3, 5), (2, 7)])
def test_information_moves_half_a_kernel_a_layer(depth, kernel):
    layers = nn.Sequential(*(nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False) for _ in range(depth)))
    for layer in layers:
        nn.init.uniform_(layer.weight, 0.5, 1)  # nothing cancels
    signal = torch.zeros(1, 1, 61)
    signal[..., 30] = 1
    reached = layers(signal)[0, 0].nonzero().flatten()
    assert (reached - 30).abs().max() == depth * (kernel // 2)
    assert len(reached) == 2 * depth * (kernel // 2) + 1

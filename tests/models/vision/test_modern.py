"""MobileNetV2, EfficientNet, ConvNeXt and Swin by their definitions, and what their parts promise."""

import math
from functools import partial

import jaxtyping
import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, pad

from thalweg.build import unallocated
from thalweg.models.vision import convnext, efficientnet, mobilenet, swin


def randomised(module):
    module.double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    for buffer in module.buffers():  # running statistics, as of a trained network
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return module.eval()


def agrees(module, naive, x):
    """Values and gradients of input and parameters."""
    inputs = [x.requires_grad_(), *module.parameters()]
    ours, theirs = module(x), naive(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(ours)
    gradients = zip(torch.autograd.grad(ours, inputs, weights), torch.autograd.grad(theirs, inputs, weights), strict=True)
    for our, their in gradients:
        torch.testing.assert_close(our, their, rtol=1e-10, atol=1e-10)


def normal(x, layer):
    """(x - running mean) / sqrt(running variance + eps) weight + bias, a channel, as in evaluation."""
    shape = (-1, 1, 1)
    x = (x - layer.running_mean.view(shape)) / (layer.running_var.view(shape) + layer.eps).sqrt()
    return x * layer.weight.view(shape) + layer.bias.view(shape)


def mixed(x, layer):
    """A 1x1 convolution: the channels of every place for themselves."""
    y = torch.einsum("oc,bchw->bohw", layer.weight[:, :, 0, 0], x)
    return y if layer.bias is None else y + layer.bias.view(-1, 1, 1)


def looked(x, layer, before, after):
    """A depthwise convolution: y[c, i, j] = sum_uv weight[c, u, v] x[c, i s + u, j s + v], one channel at a time."""
    x, stride, size = pad(x, (before, after, before, after)), layer.stride[0], layer.kernel_size[0]
    places = range(0, x.shape[-1] - size + 1, stride)
    rows = [torch.stack([(x[:, :, i : i + size, j : j + size] * layer.weight[:, 0]).sum((2, 3)) for j in places], -1)
            for i in places]  # fmt: skip
    return torch.stack(rows, -2)


@pytest.mark.parametrize(("out", "stride", "expansion"), [(4, 1, 3), (4, 2, 3), (6, 1, 3), (4, 1, 1)])
def test_values_and_gradients_of_an_inverted_residual_are_those_of_the_definition(out, stride, expansion):
    block = randomised(mobilenet.Block(4, out, stride, expansion))

    def naive(x):
        y = x
        if expansion > 1:
            y = normal(mixed(y, block.expand[0]), block.expand[1]).clamp(0, 6)
        y = normal(looked(y, block.depthwise[0], 1, 1), block.depthwise[1]).clamp(0, 6)
        y = normal(mixed(y, block.project[0]), block.project[1])
        return x + y if (out, stride) == (4, 1) else y

    agrees(block, naive, torch.randn(2, 4, 6, 6, dtype=torch.float64))


def test_values_and_gradients_of_a_block_of_efficientnet_are_those_of_the_definition():
    make = partial(efficientnet.conv, padding="same", eps=1e-3)
    block = randomised(efficientnet.Block(8, 8, 5, 2, 2, False, make))

    def silu(x):
        return x / (1 + (-x).exp())

    def naive(x):
        y = silu(normal(mixed(x, block.expand[0]), block.expand[1]))
        y = silu(normal(looked(y, block.depthwise[0], 1, 2), block.depthwise[1]))  # 3 zeros are missing: 1 before, 2 after
        mean = y.sum((2, 3), keepdim=True) / (y.shape[2] * y.shape[3])
        y = y / (1 + (-mixed(silu(mixed(mean, block.weigh.squeeze)), block.weigh.excite)).exp())
        return normal(mixed(y, block.project[0]), block.project[1])

    agrees(block, naive, torch.randn(2, 8, 6, 6, dtype=torch.float64))


def test_same_padding_puts_the_odd_zero_on_the_right_and_below():
    layer = efficientnet.Conv2dSame(1, 1, 3, 2, bias=False)
    layer.weight.data.fill_(1.0)
    ones = torch.ones(1, 1, 4, 4)
    assert layer(ones).squeeze().tolist() == [[9, 6], [6, 4]]  # torch's own gives [[4, 6], [6, 9]]
    assert torch.equal(layer(torch.ones(1, 1, 5, 5)), conv2d(torch.ones(1, 1, 5, 5), layer.weight, stride=2, padding=1))


def layer_normal(x, layer):
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / (((x - mean) ** 2).mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def thought(x, mlp):
    return gelu(x @ mlp.up.weight.T + mlp.up.bias) @ mlp.down.weight.T + mlp.down.bias


def test_values_and_gradients_of_a_block_of_convnext_are_those_of_the_definition():
    block = randomised(convnext.Block(3, 0.0))

    def naive(x):
        y = (looked(x, block.depthwise, 3, 3) + block.depthwise.bias.view(-1, 1, 1)).permute(0, 2, 3, 1)
        return x + (block.gamma * thought(layer_normal(y, block.norm), block.mlp)).permute(0, 3, 1, 2)

    agrees(block, naive, torch.randn(2, 3, 5, 5, dtype=torch.float64))


@pytest.mark.parametrize("shifted", [False, True])
def test_values_and_gradients_of_attention_in_windows_are_those_of_the_definition(shifted):
    """Place by place: each reads those of its window, and over the border of the map none."""
    size, extent, heads, width = 3, 6, 2, 4
    block = randomised(swin.Block(width, heads, size, shifted, 0.0))
    attention, shift = block.attention, size // 2 if shifted else 0

    def window(i):  # of a place of the map; where the shifted grid begins before the map, the first window is a part
        return (i - shift) // size

    def naive(x):
        read, places = layer_normal(x, block.attention_norm), [(i, j) for i in range(extent) for j in range(extent)]
        query, key, value = (read @ attention.qkv.weight.T + attention.qkv.bias).split(width, -1)
        y = torch.empty_like(x)
        for i, j in places:
            near = [(k, m) for k, m in places if (window(k), window(m)) == (window(i), window(j))]
            said = []
            for head in range(heads):
                part = slice(head * width // heads, (head + 1) * width // heads)
                scores = [
                    (query[:, i, j, part] * key[:, k, m, part]).sum(-1) / math.sqrt(width // heads)
                    + attention.bias[(i - k + size - 1) * (2 * size - 1) + j - m + size - 1, head]
                    for k, m in near
                ]
                share = torch.stack(scores, -1).softmax(-1)
                said.append(torch.einsum("bn,bnd->bd", share, torch.stack([value[:, k, m, part] for k, m in near], 1)))
            y[:, i, j] = torch.cat(said, -1) @ attention.output.weight.T + attention.output.bias
        x = x + y
        return x + thought(layer_normal(x, block.mlp_norm), block.mlp)

    agrees(block, naive, torch.randn(2, extent, extent, width, dtype=torch.float64))


def test_windows_are_put_together_again():
    x = torch.randn(2, 6, 9, 4)
    cut = swin.windows(x, 3)
    assert torch.equal(cut[1], x[0, :3, 3:6].flatten(0, 1))  # the second window of the first map
    assert torch.equal(swin.together(cut, 6, 9, 3), x)


@pytest.mark.parametrize(
    ("builder", "count"),
    [
        (mobilenet.mobilenetv2, 3_504_872),
        (efficientnet.efficientnet_b0, 5_288_548),
        (efficientnet.efficientnet_lite0, 4_652_008),
        (efficientnet.efficientnet_lite1, 5_416_680),
        (efficientnet.efficientnet_lite2, 6_092_072),
        (convnext.convnext_tiny, 28_589_128),
        (convnext.convnext_small, 50_223_688),
        (convnext.convnext_base, 88_591_464),
        (swin.swin_tiny, 28_288_354),
        (swin.swin_small, 49_606_258),
        (swin.swin_base, 87_768_224),
    ],
)
def test_parameters_are_as_many_as_published(builder, count):
    with unallocated():
        assert sum(parameter.numel() for parameter in builder().parameters()) == count


@pytest.mark.parametrize(
    ("make", "extents"),
    [
        (lambda stem: mobilenet.MobileNetV2(width=0.25, stem=stem), [[32, 16, 8, 4], [32, 16, 8, 4, 2], [16, 8, 4, 2, 1]]),
        (lambda stem: efficientnet.EfficientNet(0.25, stem=stem), [[32, 16, 8, 4], [32, 16, 8, 4, 2], [16, 8, 4, 2, 1]]),
        (lambda stem: convnext.ConvNeXt((1, 1, 1), (4, 8, 16), stem=stem), [[32, 16, 8], [16, 8, 4], [8, 4, 2]]),
    ],
)
def test_a_stem_keeps_the_extent_or_halves_it_once_or_twice(make, extents):
    for stem, expected in zip(("small", "medium", "large"), extents, strict=True):
        assert [found.shape[-1] for found in make(stem).eval().features(torch.rand(1, 3, 32, 32))] == expected


@pytest.mark.parametrize("extent", [(12, 12), (14, 9), (5, 7)])
def test_maps_of_any_extent_are_read_in_windows(extent):
    model = swin.Swin(8, (2, 2), (2, 2), window_size=3, patch_size=1, num_classes=5).eval()
    image = torch.rand(2, 3, *extent)
    assert [tuple(found.shape[1:]) for found in model.features(image)] == [
        (8, *extent),
        (16, *(math.ceil(side / 2) for side in extent)),
    ]
    assert model(image).shape == (2, 5)


def test_the_first_block_is_never_left_out_and_the_last_most_often():
    model = convnext.ConvNeXt((1, 2), (4, 8), stochastic_depth=0.4)
    assert [block.drop.p for stage in model.stages for block in stage.blocks] == [0.0, 0.2, 0.4]
    model = swin.Swin(8, (2, 1), (2, 2), stochastic_depth=0.4)
    assert [block.drop.p for stage in model.stages for block in stage.blocks] == [0.0, 0.2, 0.4]


def test_what_is_unknown_is_named(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would speak first
    for builder in (mobilenet.mobilenetv2, efficientnet.efficientnet_b0, convnext.convnext_tiny):
        with pytest.raises(ValueError, match="stem='tiny': expected large, medium or small"):
            builder(stem="tiny")
    with pytest.raises(ValueError, match="padding='valid': expected same or symmetric"):
        efficientnet.efficientnet_b0(padding="valid")

"""NAFNet by its definition, and what its parts promise."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from thalweg.build import unallocated
from thalweg.models.vision.nafnet import Block, NAFNet, nafnet_32, nafnet_32_noise, nafnet_small


def dense(x, layer):
    """y[o, i, j] = bias[o] + sum over c of weight[o, c] x[c, i, j]"""
    y = torch.einsum("bchw,oc->bohw", x, layer.weight[:, :, 0, 0])
    return y if layer.bias is None else y + layer.bias[:, None, None]


def convolution(x, layer):
    """3x3 with zeros around: y[o, i, j] = bias[o] + sum over c, u, v of weight[o, c, u, v] x[c, i + u - 1, j + v - 1]"""
    height, width = x.shape[2:]
    x, weight = nn.functional.pad(x, (1, 1, 1, 1)), layer.weight
    if layer.groups > 1:  # a filter a channel
        terms = [x[:, :, u : u + height, v : v + width] * weight[:, 0, u, v, None, None] for u in range(3) for v in range(3)]
    else:
        terms = [torch.einsum("bchw,oc->bohw", x[:, :, u : u + height, v : v + width], weight[:, :, u, v])
                 for u in range(3) for v in range(3)]  # fmt: skip
    return sum(terms) + layer.bias[:, None, None]


def norm(x, layer):
    mean = x.mean(1, keepdim=True)
    variance = ((x - mean) ** 2).mean(1, keepdim=True)
    return (x - mean) / (variance + 1e-6).sqrt() * layer.weight[:, None, None] + layer.bias[:, None, None]


def gate(x):
    half = x.shape[1] // 2
    return x[:, :half] * x[:, half:]


def naive_block(x, block):
    branch = block.convolved
    g = gate(convolution(dense(norm(x, block.norm1), branch.up), branch.depthwise))
    weighed = g * dense(g.sum((2, 3), keepdim=True) / (g.shape[2] * g.shape[3]), branch.attention)
    x = x + block.scale1 * dense(weighed, branch.down)
    return x + block.scale2 * dense(gate(dense(norm(x, block.norm2), block.mlp.up)), block.mlp.down)


def naive(model, image):
    height, width = image.shape[2:]
    deep = 2 ** len(model.stages)
    padded = image.new_zeros(*image.shape[:2], -(-height // deep) * deep, -(-width // deep) * deep)
    padded[:, :, :height, :width] = image
    x, kept = convolution(padded, model.stem), []
    for stage, down in zip(model.stages, model.down, strict=True):
        for block in stage:
            x = naive_block(x, block)
        kept.append(x)
        x = sum(dense(x[:, :, u::2, v::2], SimpleNamespace(weight=down.weight[:, :, u : u + 1, v : v + 1], bias=None))
                for u in range(2) for v in range(2)) + down.bias[:, None, None]  # fmt: skip
    for block in model.middle:
        x = naive_block(x, block)
    for up, stage in zip(model.up, model.rising, strict=True):
        wide = dense(x, up[0])
        x = wide.new_zeros(len(wide), wide.shape[1] // 4, 2 * wide.shape[2], 2 * wide.shape[3])
        for u in range(2):
            for v in range(2):
                x[:, :, u::2, v::2] = wide[:, 2 * u + v :: 4]
        x = x + kept.pop()
        for block in stage:
            x = naive_block(x, block)
    return image + convolution(x, model.head)[:, :, :height, :width]


def test_values_and_gradients_are_those_of_the_definition():
    model = NAFNet(width=4, depths=(1, 2), middle=1, rising=(2, 1), in_channels=2).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    image = torch.rand(2, 2, 7, 10, dtype=torch.float64, requires_grad=True)
    inputs = [image, *model.parameters()]
    ours, theirs = model(image), naive(model, image)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(ours)
    for our, their in zip(
        torch.autograd.grad(ours, inputs, weights), torch.autograd.grad(theirs, inputs, weights), strict=True
    ):
        torch.testing.assert_close(our, their, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("builder", "count"), [(nafnet_32, 17_111_907), (nafnet_32_noise, 29_159_715), (nafnet_small, 1_715_427)]
)
def test_parameters_are_as_many_as_stated(builder, count):
    with unallocated():
        assert sum(parameter.numel() for parameter in builder().parameters()) == count


def test_a_block_starts_as_the_identity():
    x = torch.randn(2, 8, 5, 6)
    assert torch.equal(Block(8)(x), x)


def test_stages_up_are_as_many_as_down():
    with pytest.raises(ValueError, match=r"depths=\(1, 1\), rising=\(1,\): expected as many stages up as down"):
        NAFNet(8, (1, 1), 1, (1,))

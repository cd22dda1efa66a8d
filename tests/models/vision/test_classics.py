"""The classics by their definitions: the blocks in loops, the published counts, the extents, what each refuses."""

import jaxtyping
import pytest
import torch
from definitions import EXACT, equal_with_gradients, numbers
from torch import nn
from torch.testing import assert_close

from thalweg.build import unallocated
from thalweg.models.vision.alexnet import alexnet
from thalweg.models.vision.densenet import DenseNet, Stage, densenet121, densenet169, densenet201
from thalweg.models.vision.googlenet import Inception, googlenet, googlenet_bn
from thalweg.models.vision.nin import block, nin
from thalweg.models.vision.preresnet import Block as PreBlock
from thalweg.models.vision.preresnet import PreResNet, preresnet18, preresnet50
from thalweg.models.vision.resnet import Block, ResNet, resnet50, resnet101, resnet152, resnet_cifar, resnext50_32x4d
from thalweg.models.vision.vgg import VGG, line, vgg11, vgg13, vgg16, vgg19


def conv(x, weight, bias=None, stride=1, padding=0):
    """y[o, i, j] = bias[o] + sum over c, u, v of weight[o, c, u, v] x[c, i s + u, j s + v], x padded with zeros."""
    x, size = nn.functional.pad(x, (padding,) * 4), weight.shape[-1]
    rows, columns = (range(0, extent - size + 1, stride) for extent in x.shape[2:])
    y = [[torch.einsum("bcuv,ocuv->bo", x[:, :, i : i + size, j : j + size], weight) for j in columns] for i in rows]
    y = torch.stack([torch.stack(row, -1) for row in y], -2)
    return y if bias is None else y + bias[:, None, None]


def pool(x, size, stride, padding=0):
    """The largest of each window; a window that sticks out at the end counts too where the stride reaches it."""
    x = nn.functional.pad(x, (padding,) * 4, value=float("-inf"))
    rows, columns = (range(0, max(extent - size, 0) + 1, stride) for extent in x.shape[2:])
    y = [[x[:, :, i : i + size, j : j + size].amax((2, 3)) for j in columns] for i in rows]
    return torch.stack([torch.stack(row, -1) for row in y], -2)


def norm(x, layer):
    """Over the batch: (x - mean) / sqrt(variance + eps) * weight + bias, a channel."""
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    return (x - mean) / (variance + layer.eps).sqrt() * layer.weight[:, None, None] + layer.bias[:, None, None]


def random(module):
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def test_a_block_of_nin_is_a_small_dense_network_at_every_pixel():
    made, x = random(block(2, 3, 3, padding=1)), numbers(2, 2, 4, 5)
    first, _, second, _, third, _ = made
    y = conv(x, first.weight, first.bias, padding=1).clamp(min=0)
    pixels = []
    for i in range(4):
        for j in range(5):
            pixel = y[:, :, i, j]
            for layer in (second, third):
                pixel = (pixel @ layer.weight[:, :, 0, 0].T + layer.bias).clamp(min=0)
            pixels.append(pixel)
    equal_with_gradients(made(x), torch.stack(pixels, -1).unflatten(-1, (4, 5)), [x, *made.parameters()])


def test_nin_has_no_linear_layer_and_a_map_a_class():
    model = nin(in_channels=1, num_classes=10, channels=(4, 6, 8), stem="small").double().eval()
    assert not any(isinstance(module, nn.Linear) for module in model.modules())
    image = numbers(2, 1, 28, 28)
    maps = model.head(model.stages[2](model.stages[1](model.stages[0](image))))
    assert maps.shape == (2, 10, 2, 2)
    assert_close(model(image), maps.sum((2, 3)) / 4, **EXACT)


def test_an_inception_block_joins_four_sizes_of_filters_along_the_channels():
    made, x = random(Inception(3, (2, 2, 3, 1, 2, 1), 5, batch_norm=False)), numbers(2, 3, 5, 4)
    one, three, five, pooled = made.paths

    def through(x, *convs):
        for layer in convs:
            x = conv(x, layer[0].weight, layer[0].bias, padding=layer[0].weight.shape[-1] // 2).clamp(min=0)
        return x

    naive = torch.cat([through(x, *one), through(x, *three), through(x, *five), through(pool(x, 3, 1, 1), pooled[1])], 1)
    assert naive.shape == (2, made.out_channels, 5, 4)
    assert made.out_channels == 2 + 3 + 2 + 1
    equal_with_gradients(made(x), naive, [x, *made.parameters()])


def test_the_layers_of_a_dense_stage_see_all_maps_before_them_after_a_transition_that_halves():
    made, x = random(Stage(4, depth=3, growth_rate=2, first=False)), numbers(3, 4, 6, 4)
    normed, _, narrow, _ = made.transition
    y = conv(norm(x, normed).clamp(min=0), narrow.weight)
    known = [(y[:, :, 0::2, 0::2] + y[:, :, 1::2, 0::2] + y[:, :, 0::2, 1::2] + y[:, :, 1::2, 1::2]) / 4]
    for first, _, squeeze, second, _, widen in made.layers:
        hidden = conv(norm(torch.cat(known, 1), first).clamp(min=0), squeeze.weight)
        known.append(conv(norm(hidden, second).clamp(min=0), widen.weight, padding=1))
    naive = torch.cat(known, 1)
    assert naive.shape == (3, made.out_channels, 3, 2) == (3, 2 + 3 * 2, 3, 2)
    equal_with_gradients(made(x), naive, [x, *made.parameters()])


@pytest.mark.parametrize(("channels", "stride", "bottleneck"), [(3, 1, False), (4, 2, False), (2, 2, True)])
def test_a_pre_activated_block_adds_its_branch_and_rectifies_nothing_after(channels, stride, bottleneck):
    made, x = random(PreBlock(3, channels, stride, bottleneck)), numbers(3, 3, 5, 5)
    first = norm(x, made.norms[0]).clamp(min=0)
    shortcut = x if made.shortcut is None else conv(first, made.shortcut.weight, stride=stride)
    y = first
    for place, (normed, layer) in enumerate(zip(made.norms, made.convs, strict=True)):
        y = norm(y, normed).clamp(min=0) if place else y
        y = conv(y, layer.weight, stride=layer.stride[0], padding=layer.padding[0])
    equal_with_gradients(made(x), shortcut + y, [x, *made.parameters()])
    assert (made(x) < 0).any()


def test_a_grouped_convolution_sees_the_maps_of_its_group_alone():
    block = random(Block(8, 4, 1, bottleneck=True, groups=4, width_per_group=32))
    _, grouped, _ = block.layers
    assert grouped[0].weight.shape == (8, 2, 3, 3)  # 4 * 32 / 64 maps a group, of 4 groups
    x = numbers(2, 8, 4, 4)
    parts = [conv(part, weight, padding=1)
             for part, weight in zip(x.chunk(4, 1), grouped[0].weight.chunk(4), strict=True)]  # fmt: skip
    equal_with_gradients(grouped(x), norm(torch.cat(parts, 1), grouped[1]), [x, *grouped.parameters()])


def test_a_plain_network_is_the_residual_one_with_its_shortcuts_cut():
    plain = resnet_cifar(depth=8, residual=False).double()
    block = random(plain.stages[0][0])
    x = numbers(2, 16, 4, 4)
    y = norm(conv(x, block.layers[0][0].weight, padding=1), block.layers[0][1]).clamp(min=0)
    y = norm(conv(y, block.layers[1][0].weight, padding=1), block.layers[1][1]).clamp(min=0)
    equal_with_gradients(block(x), y, [x, *block.parameters()])
    assert [len(stage) for stage in resnet_cifar(depth=20).stages] == [3, 3, 3]
    with pytest.raises(ValueError, match="depth=21: expected 6 n"):
        resnet_cifar(depth=21)


COUNTS = [
    (vgg13, {}, 133_047_848), (vgg19, {}, 143_667_240), (resnet101, {}, 44_549_160), (resnet152, {}, 60_192_808),
    (vgg11, {"batch_norm": True}, 132_868_840), (vgg13, {"batch_norm": True}, 133_053_736),
    (vgg16, {"batch_norm": True}, 138_365_992), (vgg19, {"batch_norm": True}, 143_678_248),
    (densenet169, {}, 14_149_480), (densenet201, {}, 20_013_928), (googlenet_bn, {}, 6_624_904),
    (preresnet18, {}, 11_687_720), (preresnet50, {}, 25_549_352), (resnext50_32x4d, {}, 25_028_904),
]  # fmt: skip


@pytest.mark.parametrize(("builder", "arguments", "count"), COUNTS)
def test_parameters_are_as_many_as_published(builder, arguments, count):
    with unallocated():
        assert sum(parameter.numel() for parameter in builder(**arguments).parameters()) == count


def test_nin_has_as_many_parameters_as_its_layers_written_out():
    first = 11 * 11 * 1 * 96 + 2 * 96 * 96 + 3 * 96
    second = 5 * 5 * 96 * 256 + 2 * 256 * 256 + 3 * 256
    third = 3 * 3 * 256 * 384 + 2 * 384 * 384 + 3 * 384
    head = 3 * 3 * 384 * 10 + 2 * 10 * 10 + 3 * 10
    with unallocated():
        assert sum(p.numel() for p in nin(in_channels=1, num_classes=10).parameters()) == first + second + third + head


@pytest.mark.parametrize(
    ("builder", "maps"),
    [
        (vgg16, [(64, 112), (128, 56), (256, 28), (512, 14), (512, 7)]),
        (googlenet, [(480, 28), (832, 14), (1024, 7)]),
        (densenet121, [(256, 56), (512, 28), (1024, 14), (1024, 7)]),
        (preresnet18, [(64, 56), (128, 28), (256, 14), (512, 7)]),
    ],
)
def test_the_maps_have_the_extents_of_the_paper(builder, maps):
    with unallocated():
        model, image = builder().eval(), torch.empty(1, 3, 224, 224)
        assert [tuple(found.shape[1:3]) for found in model.features(image)] == maps
        assert model(image).shape == (1, 1000)


def test_alexnet_has_the_extents_that_its_dense_layers_want():
    with unallocated():
        x, extents = torch.empty(1, 3, 224, 224), []
        for stage in alexnet().stages:
            x = stage(x)
            extents.append(tuple(x.shape[1:3]))
    assert extents == [(64, 27), (192, 13), (256, 6)]


CLASSICS = [
    (alexnet, {"channels": (4, 6, 8, 8, 8), "hidden_dim": 16}),
    (vgg11, {"width": 4, "hidden_dims": (8,)}),
    (vgg11, {"width": 4, "hidden_dims": (), "batch_norm": True}),
    (nin, {"channels": (4, 6, 8)}),
    (googlenet, {"width": 8}),
    (googlenet_bn, {"width": 8}),
    (DenseNet, {"depths": (2, 2), "growth_rate": 4}),
    (PreResNet, {"depths": (1, 1), "width": 4}),
]


@pytest.mark.parametrize(("builder", "arguments"), CLASSICS)
@pytest.mark.parametrize(("stem", "extent"), [("small", 32), ("medium", 64), ("large", 96)])
def test_every_classic_takes_images_of_many_sizes(builder, arguments, stem, extent):
    taken = {"image_size": extent} if builder in (alexnet, vgg11) else {}
    taken |= {"stem": stem} if builder is not vgg11 else {}
    with unallocated():
        model = builder(in_channels=1, num_classes=7, **arguments, **taken).eval()
        assert model(torch.empty(2, 1, extent, extent)).shape == (2, 7)


@pytest.mark.parametrize("builder", [alexnet, nin, googlenet, densenet121, preresnet18])
def test_an_unknown_stem_is_named(builder, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would speak first
    with pytest.raises(ValueError, match="stem='tiny': expected large, medium or small"):
        builder(stem="tiny")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: alexnet(image_size=28), "image_size=28, stem='large': nothing is left"),
        (lambda: vgg11(image_size=28), "image_size=28: expected at least 32"),
        (lambda: VGG("64 X M"), "spec='64 X M': expected numbers of maps and M"),
        (lambda: VGG("64 M 64"), "spec='64 M 64': expected numbers of maps and M, in the end M"),
        (lambda: VGG(""), "spec=''"),
        (lambda: googlenet(width=2), "width=2: expected at least 4"),
        (lambda: ResNet((1,), groups=2), "groups=2, width_per_group=64: expected bottleneck=True"),
    ],
)
def test_what_makes_no_network_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_network_is_built_from_a_line():
    """Convolutions and poolings as the line says, flattened, dense layers; or the maps, where a signal is wanted."""
    model = VGG("4 M 8 8 M", in_channels=2, num_classes=3, hidden_dims=(16,), image_size=12, dropout=0.0)
    kinds = [type(layer).__name__ for layer in [*model.layers, *model.dense, model.head]]
    assert kinds == ["Conv2d", "ReLU", "MaxPool2d", "Conv2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d",
                     "Linear", "ReLU", "Dropout", "Linear"]  # fmt: skip
    assert model.dense[0].in_features == 8 * 3 * 3
    assert [tuple(found.shape) for found in model.features(torch.rand(1, 2, 12, 12))] == [(1, 4, 6, 6), (1, 8, 3, 3)]
    assert line((1, 2), 8) == "8 M 16 16 M"
    assert line((1, 1, 2, 2, 2)) == "64 M 128 M 256 256 M 512 512 M 512 512 M"
    assert line((0, 1), 8) == "M 16 M"


def test_vgg_is_its_line_in_loops():
    model = random(VGG("3 M 2 M", in_channels=2, num_classes=4, hidden_dims=(5,), image_size=9, dropout=0.0))
    image = numbers(2, 2, 9, 9)
    first, second = (layer for layer in model.layers if isinstance(layer, nn.Conv2d))
    x = pool(conv(image, first.weight, first.bias, padding=1).clamp(min=0), 2, 2)
    x = pool(conv(x, second.weight, second.bias, padding=1).clamp(min=0), 2, 2)
    x = (x.flatten(1) @ model.dense[0].weight.T + model.dense[0].bias).clamp(min=0)
    equal_with_gradients(model(image), x @ model.head.weight.T + model.head.bias, [image, *model.parameters()])


def test_dense_layers_for_images_cost_what_the_books_say():
    """Every pixel to every pixel of a 256x256 colour image: 4e10 weights; a megapixel to 1000 units: 1e9; 3x3 filters: 84."""
    with unallocated():
        pixels = 3 * 256 * 256
        assert nn.Linear(pixels, pixels, bias=False).weight.numel() == pytest.approx(4e10, rel=0.05)
        assert nn.Linear(10**6, 1000, bias=False).weight.numel() == 10**9
        assert sum(parameter.numel() for parameter in nn.Conv2d(3, 3, 3).parameters()) == 84


def test_a_bottleneck_costs_a_fraction_of_two_plain_convolutions():
    """1x1, 3x3, 1x1 through a quarter of the channels: 70 thousand weights of 256 channels, where two 3x3 have 1.2 million."""
    with unallocated():
        bottleneck, plain = Block(256, 64, 1, bottleneck=True), Block(256, 256, 1, bottleneck=False)
        count = [sum(layer[0].weight.numel() for layer in block.layers) for block in (bottleneck, plain)]
        assert count == [256 * 64 + 9 * 64 * 64 + 64 * 256, 2 * 9 * 256 * 256]
        assert bottleneck(torch.empty(1, 256, 7, 7)).shape == (1, 256, 7, 7)
        assert resnet50().stages[3][0](torch.empty(1, 1024, 14, 14)).shape == (1, 2048, 7, 7)

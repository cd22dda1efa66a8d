"""LeNet-5 as the paper of 1998 counts and defines it, and the modern form."""

import pytest
import torch
from torch import nn

from thalweg.models.vision.lenet import SEEN, lenet, lenet5


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_layer_has_as_many_parameters_as_the_paper_counts():
    model = lenet5()
    (c1, _, s2, _), (c3, _, s4, _), (c5, _) = model.stages
    assert [count(layer) for layer in (c1, s2, c3, s4, c5, model.dense)] == [156, 12, 1516, 32, 48120, 10164]
    assert count(model) - count(model.head) == 60_000
    assert count(model.head) == 850  # the paper's ten prototypes of 84 were fixed


def test_the_filters_of_the_second_stage_see_the_maps_of_table_one():
    """Three maps in a row, four in a row, two pairs that are one apart, all; the sixth is followed by the first."""
    steps = [(start, (0, 1, 2)) for start in range(6)] + [(start, (0, 1, 2, 3)) for start in range(6)]
    steps += [(start, (0, 1, 3, 4)) for start in range(3)] + [(0, range(6))]
    assert list(SEEN) == ["".join(sorted(str((start + step) % 6) for step in taken)) for start, taken in steps]


def naive(model, image):
    """Unit by unit, as the paper says it: sums, then 1.7159 tanh(2 a / 3)."""

    def squash(a):
        return 1.7159 * torch.tanh(2 * a / 3)

    def window(maps, weight, bias):  # one filter over some maps
        size = weight.shape[-1]
        places = range(maps.shape[1] - size + 1)
        return torch.stack(
            [torch.stack([(maps[:, i : i + 5, j : j + 5] * weight).sum() + bias for j in places]) for i in places]
        )

    def subsample(maps, layer):
        four = maps[:, ::2, ::2] + maps[:, 1::2, ::2] + maps[:, ::2, 1::2] + maps[:, 1::2, 1::2]
        return squash(layer.weight * four + layer.bias)

    (c1, _, s2, _), (c3, _, s4, _), (c5, _) = model.stages
    logits = []
    for picture in image:
        x = squash(torch.stack([window(picture, w, b) for w, b in zip(c1.weight, c1.bias, strict=True)]))
        x = subsample(x, s2)
        filters = zip(SEEN, c3.filters, strict=True)
        x = squash(torch.stack([window(x[[int(i) for i in seen]], f.weight[0], f.bias[0]) for seen, f in filters]))
        x = subsample(x, s4)
        x = squash(torch.stack([(x * w).sum() + b for w, b in zip(c5.weight, c5.bias, strict=True)]))
        x = squash(model.dense[0].weight @ x + model.dense[0].bias)
        logits.append(model.head.weight @ x + model.head.bias)
    return torch.stack(logits)


def test_values_and_gradients_are_those_of_the_definition():
    model = lenet5().double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    image = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    ours, theirs = model(image), naive(model, image)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    weights, parameters = torch.randn_like(ours), list(model.parameters())
    ours, theirs = (torch.autograd.grad(value, parameters, weights) for value in (ours, theirs))
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-10, atol=1e-10)


def test_the_head_scores_the_distance_to_a_prototype():
    prototypes, features = torch.randn(10, 84, dtype=torch.float64), torch.randn(5, 84, dtype=torch.float64)
    head = lenet5().double().head
    head.weight.data, head.bias.data = prototypes, -prototypes.square().sum(1) / 2
    distance = (features[:, None] - prototypes).square().sum(-1)
    torch.testing.assert_close(head(features).softmax(-1), (-distance / 2).softmax(-1), rtol=1e-10, atol=1e-10)


def test_squashing_leaves_one_where_it_is():
    squash = lenet5().stages[0][1]
    torch.testing.assert_close(squash(torch.tensor([-1.0, 0.0, 1.0])), torch.tensor([-1.0, 0.0, 1.0]), rtol=1e-4, atol=0)


def test_smaller_images_are_padded_as_in_the_paper():
    model, image = lenet5(), torch.rand(2, 1, 28, 28)
    assert torch.equal(model(image), model(nn.functional.pad(image, (2, 2, 2, 2))))


@pytest.mark.parametrize("shape", [(2, 1, 30, 30), (2, 3, 32, 32), (2, 1, 32, 28)])
def test_other_images_are_refused(shape):
    with pytest.raises(ValueError, match=r"image: .* expected \(1, 28, 28\) or \(1, 32, 32\)"):
        lenet5()(torch.rand(shape))


def test_the_modern_form_halves_the_extent_a_stage():
    model = lenet(in_channels=3, num_classes=4, channels=[4, 6, 8], image_size=20, hidden_dim=5)
    image = torch.rand(2, 3, 20, 20)
    assert [tuple(m.shape) for m in model.features(image)] == [(2, 4, 10, 10), (2, 6, 5, 5), (2, 8, 2, 2)]
    assert model(image).shape == (2, 4)


def test_the_modern_form_is_its_definition():
    model = lenet(channels=[2], image_size=4, hidden_dim=3, num_classes=2, dropout=0.0).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    image = torch.randn(1, 1, 4, 4, dtype=torch.float64)
    conv, norm, dense = model.stages[0][0], model.stages[0][1], model.dense
    scale = 1 / (1 + 1e-5) ** 0.5  # of batch normalisation that has seen nothing
    padded, pooled = nn.functional.pad(image, (2, 2, 2, 2))[0], []
    for kernel, weight, bias in zip(conv.weight, norm.weight, norm.bias, strict=True):
        y = [
            [((padded[:, i : i + 5, j : j + 5] * kernel).sum() * scale * weight + bias).clamp(min=0) for j in range(4)]
            for i in range(4)
        ]
        pooled += [max(y[i][j], y[i][j + 1], y[i + 1][j], y[i + 1][j + 1]) for i in (0, 2) for j in (0, 2)]
    hidden = (dense[0].weight @ torch.stack(pooled) * scale * dense[1].weight + dense[1].bias).clamp(min=0)
    torch.testing.assert_close(model(image)[0], model.head.weight @ hidden + model.head.bias, rtol=1e-10, atol=1e-10)

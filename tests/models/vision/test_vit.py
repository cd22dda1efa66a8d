"""ViT by its definition, and what its parts promise."""

import math

import jaxtyping
import pytest
import torch
from torch import nn

from thalweg.build import adapt, build, load, save, unallocated
from thalweg.layers.position import sinusoidal
from thalweg.models.vision.vit import ViT, resize, sizes, vit_base_16, vit_small_16, vit_tiny_16


def small(**arguments):
    model = ViT(**{"embed_dim": 8, "num_layers": 2, "num_heads": 2, "image_size": 6, "patch_size": 3, "num_classes": 3,
                   "in_channels": 2, **arguments}).double()  # fmt: skip
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def normalise(x, layer):
    mean = x.mean()
    return (x - mean) / (((x - mean) ** 2).mean() + layer.eps).sqrt() * layer.weight + layer.bias


def attend(tokens, layer):
    """Head by head and place by place: the values, weighted by softmax(query key / sqrt(d))."""
    width, result = len(tokens[0]), []
    d = width // layer.num_heads
    joined = [layer.qkv.weight @ token + layer.qkv.bias for token in tokens]
    for place in joined:
        heads = []
        for h in range(layer.num_heads):
            query = place[h * d : (h + 1) * d]
            scores = torch.stack([query @ other[width + h * d : width + (h + 1) * d] / math.sqrt(d) for other in joined])
            share = scores.exp() / scores.exp().sum()
            heads.append(
                sum(s * other[2 * width + h * d : 2 * width + (h + 1) * d] for s, other in zip(share, joined, strict=True))
            )
        result.append(layer.output.weight @ torch.cat(heads) + layer.output.bias)
    return result


def naive(model, image):
    """One image at a time, one patch at a time."""
    patch, logits = model.embedding.kernel_size[0], []
    for picture in image:
        corners = [(i, j) for i in range(0, model.image_size, patch) for j in range(0, model.image_size, patch)]
        tokens = [
            (model.embedding.weight * picture[None, :, i : i + patch, j : j + patch]).sum((1, 2, 3)) + model.embedding.bias
            for i, j in corners
        ]
        if model.class_token is not None:
            tokens = [model.class_token[0, 0], *tokens]
        tokens = [token + position for token, position in zip(tokens, model.position[0], strict=True)]
        for block in model.blocks:
            read = attend([normalise(token, block.attention_norm) for token in tokens], block.attention)
            tokens = [token + more for token, more in zip(tokens, read, strict=True)]
            for place, token in enumerate(tokens):
                up = block.mlp.up.weight @ normalise(token, block.mlp_norm) + block.mlp.up.bias
                gelu = up * (1 + torch.erf(up / math.sqrt(2))) / 2
                tokens[place] = token + block.mlp.down.weight @ gelu + block.mlp.down.bias
        tokens = [normalise(token, model.norm) for token in tokens]
        read = tokens[0] if model.class_token is not None else sum(tokens) / len(tokens)
        logits.append(model.head.weight @ read + model.head.bias)
    return torch.stack(logits)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_values_and_gradients_are_those_of_the_definition(pool):
    model = small(pool=pool)
    image = torch.randn(2, 2, 6, 6, dtype=torch.float64, requires_grad=True)
    inputs = [image, *model.parameters()]
    ours, theirs = model(image), naive(model, image)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(ours)
    gradients = zip(torch.autograd.grad(ours, inputs, weights), torch.autograd.grad(theirs, inputs, weights), strict=True)
    for our, their in gradients:
        torch.testing.assert_close(our, their, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("builder", "count"), [(vit_tiny_16, 5_717_416), (vit_small_16, 22_050_664), (vit_base_16, 86_567_656)]
)
def test_parameters_are_as_many_as_published(builder, count):
    with unallocated():
        assert sum(parameter.numel() for parameter in builder().parameters()) == count


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_without_positions_the_order_of_the_patches_does_not_matter(pool):
    model = small(pool=pool)
    image = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    exchanged = torch.cat([image[..., 3:], image[..., :3]], -1)  # patches 0 1 2 3 as 1 0 3 2
    assert (model(image) - model(exchanged)).abs().max() > 1e-3
    nn.init.zeros_(model.position)
    torch.testing.assert_close(model(image), model(exchanged), rtol=1e-10, atol=1e-10)
    model = small(pool=pool, position="none")
    assert model.position is None
    torch.testing.assert_close(model(image), model(exchanged), rtol=1e-10, atol=1e-10)


def test_sines_say_the_row_in_one_half_and_the_column_in_the_other():
    model = small(image_size=9, pool="mean", position="sinusoidal")
    image = torch.randn(2, 2, 9, 9, dtype=torch.float64)
    code = torch.stack([torch.cat([sinusoidal(i, 1, 4, image)[0], sinusoidal(j, 1, 4, image)[0]]) for i in range(3)
                        for j in range(3)])  # fmt: skip
    told = small(image_size=9, pool="mean")
    told.load_state_dict({**model.state_dict(), "position": code[None]})
    torch.testing.assert_close(model(image), told(image), rtol=1e-10, atol=1e-10)
    assert "position" not in model.state_dict()
    assert resize(model, 12)(torch.randn(1, 2, 12, 12, dtype=torch.float64)).shape == (1, 3)


def test_positions_that_no_other_library_has_are_not_exported():
    with pytest.raises(ValueError, match="position='none': the ViTs of timm and transformers learn it"):
        sizes(small(position="none"))


def test_dropout_acts_in_training_alone():
    model = small(dropout=0.5)
    image = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    assert not torch.equal(model(image), model(image))
    assert torch.equal(model.eval()(image), model(image))


def test_another_image_size_interpolates_the_positions_and_keeps_the_class():
    model = small(image_size=12)
    before = model.position.detach().clone()
    resize(model, 12)
    torch.testing.assert_close(model.position.detach(), before)
    ramp = torch.arange(4.0, dtype=torch.float64).expand(4, 4).reshape(1, 16, 1).expand(1, 16, 8)
    model.position.data[:, 1:] = ramp
    resize(model, 24)
    assert torch.equal(model.position[:, 0], before[:, 0])
    grid = model.position[0, 1:].reshape(8, 8, 8)
    assert (grid[:, 2:-1] > grid[:, 1:-2]).all()
    assert torch.allclose(grid[3:5, 3:5].mean((0, 1)), grid.mean((0, 1)))
    assert model(torch.randn(1, 2, 24, 24, dtype=torch.float64)).shape == (1, 3)


def test_a_resized_model_loads_from_its_folder(tmp_path):
    model = adapt(build(ViT, embed_dim=8, num_layers=1, num_heads=2, image_size=8, patch_size=4), resize, image_size=16)
    save(model, tmp_path)
    loaded, image = load(tmp_path), torch.rand(1, 3, 16, 16)
    assert torch.equal(loaded(image), model.eval()(image))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"image_size": 7}, "image_size=7.*patch_size=3"),
        ({"num_heads": 3}, "embed_dim=8.*num_heads=3"),
        ({"pool": "max"}, "pool='max': expected cls or mean"),
        ({"position": "rotary"}, "position='rotary': expected learned, sinusoidal or none"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments, words, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would speak first
    with pytest.raises(ValueError, match=words):
        small(**arguments)


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"image: \(9, 6\) pixels, expected 6 by 6"):
        small()(torch.rand(1, 2, 9, 6, dtype=torch.float64))
    with pytest.raises(ValueError, match="image_size=7: expected a multiple of patch_size=3"):
        resize(small(), 7)

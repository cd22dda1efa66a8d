"""Weights of few bits answer as the weights that they stand for."""

import pytest
import torch
from torch import nn

from thalweg.adaptation.packed import FEW, PackedHead, PackedLinear, packed
from thalweg.models.language.gpt import GPT
from thalweg.models.language.llama import Llama


def on_a_grid(out, into):
    """Weights as a GGUF file of type Q4_1 has them, whose scales bf16 holds: d q + m."""
    q = torch.randint(16, (out, into // 32, 32)).float()
    q[..., 0], q[..., 1] = 0, 15
    d, m = (2.0 ** torch.randint(-4, 0, (out, into // 32, 1)) for _ in range(2))
    return (d * q - 7 * m).flatten(1)


@pytest.mark.parametrize("rows", [1, 3, FEW, FEW + 1])
@pytest.mark.parametrize("bias", [True, False])
def test_weights_on_a_grid_are_multiplied_as_they_are(rows, bias):
    torch.manual_seed(0)
    layer = nn.Linear(64, 48, bias)
    layer.weight.data = on_a_grid(48, 64)
    x = (torch.randn(2, rows, 64) if rows <= FEW // 2 else torch.randn(rows, 64)).bfloat16()
    wanted = layer(x.float())
    small = PackedLinear(layer).bfloat16()
    assert (small(x).float() - wanted).abs().max() <= 0.01 * wanted.abs().max()


def test_other_weights_are_off_by_half_a_step_at_most():
    torch.manual_seed(0)
    layer = nn.Linear(64, 32, bias=False)
    small = PackedLinear(layer).bfloat16()
    seen = torch.cat([small(part.bfloat16()) for part in torch.eye(64).split(8)]).T.float()
    groups = layer.weight.detach().unflatten(1, (-1, 32))
    step = (groups.amax(2) - groups.amin(2))[..., None] / 15
    off = (seen.unflatten(1, (-1, 32)) - groups).abs() / step
    assert off.max() <= 0.6
    assert off.mean() > 0.1  # they are of four bits indeed


def test_a_head_of_eight_bits_is_off_by_half_a_step_at_most():
    torch.manual_seed(0)
    weight = torch.randn(50, 64)
    seen = torch.cat([PackedHead(weight)(part.bfloat16()) for part in torch.eye(64).split(8)]).T.float()
    step = weight.abs().amax(1, keepdim=True) / 127
    assert ((seen - weight).abs() / step).max() <= 1.1  # half of it, and the half of bf16


@pytest.mark.parametrize("tied", [True, False])
def test_a_packed_model_answers_nearly_as_before_for_few_tokens_and_for_many(tied):
    torch.manual_seed(0)
    model = Llama(60, 64, embed_dim=64, num_layers=2, num_heads=4, num_key_value_heads=2, hidden_dim=96, tied=tied).eval()
    for block in model.blocks:
        for layer in block.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.data = on_a_grid(*layer.weight.shape) / 64
    tokens = torch.randint(60, (1, 40))
    with torch.inference_mode():
        wanted = model(tokens)
        small = packed(model)
        cache = small.new_cache(1, 40)
        few = torch.cat([small(part, cache) for part in tokens.split(4, 1)], 1)
        many = small(tokens)
    for answer in (few, many):
        assert (answer.float() - wanted).abs().max() <= 0.06 * wanted.abs().max()
    assert sum(isinstance(layer, PackedLinear) for layer in small.modules()) == 14
    assert isinstance(small.head, PackedHead)


def test_layers_that_cannot_be_packed_and_heads_that_are_none_stay():
    model = packed(GPT(13, 16, embed_dim=12, num_layers=1, num_heads=3))
    assert not any(isinstance(layer, PackedLinear) for layer in model.modules())
    assert model(torch.tensor([[1, 2]])).dtype is torch.bfloat16

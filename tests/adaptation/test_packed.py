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
    small = PackedLinear(layer.weight, layer.bias).bfloat16()
    assert (small(x).float() - wanted).abs().max() <= 0.01 * wanted.abs().max()


def test_other_weights_are_off_by_half_a_step_at_most():
    torch.manual_seed(0)
    layer = nn.Linear(64, 32, bias=False)
    small = PackedLinear(layer.weight, layer.bias).bfloat16()
    seen = torch.cat([small(part.bfloat16()) for part in torch.eye(64).split(8)]).T.float()
    groups = layer.weight.detach().unflatten(1, (-1, 32))
    step = (groups.amax(2) - groups.amin(2))[..., None] / 15
    off = (seen.unflatten(1, (-1, 32)) - groups).abs() / step
    assert off.max() <= 0.6
    assert off.mean() > 0.1  # they are of four bits indeed


def test_the_likeliest_logits_of_a_head_are_those_of_bf16_and_the_others_of_four_bits(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr("thalweg.adaptation.packed.CANDIDATES", 5)
    weight, x = torch.randn(48, 64), torch.randn(2, 3, 64).bfloat16()
    head = PackedHead(weight)
    seen, rough = head(x), PackedLinear(weight)(x)
    exact = x @ head.weight.T
    fresh = seen != rough
    assert (fresh.sum(-1) <= 5).all()
    assert torch.equal(seen.argmax(-1), exact.argmax(-1))
    best = rough.topk(5).indices
    assert (seen - exact).float().gather(-1, best).abs().max() <= 0.02 * exact.abs().max()
    assert (rough - exact).float().gather(-1, best).abs().max() > 0.05


@pytest.mark.parametrize("tied", [True, False])
def test_a_packed_model_answers_nearly_as_before_for_few_tokens_and_for_many(tied):
    torch.manual_seed(0)
    model = Llama(64, 64, embed_dim=64, num_layers=2, num_heads=4, num_key_value_heads=2, hidden_dim=96, tied=tied).eval()
    for block in model.blocks:
        for layer in block.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.data = on_a_grid(*layer.weight.shape) / 64
    tokens = torch.randint(64, (1, 40))
    with torch.inference_mode():
        wanted = model(tokens)
        small = packed(model)
        cache = small.new_cache(1, 40)
        few = torch.cat([small(part, cache) for part in tokens.split(4, 1)], 1)
        many = small(tokens)
    for answer in (few, many):
        assert (answer.float() - wanted).abs().max() <= 0.06 * wanted.abs().max()
    assert sum(isinstance(layer, PackedLinear) for layer in small.modules()) == 15
    assert isinstance(small.head, PackedHead)


def test_layers_that_cannot_be_packed_and_heads_that_are_none_stay():
    model = packed(GPT(13, 16, embed_dim=12, num_layers=1, num_heads=3))
    assert not any(isinstance(layer, PackedLinear) for layer in model.modules())
    assert model(torch.tensor([[1, 2]])).dtype is torch.bfloat16

"""What a large model costs, counted where no number of it is held: on the meta device."""

import pytest
import torch

from thalweg.inspection.summary import summary
from thalweg.models.language.gpt import gpt2, gpt3
from thalweg.models.language.llama import mistral_7b


@pytest.mark.parametrize("make", [gpt2, gpt3, mistral_7b])
def test_a_large_model_costs_twice_its_parameters_a_token(make):
    time = 16
    with torch.device("meta"):
        model, tokens = make(), torch.zeros(1, time, dtype=torch.long)
    row = summary(model, tokens)[0]
    assert row.parameters == sum(p.numel() for p in model.parameters())
    held = dict(model.named_parameters())
    looked_up = ("position", "embedding") if "head.weight" in held else ("position",)  # else it is the head too
    multiplied = sum(p.numel() for name, p in held.items() if p.ndim == 2 and not name.startswith(looked_up))
    scores = 2 * len(model.blocks) * time**2 * model.embedding.embedding_dim  # and as much for the sums of values
    assert row.flops == 2 * time * multiplied + 2 * scores
    assert abs(row.flops / (2 * time * row.parameters) - 1) < 0.02

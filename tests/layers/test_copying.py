"""Copying: the mixture word by word."""

import pytest
import torch
from definitions import equal_with_gradients, numbers

from thalweg.layers.copying import Copying


@pytest.mark.parametrize("strangers", [0, 2])
def test_what_the_vocabulary_says_and_what_was_read_share_the_probability(strangers):
    layer = Copying(3, strangers).double()
    h, logits, weights = numbers(2, 4, 3), numbers(2, 4, 5), numbers(2, 4, 6).detach().softmax(-1).requires_grad_()
    tokens = torch.tensor([[4, 1, 4, 0, 2, 2], [3, 3, 3, 1, 4, 0]]) + strangers
    rows = []
    for row in range(2):
        for t in range(4):
            gate = torch.sigmoid(layer.gate.weight[0] @ h[row, t] + layer.gate.bias[0])
            for word in range(5 + strangers):
                generated = logits[row, t].softmax(0)[word] if word < 5 else 0.0
                copied = sum(weights[row, t, s] for s in range(6) if tokens[row, s] == word)
                rows.append(torch.log(gate * generated + (1 - gate) * copied + (word >= 5) * torch.finfo(torch.float64).tiny))
    found = layer(h, logits, weights, tokens)
    equal_with_gradients(found, torch.stack(rows).view(2, 4, -1), [h, logits, weights, *layer.parameters()])
    assert torch.allclose(found.exp().sum(-1), torch.ones(2, 4, dtype=torch.float64))


def test_who_stands_nowhere_in_the_source_is_finite_and_as_good_as_impossible():
    found = Copying(3, 1)(torch.zeros(1, 1, 3), torch.zeros(1, 1, 5), torch.ones(1, 1, 1), torch.tensor([[2]]))
    assert found[0, 0, 5] < -80
    assert found.isfinite().all()

"""GloVe: its loss by loops, and ratios of probabilities as differences of vectors.   D2L 14.5"""

import math

import torch
from torch.testing import assert_close

from thalweg.models.language.glove import GloVe


def test_the_loss_is_its_formula_in_values_and_gradients():
    model = GloVe(5, 4, most=3.0).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    tokens, times = torch.tensor([[0, 1], [1, 0], [4, 4], [2, 3]]), torch.tensor([2.0, 2.0, 7.0, 0.25], dtype=torch.float64)
    naive = 0.0
    for (i, j), count in zip(tokens.tolist(), times.tolist(), strict=True):
        product = sum(model.embedding.weight[i, d] * model.context.weight[j, d] for d in range(4))
        missed = product + model.embedding_bias.weight[i, 0] + model.context_bias.weight[j, 0] - math.log(count)
        naive = naive + min(count / 3, 1) ** 0.75 * missed**2
    total, count = model.loss({"tokens": tokens, "target": times})
    assert count == 4
    assert_close(total, naive, rtol=1e-6, atol=0)
    for one, other in zip(*(torch.autograd.grad(value, [*model.parameters()]) for value in (total, naive)), strict=True):
        assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert_close(model.vectors(), model.embedding.weight + model.context.weight)


def test_differences_tell_the_ratios_of_ice_and_steam():
    """P(k | ice) / P(k | steam) is large for solid, small for gas, and near 1 for water and fashion (table 1 of the paper)."""
    chance = {"ice": [1.9e-4, 6.6e-5, 3.0e-3, 1.7e-5], "steam": [2.2e-5, 7.8e-4, 2.2e-3, 1.8e-5]}
    cells, times = [], []
    for word, row in enumerate(chance.values()):
        for probe, probability in enumerate(row):
            cells += [[word, 2 + probe], [2 + probe, word]]
            times += [probability * 1e6] * 2
    batch = {"tokens": torch.tensor(cells), "target": torch.tensor(times)}
    model = GloVe(6, 4, most=10.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        model.loss(batch)[0].backward()
        optimizer.step()
    difference = model.embedding.weight[0] - model.embedding.weight[1]
    shift = model.embedding_bias.weight[0, 0] - model.embedding_bias.weight[1, 0]
    ratios = (model.context.weight[2:] @ difference + shift).exp()
    assert_close(ratios, torch.tensor([8.9, 8.5e-2, 1.36, 0.96]), rtol=0.1, atol=0)

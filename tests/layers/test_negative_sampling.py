"""A true word told from drawn ones: the formula, the noise, the cost, and what it learns without a sum over all words.

D2L 14.2
"""

import pytest
import torch
from definitions import numbers
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from thalweg.layers.softmax import FullSoftmax, NegativeSampling

COUNTS = [50, 3, 20, 20, 1, 0, 7]


def layer_of(contrastive=False, negatives=3, counts=COUNTS, dim=4):
    layer = NegativeSampling(dim, counts, negatives, contrastive=contrastive).double()
    torch.nn.init.normal_(layer.words.weight)
    if contrastive:
        torch.nn.init.normal_(layer.bias)
    return layer


@pytest.mark.parametrize("contrastive", [False, True])
def test_the_loss_is_its_formula_in_values_and_gradients(contrastive):
    layer, x = layer_of(contrastive, counts=[count + 1 for count in COUNTS]), numbers(2, 3, 4)
    target, drawn = torch.tensor([[0, 1, 2], [3, 4, 6]]), torch.randint(7, (2, 3, 3))
    drawn[0, 1, 2] = 1  # the target itself, which counts only where all do
    share = torch.tensor([count + 1.0 for count in COUNTS], dtype=torch.float64) ** 0.75
    share = share / share.sum()

    def score(row, place, word):
        value = sum(x[row, place, d] * layer.words.weight[word, d] for d in range(4))
        return value + layer.bias[word] - torch.log(3 * share[word]) if contrastive else value

    naive = 0.0
    for row in range(2):
        for place in range(3):
            naive = naive - torch.log(1 / (1 + torch.exp(-score(row, place, target[row, place]))))
            for word in drawn[row, place]:
                if contrastive or word != target[row, place]:
                    naive = naive - torch.log(1 - 1 / (1 + torch.exp(-score(row, place, word))))
    learned = [x, *layer.parameters()]
    assert_close(layer.against(x, target, drawn).double(), naive.detach(), rtol=1e-6, atol=0)  # the loss is summed in float32
    for one, other in zip(
        torch.autograd.grad(layer.against(x, target, drawn), learned), torch.autograd.grad(naive, learned), strict=True
    ):
        assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert layer.loss(x, target)[1] == 6


def test_words_are_drawn_by_the_power_of_their_counts():
    layer = layer_of()
    share = torch.tensor(COUNTS, dtype=torch.float64) ** 0.75
    held = torch.bincount(layer.urn, minlength=7) / len(layer.urn)
    assert_close(held.double(), share / share.sum(), rtol=0, atol=2e-6)
    assert held[5] == 0
    assert NegativeSampling(2, COUNTS, power=0.0).noise.unique().tolist() == [1 / 7]


def test_the_cost_is_linear_in_the_drawn_words_and_not_in_the_vocabulary():
    def products(negatives, words):
        layer, read = NegativeSampling(8, [1] * words, negatives), []
        layer.words.register_forward_hook(lambda module, inputs, output: read.append(output.shape[:-1].numel()))
        layer.loss(torch.randn(5, 8), torch.zeros(5, dtype=torch.long))
        return sum(read)

    assert products(9, 100) == products(9, 1000) == 2 * products(4, 100) == 5 * 10


def test_the_contrastive_one_learns_probabilities_that_sum_to_one_by_themselves():
    share = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05])
    sums = {}
    for contrastive in (True, False):
        layer = NegativeSampling(1, [5, 4, 3, 2, 1], 5, contrastive=contrastive)
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.03)
        for _ in range(200):
            optimizer.zero_grad()
            total, count = layer.loss(torch.ones(512, 1), torch.multinomial(share, 512, replacement=True))
            (total / count).backward()
            optimizer.step()
        found = layer(torch.ones(1), torch.arange(5)).exp().detach()
        sums[contrastive] = float(found.sum())
        if contrastive:
            assert_close(found, share, rtol=0.15, atol=0.01)
    assert abs(sums[True] - 1) < 0.05 < abs(sums[False] - 1)


def test_the_full_softmax_is_cross_entropy_and_leaves_out_what_is_ignored():
    layer, x = FullSoftmax(4, 7).double(), numbers(2, 3, 4)
    target = torch.tensor([[0, -100, 2], [3, 4, 6]])
    total, count = layer.loss(x, target)
    assert count == 5
    assert_close(total, cross_entropy(layer(x).float().flatten(0, 1), target.flatten(), reduction="sum"))
    assert_close(layer.log_prob(x).exp().sum(-1), torch.ones(2, 3))


@pytest.mark.parametrize(("counts", "negatives"), [([1], 5), ([1, -1], 5), ([1, 1], 0)])
def test_what_cannot_be_is_refused(counts, negatives):
    with pytest.raises(ValueError, match="counts"):
        NegativeSampling(4, counts, negatives)

"""Chains of labels against all sequences of labels, one after the other."""

import math
from itertools import pairwise, product

import pytest
import torch
from definitions import EXACT
from torch.testing import assert_close

from thalweg.layers.chain import LinearChain


@pytest.fixture
def chain():
    chain = LinearChain(3).double()
    for parameter in chain.parameters():
        torch.nn.init.normal_(parameter)
    return chain


LENGTHS = (5, 1, 3)


def sentences() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(3, 5, 3, dtype=torch.float64), torch.arange(5) < torch.tensor(LENGTHS)[:, None]


def scores(chain: LinearChain, emission: torch.Tensor) -> dict[tuple[int, ...], torch.Tensor]:
    """The score of every sequence of labels of one sentence, a term at a time."""
    found = {}
    for labels in product(range(3), repeat=len(emission)):
        total = chain.begin[labels[0]] + chain.end[labels[-1]] + sum(emission[t, y] for t, y in enumerate(labels))
        found[labels] = total + sum(chain.transition[a, b] for a, b in pairwise(labels))
    return found


def test_the_score_of_labels_and_the_sum_over_all_are_those_of_their_definitions(chain):
    emission, mask = sentences()
    label = torch.randint(3, (3, 5))
    ours = torch.cat([chain.score(emission, label, mask), chain.log_partition(emission, mask)])
    every = [scores(chain, one[:length]) for one, length in zip(emission, LENGTHS, strict=True)]
    naive = [of[tuple(row[:length].tolist())] for of, row, length in zip(every, label, LENGTHS, strict=True)]
    naive += [torch.stack([*of.values()]).exp().sum().log() for of in every]
    assert_close(ours, torch.stack(naive), **EXACT)
    for one, other in zip(
        *(torch.autograd.grad(x.sum(), [*chain.parameters()]) for x in (ours, torch.stack(naive))), strict=True
    ):
        assert_close(one, other, **EXACT)


def test_viterbi_finds_the_best_that_trying_all_finds_and_the_next_best(chain):
    emission, mask = sentences()
    found, score = chain.best(emission, mask, count=4)
    assert torch.equal(found[:, :1], chain.best(emission, mask)[0])
    for place, length in enumerate(LENGTHS):
        ranked = sorted(scores(chain, emission[place, :length]).items(), key=lambda pair: -pair[1].item())[:4]
        assert [tuple(row[:length].tolist()) for row in found[place]][: len(ranked)] == [labels for labels, _ in ranked]
        assert_close(score[place, : len(ranked)], torch.stack([value for _, value in ranked]).detach())
        assert not found[place, :, length:].any()
    assert score[1].tolist()[3] == -math.inf  # one word has three labels


def test_marginals_are_shares_of_all_sequences_that_have_the_label_there(chain):
    emission, mask = sentences()
    ours = chain.marginals(emission, mask)
    every = scores(chain, emission[0])
    total = sum(value.exp() for value in every.values())
    for t, y in product(range(5), range(3)):
        share = sum(value.exp() for labels, value in every.items() if labels[t] == y) / total
        assert_close(ours[0, t, y], share.detach(), **EXACT)
    assert_close(ours.sum(-1), mask.double(), **EXACT)


def test_padding_changes_nothing(chain):
    emission, mask = sentences()
    other = emission.masked_fill(~mask[..., None], 1e3)
    assert torch.equal(chain.best(emission, mask)[1], chain.best(other, mask)[1])
    assert torch.equal(chain.log_partition(emission, mask), chain.log_partition(other, mask))
    assert torch.equal(chain.score(emission, mask.long(), mask), chain.score(other, 2 - mask.long(), mask))

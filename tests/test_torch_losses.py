"""The losses that torch has, held to what the books say of them.   LBDL 3.1, D2L 3.1, 3.4"""

import importlib
import math

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from thalweg.build import build
from thalweg.catalogue import rows

EXACT = {"rtol": 0, "atol": 1e-10}


def test_mean_squared_error_is_the_mean_of_the_squares():
    prediction = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    assert functional.mse_loss(prediction, target, reduction="sum").item() == 0 + 4 + 9
    loss = functional.mse_loss(prediction, target)
    assert loss.item() == pytest.approx(13 / 3, abs=1e-12)
    loss.backward()
    assert_close(prediction.grad, 2 * (prediction - target).detach() / 3, **EXACT)


def test_cross_entropy_is_minus_the_log_probability_of_the_label():
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    label = torch.tensor([0, 3, 1, 1, 2])
    expected = 0.0
    for row, y in zip(logits.tolist(), label.tolist(), strict=True):
        expected -= math.log(math.exp(row[y]) / sum(math.exp(value) for value in row)) / 5
    loss = functional.cross_entropy(logits, label)
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    loss.backward()
    assert_close(logits.grad, (logits.softmax(1) - functional.one_hot(label, 4)).detach() / 5, **EXACT)


def test_cross_entropy_stays_finite_for_logits_of_a_thousand():
    logits = torch.tensor([[1000.0, -1000.0]])
    assert functional.cross_entropy(logits, torch.tensor([0])) == 0
    assert functional.cross_entropy(logits, torch.tensor([1])) == 2000


def test_softmax_sums_to_one_and_does_not_see_a_common_shift():
    logits = torch.randn(3, 7, dtype=torch.float64)
    probability = logits.softmax(-1)
    assert_close(probability, logits.exp() / logits.exp().sum(-1, keepdim=True), **EXACT)
    assert_close(probability.sum(-1), torch.ones(3).double(), **EXACT)
    assert_close((logits + 123).softmax(-1), probability, **EXACT)


def test_one_hot_vectors_are_labels_that_cross_entropy_takes_too():
    label, logits = torch.tensor([2, 0, 1]), torch.randn(3, 4, dtype=torch.float64)
    vectors = functional.one_hot(label, 4).double()
    assert vectors.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]]
    assert torch.equal(vectors.argmax(1), label)
    assert_close(functional.cross_entropy(logits, vectors), functional.cross_entropy(logits, label), **EXACT)
    mixed = (vectors + vectors.roll(1, 0)) / 2
    halves = [functional.cross_entropy(logits, target) / 2 for target in (label, label.roll(1))]
    assert_close(functional.cross_entropy(logits, mixed), sum(halves), **EXACT)


def test_label_smoothing_spreads_a_share_of_the_target_over_all_classes():
    label, logits = torch.tensor([2, 0]), torch.randn(2, 4, dtype=torch.float64)
    spread = 0.9 * functional.one_hot(label, 4).double() + 0.1 / 4
    expected = -(spread * logits.log_softmax(1)).sum(1).mean()
    assert_close(functional.cross_entropy(logits, label, label_smoothing=0.1), expected, **EXACT)


CLASSIFIERS = [key for key, row in rows().items() if "example" in row and "classifier" in row["kind"].split()]


@pytest.mark.parametrize("key", CLASSIFIERS)
def test_a_classifier_returns_logits_and_no_probabilities(key):
    row = rows()[key]
    module, _, name = row["defined"].partition(":")
    model = build(getattr(importlib.import_module(module), name), **row["example"]["arguments"]).eval()
    image = torch.randn(2, *row["example"]["input"][1:])
    with torch.no_grad():
        before = model(image)
        model.head.bias -= 5
        assert_close(model(image), before - 5, rtol=0, atol=1e-5)  # nothing squashes what the head gives

"""Monte Carlo dropout."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from thalweg.data.sources import digits
from thalweg.inspection.confidence import confidence, dropping, mc_dropout
from thalweg.layers.dropout import StochasticDepth


def network() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10))


def test_dropout_is_on_and_all_else_in_evaluation_and_then_as_it_was():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Dropout(0.0), StochasticDepth(0.2)).train()
    model[0].eval()
    with dropping(model):
        assert [module.training for module in model] == [False, True, False, True]
    assert [module.training for module in model] == [False, True, True, True]


def test_the_mean_of_many_samples_of_a_linear_model_is_its_answer_and_the_deviation_is_known():
    model, x = nn.Sequential(nn.Dropout(0.2), nn.Linear(5, 1, bias=False)), torch.rand(1, 5)
    found = mc_dropout(model, x, samples=10_000)
    weight = model[1].weight.detach()
    assert found.shape == (10_000, 1, 1)
    assert found.mean() == pytest.approx(float(weight @ x[0]), abs=0.02)
    variance = float((weight[0] * x[0]).square().sum()) * 0.2 / 0.8  # p / (1 - p) a unit
    assert found.var() == pytest.approx(variance, rel=0.05)


def test_entropy_is_all_doubt_and_disagreement_the_part_between_samples():
    sure, torn = [50.0, 0.0], [0.0, 50.0]
    logits = torch.tensor([[sure, [0.0, 0.0], sure], [sure, [0.0, 0.0], torn]])  # two samples of three examples
    found = confidence(logits)
    assert found.mean[2].tolist() == pytest.approx([0.5, 0.5])
    assert found.entropy.tolist() == pytest.approx([0, math.log(2), math.log(2)], abs=1e-12)
    assert found.disagreement.tolist() == pytest.approx([0, 0, math.log(2)], abs=1e-12)
    assert found.deviation[:, 0].tolist() == pytest.approx([0, 0, 0.5**0.5], abs=1e-12)


def test_a_model_doubts_more_of_what_it_never_saw():
    splits, model = digits(), network()
    image, label = splits.train["image"] / 255.0, splits.train["label"]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        loss = cross_entropy(model(image), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seen = splits.test["image"] / 255.0
    upright = confidence(mc_dropout(model, seen))
    assert (upright.mean.argmax(1) == splits.test["label"]).float().mean() > 0.93
    # Turned by half, two digits in one. (A quarter turn lights columns that no training image has: sure, and mostly wrong.)
    for strange in (seen.rot90(2, (2, 3)), (seen + seen.roll(1, 0)) / 2):
        found = confidence(mc_dropout(model, strange))
        assert found.deviation.mean() > 1.5 * upright.deviation.mean()
        assert found.entropy.mean() > 2 * upright.entropy.mean()
        assert found.disagreement.mean() > 2 * upright.disagreement.mean()


def test_a_model_without_dropout_or_a_single_sample_says_nothing_and_is_refused():
    with pytest.raises(ValueError, match="model: Linear has no dropout"):
        mc_dropout(nn.Linear(2, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="samples=1: expected at least 2"):
        mc_dropout(network(), torch.zeros(1, 1, 8, 8), samples=1)

"""A model between layers that scale takes and gives numbers as they were measured."""

import math

import pytest
import torch
from torch import nn

from thalweg.build import adapt, build, load, save
from thalweg.layers.rescale import Rescaled, column_moments, rescale
from thalweg.models.classical.linear import linear_regression


def table(rows: int = 30):
    features = torch.randn(rows, 3, dtype=torch.float64) * torch.tensor([1e-3, 1.0, 5e4]) + torch.tensor([0.0, -7.0, 1e5])
    return features, features @ torch.tensor([[900.0, 0.0], [2.0, 1.0], [1e-4, 2e-3]], dtype=torch.float64) + 40


def test_it_scales_what_goes_in_and_unscales_what_comes_out():
    features, target = table()
    moments = column_moments(features, target)
    inner = nn.Linear(3, 2)
    model = Rescaled(inner, **moments).double()
    exact = {name: torch.tensor(value, dtype=torch.float64) for name, value in moments.items()}
    model.load_state_dict({**model.state_dict(), **exact})
    weight, bias = inner.weight.tolist(), inner.bias.tolist()
    features.requires_grad_()
    result = model(features)
    result.sum().backward()
    for row in range(30):
        x = [(features[row, i].item() - moments["mean"][i]) / moments["deviation"][i] for i in range(3)]
        for out in range(2):
            z = sum(weight[out][i] * x[i] for i in range(3)) + bias[out]
            expected = moments["target_deviation"][out] * z + moments["target_mean"][out]
            assert abs(result[row, out].item() - expected) < 1e-10 * max(1, abs(expected))
        for i in range(3):
            slope = sum(moments["target_deviation"][out] * weight[out][i] for out in range(2))
            expected = slope / moments["deviation"][i]
            assert abs(features.grad[row, i].item() - expected) < 1e-10 * max(1, abs(expected))


def test_the_moments_are_mean_and_deviation_of_each_column_and_1_where_it_is_constant():
    features = torch.tensor([[1.0, 5.0], [3.0, 5.0], [8.0, 5.0]])
    moments = column_moments(features, features[:, :1])
    assert moments["mean"] == [4.0, 5.0]
    assert moments["deviation"] == pytest.approx([math.sqrt((9 + 1 + 16) / 2), 1.0])
    assert moments["target_mean"] == [4.0]


def test_it_calculates_in_float32_where_products_are_in_bf16():
    features, target = table()
    model = Rescaled(nn.Linear(3, 2), **column_moments(features, target))
    x = (features.float() - model.mean) / model.deviation
    plain = model.model(x) * model.target_deviation + model.target_mean
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(features.float()), plain)


def test_the_scales_are_saved_with_the_model(tmp_path):
    features, target = table()
    model = adapt(build(linear_regression, in_features=3, out_features=2), rescale, **column_moments(features, target))
    save(model, tmp_path)
    assert torch.equal(load(tmp_path)(features.float()), model(features.float()))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"mean": [0.0]}, "as many means"), ({"target_mean": [0.0] * 3}, "as many means"), ({"deviation": [1.0, 0.0]}, "no zero")],
)
def test_scales_that_do_not_fit_are_refused(change, message):
    scales = {"mean": [0.0] * 2, "deviation": [1.0] * 2, "target_mean": [0.0], "target_deviation": [1.0]}
    with pytest.raises(ValueError, match=message):
        Rescaled(nn.Linear(2, 1), **{**scales, **change})


def test_the_wrong_number_of_numbers_is_refused():
    with pytest.raises(ValueError, match="x: 4 numbers an example, expected 2"):
        Rescaled(nn.Linear(2, 1), [0.0] * 2, [1.0] * 2, [0.0], [1.0])(torch.zeros(1, 4))

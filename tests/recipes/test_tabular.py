"""Recipes for tables learn what they should, in seconds."""

import pytest
import torch

from thalweg.data.measurements import airfoil, diabetes
from thalweg.recipes.tabular import linear_regression_diabetes, mlp_airfoil
from thalweg.training import Training, evaluate


def trained(experiment) -> Training:
    training = Training(experiment)
    for _ in training:
        pass
    return training


def test_linear_regression_reaches_the_solution_of_the_normal_equations():
    training = trained(linear_regression_diabetes())
    rows = diabetes().train
    x, y = rows["features"].double(), rows["target"].double()
    x = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1)
    weight = torch.linalg.solve(x.T @ x, x.T @ y)
    expected, found = x @ weight, training.task.model(rows["features"]).detach().double()
    assert (found - expected).norm() / (expected - expected.mean()).norm() < 1e-3
    layer = training.task.model
    slopes = (layer.target_deviation[:, None] * layer.model.head.weight / layer.deviation).detach().double()
    scale = rows["features"].double().std(0)  # slopes of features of different units are comparable a deviation
    assert ((slopes[0] - weight[:-1, 0]) * scale).norm() / (weight[:-1, 0] * scale).norm() < 1e-2


def test_linear_regression_is_better_than_the_mean():
    training = trained(linear_regression_diabetes(epochs=100))
    assert dict(evaluate(training, training.experiment.valid))["r2"] > 0.4


def test_a_perceptron_foretells_the_noise_of_a_wing(data_folder):
    training = trained(mlp_airfoil(epochs=40))
    assert dict(evaluate(training, training.experiment.valid))["r2"] > 0.9


def test_the_tables_hold_what_they_should(data_folder):
    for splits, columns, rows in ((airfoil(), 5, 1503), (diabetes(), 10, 442)):
        parts = (splits.train, splits.valid, splits.test)
        assert sum(len(part["target"]) for part in parts) == rows
        assert len(splits.valid["target"]) == rows // 10
        assert len(splits.test["target"]) == 2 * (rows // 10)
        assert all(part["features"].shape[1:] == (columns,) and part["target"].shape[1:] == (1,) for part in parts)
        assert len(splits.features) == columns
        assert len(splits.targets) == 1
        held = torch.cat([torch.cat([part["features"], part["target"]], 1) for part in parts])
        assert torch.isfinite(held).all()
        assert len(held.unique(dim=0)) == rows  # each row in one part
    assert float(airfoil().train["target"].mean()) == pytest.approx(124.8, abs=0.5)

"""Regression: the loss and the metrics against their formulas, and what a person gets."""

import math

import pytest
import torch
from torch import nn

from thalweg.build import build, load, save
from thalweg.models.classical.linear import linear_regression
from thalweg.tasks.regression import Regression


@pytest.fixture
def batch():
    return {
        "features": torch.randn(7, 4, dtype=torch.float64),
        "target": torch.randn(7, 2, dtype=torch.float64) * torch.tensor([1.0, 50.0]),
    }


def test_the_loss_is_the_sum_of_squared_errors_in_their_units_and_so_is_its_gradient(batch):
    model = nn.Linear(4, 2).double()
    task = Regression(model, ("a", "b"), unit=[2.0, 40.0]).double()
    total, count = task.loss(batch)
    total.backward()
    expected, slope = 0.0, torch.zeros(2, 4, dtype=torch.float64)
    for row in range(7):
        for out, unit in enumerate((2.0, 40.0)):
            x = batch["features"][row]
            predicted = sum(model.weight[out, i].item() * x[i].item() for i in range(4)) + model.bias[out].item()
            error = (predicted - float(batch["target"][row, out])) / unit
            expected += error**2
            for i in range(4):
                slope[out, i] += 2 * error / unit * x[i]
    assert count == 14
    assert abs(total.item() - expected) < 1e-10
    torch.testing.assert_close(model.weight.grad, slope, rtol=0, atol=1e-10)


def test_the_metrics_are_r2_rmse_mae_and_the_loss(batch):
    task = Regression(nn.Linear(4, 2).double(), ("a", "b"), unit=[2.0, 40.0])
    for part in (slice(0, 3), slice(3, 7)):
        task.evaluate({name: value[part] for name, value in batch.items()})
    found = {name: float(value) for name, value in task.metrics.compute().items()}
    errors = (task.model(batch["features"]) - batch["target"]).detach()
    spread = batch["target"] - batch["target"].mean(0)
    assert found["r2"] == pytest.approx(
        sum(1 - float((errors[:, k] ** 2).sum() / (spread[:, k] ** 2).sum()) for k in (0, 1)) / 2, 1e-5
    )
    assert found["rmse"] == pytest.approx(math.sqrt(float((errors**2).mean())), 1e-5)
    assert found["mae"] == pytest.approx(float(errors.abs().mean()), 1e-5)
    assert found["loss"] == pytest.approx(float(task.loss(batch)[0]) / 14, 1e-5)
    assert {name: metric.higher_is_better for name, metric in task.metrics.items()} == {
        "r2": True, "rmse": False, "mae": False, "loss": False}  # fmt: skip


def test_a_person_gets_a_number_for_each_target_by_its_name(tmp_path):
    task = build(Regression, model=build(linear_regression, in_features=3, out_features=2), targets=["height", "weight"])
    save(task, tmp_path)
    features = torch.randn(5, 3)
    predicted = load(tmp_path).predict({"features": features})
    assert list(predicted) == ["height", "weight"]
    torch.testing.assert_close(torch.stack([predicted["height"], predicted["weight"]], 1), task.model(features))
    assert task.reads == "features"


def test_the_wrong_number_of_features_is_refused_with_their_names():
    task = Regression(nn.Linear(2, 1), features=("age", "size"))
    with pytest.raises(ValueError, match="features: 3 numbers, expected 2: age, size"):
        task.predict({"features": torch.zeros(1, 3)})


def test_the_figure_shows_each_target_predicted_against_true(batch):
    task = Regression(nn.Linear(4, 2).double(), ("height", "weight"))
    with torch.no_grad():
        (figure,) = task.figures(batch).values()
        predicted = task.model(batch["features"])
    assert [axis.get_xlabel() for axis in figure.axes] == ["true height", "true weight"]
    for index, axis in enumerate(figure.axes):
        points = torch.from_numpy(axis.collections[0].get_offsets().data)
        expected = torch.stack([batch["target"][:, index], predicted[:, index]], 1)
        torch.testing.assert_close(points, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("unit", [[1.0], [1.0, 0.0], [1.0, -2.0]])
def test_units_that_do_not_fit_are_refused(unit):
    with pytest.raises(ValueError, match=r"unit=.*expected a positive number for each of the targets \['a', 'b'\]"):
        Regression(nn.Linear(2, 2), ("a", "b"), unit)

"""Recipes for tables: rows of numbers in, a number out."""

from thalweg.build import adapt, build
from thalweg.data.measurements import airfoil, diabetes
from thalweg.layers.rescale import column_moments, rescale
from thalweg.models.classical.linear import linear_regression
from thalweg.models.classical.mlp import mlp
from thalweg.tasks.regression import Regression
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw, sgd
from thalweg.training.schedules import cosine, warmup


def _regression(model, splits) -> Regression:
    """The model between what scales the columns of this table, and the task of predicting its targets."""
    moments = column_moments(**splits.train)
    model = adapt(model, rescale, **moments)
    unit = moments["target_deviation"]
    return build(Regression, model=model, targets=splits.targets, unit=unit, features=splits.features)  # type: ignore[return-value]


def linear_regression_diabetes(*, epochs: int = 500, batch_size: int = 310, lr: float = 0.1) -> Experiment:
    """Linear regression foretells how a disease goes on.   LBDL 1.1, D2L 3.1-3.3"""
    splits = diabetes()
    data = splits.streams(batch_size)
    return Experiment(task=_regression(build(linear_regression, in_features=10), splits), train=data.train, valid=data.valid,
                      test=data.test, epochs=epochs, optimizer=sgd(lr, momentum=0.9), evaluate_every=50)  # fmt: skip


def mlp_airfoil(*, epochs: int = 100, batch_size: int = 32, lr: float = 3e-3, hidden_dim: int = 128) -> Experiment:
    """A multi-layer perceptron foretells how loud a wing is.   LBDL 5.1, D2L 4.1, 11.5"""
    splits = airfoil()
    data = splits.streams(batch_size)
    model = build(mlp, in_features=5, out_features=1, hidden_dims=[hidden_dim, hidden_dim])
    return Experiment(task=_regression(model, splits), train=data.train, valid=data.valid, test=data.test, epochs=epochs,
                      optimizer=adamw(lr), schedule=warmup(0.1, cosine()), monitor="r2", evaluate_every=330)  # fmt: skip

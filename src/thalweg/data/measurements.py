"""Tables of measurements with a number to predict.

A row is features [feature] and target [1], as they were measured: what a model must see of them is its own business.
"""

import torch
from torch import Tensor

from thalweg.data.sources import fetch
from thalweg.data.streams import Splits, generator, take


def airfoil() -> Splits:
    """1,503 wing sections in a wind tunnel and how loud they are.   Brooks, Pope, Marcolini 1989.   D2L 11.5"""
    sha256 = "74c75fd71783f1e6b71f8a622b993dc592897a97cd689c5090a07147a1b097b3"
    url = "http://d2l-data.s3-accelerate.amazonaws.com/airfoil_self_noise.dat"
    rows = fetch("airfoil/airfoil_self_noise.dat", url, sha256).decode().splitlines()
    table = torch.tensor([[float(number) for number in row.split()] for row in rows if row.strip()])
    names = ("frequency [Hz]", "angle of attack [deg]", "chord [m]", "velocity [m/s]", "displacement thickness [m]")
    return _splits(table[:, :-1], table[:, -1:], names, ("sound level [dB]",))


def diabetes() -> Splits:
    """442 patients and how their disease went on in a year, carried by scikit-learn.   Efron et al. 2004"""
    from sklearn.datasets import load_diabetes

    loaded = load_diabetes(scaled=False)
    features, target = torch.from_numpy(loaded.data).float(), torch.from_numpy(loaded.target).float()[:, None]
    return _splits(features, target, tuple(loaded.feature_names), ("progression",))


def _splits(features: Tensor, target: Tensor, names: tuple[str, ...], targets: tuple[str, ...]) -> Splits:
    """A tenth of the rows for validation and a fifth for the test, at random, the same for every run."""
    order = torch.randperm(len(features), generator=generator(0))
    examples, tenth = {"features": features, "target": target}, len(features) // 10
    train, valid, test = (take(examples, part) for part in order.tensor_split([len(order) - 3 * tenth, len(order) - 2 * tenth]))
    return Splits(train, valid, test, features=names, targets=targets)

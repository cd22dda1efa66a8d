"""A network without pooling reads as well.   LEE: CNN"""

import pytest
from torch import nn

from thalweg.build import adapt, build
from thalweg.data.sources import mnist
from thalweg.data.streams import TensorStream
from thalweg.layers.standardize import moments, standardize
from thalweg.models.vision.lenet import lenet
from thalweg.tasks.classification import Classification
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import linear, warmup


def accuracy(splits, pooling: bool) -> float:
    model = build(lenet)
    if not pooling:
        for stage in model.stages:
            stage[0].stride, stage[3] = (2, 2), nn.Identity()
    model = adapt(model, standardize, **moments(splits.train["image"]), size=[28, 28])
    task = build(Classification, model=model, classes=splits.classes)
    train = TensorStream(splits.train, 128, shuffle=True)
    made = Experiment(task=task, train=train, epochs=1, optimizer=adamw(2e-3), schedule=warmup(0.1, linear()))
    training = Training(made, device="cpu")
    for _ in training:
        pass
    return float(dict(evaluate(training, TensorStream(splits.test, 1000)))["accuracy"])


@pytest.mark.slow
def test_a_network_whose_convolutions_stride_reads_as_well_as_one_that_pools(data_folder):
    splits = mnist()
    with_pooling, without = (accuracy(splits, pooling) for pooling in (True, False))
    assert without > 0.98
    assert abs(without - with_pooling) < 0.006  # of 10,000 digits

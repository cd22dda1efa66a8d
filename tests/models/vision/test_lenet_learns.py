"""What LBDL says that a LeNet reaches."""

import pytest

from thalweg.build import adapt, build
from thalweg.data.sources import mnist
from thalweg.data.streams import TensorStream
from thalweg.layers.standardize import moments, standardize
from thalweg.models.vision.lenet import lenet
from thalweg.tasks.classification import Classification
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import linear, warmup


@pytest.mark.slow
def test_it_reads_digits_after_an_epoch(data_folder):
    splits = mnist()
    model = adapt(build(lenet), standardize, **moments(splits.train["image"]), size=[28, 28])
    task = build(Classification, model=model, classes=splits.classes)
    train = TensorStream(splits.train, 128, shuffle=True)
    made = Experiment(task=task, train=train, epochs=1, optimizer=adamw(2e-3), schedule=warmup(0.1, linear()))
    training = Training(made, device="cpu")
    for _ in training:
        pass
    assert dict(evaluate(training, TensorStream(splits.test, 1000)))["accuracy"] > 0.985  # LBDL 5.2

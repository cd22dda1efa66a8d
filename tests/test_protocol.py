"""The protocol of training as the books describe it.   LBDL 3.6, LEE "General Guide" """

import time

import numpy
import pytest
import torch
from sklearn.metrics import accuracy_score
from torch import nn
from torch.testing import assert_close

from thalweg.build import build
from thalweg.data.augmentation import flip, shift
from thalweg.data.streams import TensorStream
from thalweg.layers.standardize import standardize
from thalweg.metrics import Perplexity
from thalweg.models.classical.linear import softmax_regression
from thalweg.models.vision.lenet import lenet
from thalweg.tasks.classification import Classification
from thalweg.training import Experiment, Task, Training, evaluate
from thalweg.training.optimisers import sgd

CLASSES = ("dark", "bright")


def examples(count: int, wrong: float = 0.0) -> dict[str, torch.Tensor]:
    """2x2 images, bright or dark, some of them labelled wrongly."""
    label = torch.arange(count) % 2
    image = torch.rand(count, 1, 2, 2) * 0.6 + 0.4 * label[:, None, None, None]
    return {"image": image, "label": torch.where(torch.rand(count) < wrong, 1 - label, label)}


def task() -> Classification:
    return build(Classification, model=build(softmax_regression, image_size=2, num_classes=2), classes=CLASSES)


def test_accuracy_counts_as_scikit_learn_does():
    data, learner = examples(500, wrong=0.2), task()
    training = Training(Experiment(task=learner, train=TensorStream(data, 50), steps=1, optimizer=sgd(0.1)), precision="fp32")
    measured = float(dict(evaluate(training, TensorStream(data, 64)))["accuracy"])
    with torch.no_grad():
        predicted = learner.model(data["image"].to(training.device)).argmax(1).cpu()
    assert measured == pytest.approx(accuracy_score(data["label"], predicted), abs=1e-6)
    assert 1 - measured == pytest.approx(numpy.mean(data["label"].numpy() != predicted.numpy()), abs=1e-6)  # the error rate


def test_the_mean_of_the_gradients_of_equal_batches_is_the_gradient_of_all():
    data, learner = examples(60), task().double()
    data["image"] = data["image"].double()

    def gradient(part: slice) -> torch.Tensor:
        total, count = learner.loss({name: tensor[part] for name, tensor in data.items()})
        return torch.autograd.grad(total / count, learner.model.head.weight)[0]

    batches = torch.stack([gradient(slice(start, start + 10)) for start in range(0, 60, 10)])
    assert_close(batches.mean(0), gradient(slice(None)), rtol=0, atol=1e-12)
    assert not torch.allclose(batches[0], batches[1])  # each by itself is noisy


def test_batches_are_made_much_faster_than_a_network_learns_from_them():
    data = {"image": torch.randint(0, 256, (4096, 1, 28, 28), dtype=torch.uint8), "label": torch.arange(4096) % 10}
    stream = TensorStream(data, 256, shuffle=True, augment=[flip(), shift(2)])
    model = standardize(build(lenet), mean=[0.5], deviation=[0.5], size=[28, 28])
    training = Training(
        Experiment(task=Classification(model, tuple("0123456789")), train=stream, steps=10, optimizer=sgd(0.1)), device="cpu"
    )
    steps, batches = iter(training), stream.batches()
    next(steps)

    def seconds(iterator) -> float:
        taken = []
        for _ in range(6):
            start = time.perf_counter()
            next(iterator)
            taken.append(time.perf_counter() - start)
        return min(taken)

    assert seconds(batches) < 0.25 * seconds(steps)


class Adding(Task):
    """A recurrent network that starts with the identity adds up the numbers of a sequence."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.RNN(1, 16, nonlinearity="relu", batch_first=True), nn.Linear(16, 1)
        nn.init.eye_(self.body.weight_hh_l0)

    def loss(self, batch):
        predicted = self.head(self.body(batch["features"])[0][:, -1])
        return (predicted - batch["target"]).square().sum(), len(predicted)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_recurrent_network_that_diverges_learns_with_clipped_gradients(clip):
    features = torch.rand(64, 40, 1)
    stream = TensorStream({"features": features, "target": features.sum(1) / 10}, 64)
    training = Training(Experiment(task=Adding(), train=stream, steps=100, optimizer=sgd(0.01), clip=clip), precision="fp32")
    losses = []
    for step in training:
        losses.append(step.losses[""].item())
        if clip:
            norm = torch.nn.utils.get_total_norm([p.grad for p in training.task.parameters()])
            assert norm <= clip * 1.0001
    if clip:
        assert losses[-1] < 0.1 * losses[0]
    else:
        assert not losses[-1] < 10 * losses[0]  # far off, or no number


def test_a_model_that_knows_nothing_is_as_perplexed_as_there_are_tokens():
    metric = Perplexity()
    metric.update(nn.functional.cross_entropy(torch.zeros(7, 65), torch.arange(7), reduction="none"))
    assert metric.compute() == pytest.approx(65)

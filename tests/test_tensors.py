"""Tensors as the three books describe them: torch's own, held to what is said about them.   LBDL 2, D2L 2.1-2.6, 12.4"""

import time
from collections.abc import Callable

import numpy
import pytest
import torch
from checks import answer, example_input
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from thalweg.build import build
from thalweg.catalogue import rows
from thalweg.data.sources import fashion_mnist
from thalweg.data.streams import TensorStream
from thalweg.models.classical.mlp import mlp
from thalweg.models.vision.lenet import lenet
from thalweg.tasks.classification import Classification
from thalweg.training import Experiment, Step, Training, evaluate
from thalweg.training.optimisers import adamw
from thalweg.training.recorder import Diverged, Recorder
from thalweg.training.schedules import linear


def test_tensors_compute_what_numpy_computes():
    array = numpy.random.default_rng(0).standard_normal((4, 5, 6))
    tensor = torch.tensor(array)
    pairs = [
        (tensor[1, :, ::2], array[1, :, ::2]),
        (tensor[tensor > 0], array[array > 0]),
        (tensor.sum(1), array.sum(1)),
        (tensor.std((0, 2), correction=0), array.std((0, 2))),
        (tensor.argmax(-1), array.argmax(-1)),
        (tensor @ tensor[0].T, array @ array[0].T),
        (torch.einsum("bij,bkj->bik", tensor, tensor), numpy.einsum("bij,bkj->bik", array, array)),
        (torch.arange(0, 1, 0.1, dtype=torch.float64), numpy.arange(0, 1, 0.1)),
        (torch.ones(2, 3) + torch.arange(3), numpy.ones((2, 3), "float32") + numpy.arange(3)),
    ]
    for ours, theirs in pairs:
        assert_close(ours.numpy(), theirs, rtol=0, atol=1e-6, check_dtype=False)


def test_fifty_colour_images_of_32_by_24_have_the_shape_of_the_convention():
    image = torch.randint(0, 256, (50, 3, 24, 32), dtype=torch.uint8)  # batch, channel, height, width
    (batch,) = TensorStream({"image": image, "label": torch.zeros(50, dtype=torch.long)}, 50)
    assert batch["image"].shape == (50, 3, 24, 32)
    maps = torch.nn.Conv2d(3, 1000, 3, padding=1)(batch["image"].float())
    assert maps.shape == (50, 1000, 24, 32)  # channels may be thousands
    series = torch.zeros(50, 100, 7)  # batch, time, feature
    assert torch.nn.LSTM(7, 11, batch_first=True)(series)[0].shape == (50, 100, 11)
    assert build(lenet, in_channels=3, image_size=28)(torch.zeros(50, 3, 28, 28)).shape == (50, 10)


def test_views_share_memory_and_cost_nothing():
    tensor = torch.arange(24.0).reshape(2, 3, 4)
    views = [tensor.reshape(6, 4), tensor.transpose(0, 2), tensor[1, ::2], tensor.unfold(2, 2, 1), tensor.permute(2, 0, 1)]
    for view in views:
        assert view.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
    tensor[1, 0, 0] = -7
    assert all((view == -7).any() for view in views)
    huge = torch.zeros(1).expand(10**9, 10**9)  # a copy of a single row would not fit
    assert huge.T[5:, ::2].unflatten(1, (5, -1)).shape == (10**9 - 5, 5, 10**8)


def test_linear_algebra_is_that_of_numpy():
    random = numpy.random.default_rng(1)
    a, b = random.standard_normal((6, 6)), random.standard_normal((6, 3))
    x, y, symmetric = torch.tensor(a), torch.tensor(b), a @ a.T
    assert_close(x[0] @ x[1], torch.tensor(numpy.dot(a[0], a[1])))
    assert_close(x.T @ y, torch.tensor(a.T @ b))
    for order in (1, 2, numpy.inf):
        assert_close(torch.linalg.vector_norm(x[0], order), torch.tensor(numpy.linalg.norm(a[0], order)))
    assert_close(torch.linalg.norm(x), torch.tensor(numpy.linalg.norm(a)))
    assert_close(torch.linalg.solve(x, y), torch.tensor(numpy.linalg.solve(a, b)))
    assert_close(torch.linalg.eigvalsh(torch.tensor(symmetric)), torch.tensor(numpy.linalg.eigvalsh(symmetric)))
    values, vectors = torch.linalg.eigh(torch.tensor(symmetric))
    assert_close(vectors @ values.diag() @ vectors.T, torch.tensor(symmetric))


def test_drawing_from_a_categorical_converges_to_its_probabilities():
    probability = torch.tensor([0.1, 0.2, 0.3, 0.4])
    drawn = torch.distributions.Categorical(probability).sample((100_000,))
    assert_close(drawn.bincount() / 100_000, probability, rtol=0, atol=0.008)  # five standard deviations


def test_bayes_rule_turns_a_good_test_for_a_rare_disease_into_a_weak_statement():
    ill, positive_if_ill, positive_if_well = 0.0015, 1.0, 0.01
    posterior = positive_if_ill * ill / (positive_if_ill * ill + positive_if_well * (1 - ill))
    people = torch.rand(4_000_000) < ill
    positive = torch.rand(len(people)) < torch.where(people, positive_if_ill, positive_if_well)
    assert posterior == pytest.approx(0.1306, abs=1e-4)  # D2L 2.6
    assert people[positive].float().mean() == pytest.approx(posterior, abs=0.01)


class Counted(TorchDispatchMode):
    """Counts the operations that are carried out."""

    number = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        self.number += 1
        return function(*arguments, **(named or {}))


# In a region detector boxes suppress each other image by image.
MODELS = [key for key, row in rows().items() if "example" in row and "region-detector" not in row["kind"].split()]


@pytest.mark.parametrize("key", MODELS)
def test_no_model_loops_over_the_examples_of_a_batch(key):
    """A batch of seven takes as many operations as a batch of two."""
    import importlib

    row = rows()[key]
    module, _, name = row["defined"].partition(":")
    model = build(getattr(importlib.import_module(module), name), **row["example"]["arguments"]).eval()
    numbers = []
    for batch in (2, 7):
        x = example_input(row["kind"].split(), row["example"]["arguments"], [batch, *row["example"]["input"][1:]])
        with Counted() as counted, torch.no_grad():
            answer(model, x)
        numbers.append(counted.number)
    assert numbers[0] == numbers[1] > 0


def fastest(call: Callable, repeats: int = 7) -> float:
    """Seconds of the fastest of several calls: the one that was disturbed least."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken)


def test_a_vectorised_sum_is_ten_times_faster_than_a_loop():
    a, b = torch.rand(10_000), torch.rand(10_000)

    def loop():
        c = torch.empty(10_000)
        for i in range(10_000):
            c[i] = a[i] + b[i]
        return c

    assert_close(loop(), a + b)
    assert fastest(loop, 3) > 10 * fastest(lambda: a + b, 50)


def test_a_batch_costs_little_more_than_one_example_until_the_machine_is_busy():
    layer = torch.nn.Linear(512, 512)
    seconds = {}
    with torch.no_grad():
        for batch in (1, 8, 1024, 4096):
            x = torch.rand(batch, 512)
            seconds[batch] = fastest(lambda x=x: layer(x), 30)
    assert seconds[8] < 4 * seconds[1]  # flat: the weights are read once
    assert seconds[4096] > 2 * seconds[1024]  # linear: the arithmetic is all there is


def accuracy(precision: str) -> float:
    """Of a perceptron after two epochs of Fashion-MNIST."""
    torch.manual_seed(0)
    splits = fashion_mnist()
    train, test = ({**part, "image": part["image"] / 127.5 - 1} for part in (splits.train, splits.test))
    task = Classification(build(mlp, in_features=784, out_features=10, hidden_dims=[128]), splits.classes)
    made = Experiment(
        task=task, train=TensorStream(train, 256, shuffle=True), epochs=2, optimizer=adamw(2e-3), schedule=linear()
    )
    training = Training(made, device="cpu", precision=precision)
    for _ in training:
        pass
    return float(dict(evaluate(training, TensorStream(test, 1000)))["accuracy"])


def test_a_network_trained_in_bfloat16_is_as_good_as_one_trained_in_float32(data_folder):
    full, half = accuracy("fp32"), accuracy("bf16")
    assert full > 0.84
    assert half == pytest.approx(full, abs=0.005)
    assert half != full  # it was another arithmetic


def test_small_types_overflow_where_float32_does_not(tmp_path):
    big = torch.tensor(300.0)
    assert (big * big).isfinite()
    assert (big.half() * big.half()).isinf()  # the largest float16 is 65504
    assert (big.bfloat16() * big.bfloat16()).isfinite()  # the range of float32, eight bits of precision
    with Recorder(tmp_path) as recorder:
        recorder.write(Step(3, sums={"": (big.half() * big.half()).float()}, counts={"": 1}))
        with pytest.raises(Diverged, match="train/loss is inf at step 3"):
            recorder.flush()

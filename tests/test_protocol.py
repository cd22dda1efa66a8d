"""The protocol of training as the books describe it.   LBDL 3.6, LEE "General Guide" """

import time

import numpy
import pytest
import torch
from sklearn.metrics import accuracy_score
from torch import nn
from torch.testing import assert_close

from thalweg.build import adapt, build
from thalweg.data.augmentation import flip, shift
from thalweg.data.sources import digits
from thalweg.data.streams import Curriculum, TensorStream, take
from thalweg.data.tables import read_table, write_table
from thalweg.layers.rescale import column_moments, rescale
from thalweg.layers.standardize import moments, standardize
from thalweg.metrics import Perplexity
from thalweg.models.classical.linear import linear_regression, softmax_regression
from thalweg.models.classical.mlp import mlp
from thalweg.models.vision.lenet import lenet
from thalweg.recipes.vision import lenet_digits, resnet_cifar10
from thalweg.tasks.classification import Classification
from thalweg.tasks.regression import Regression
from thalweg.training import Experiment, Task, Training, evaluate
from thalweg.training.optimisers import adamw, sgd
from thalweg.training.sweep import held_out

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


def perceptron(stream, steps: int) -> Training:
    """Two hidden layers read digits from a stream."""
    data = digits()
    model = adapt(build(mlp, in_features=64, out_features=10, hidden_dims=[256, 256]), standardize,
                  **moments(data.train["image"]), size=(8, 8))  # fmt: skip
    task = build(Classification, model=model, classes=data.classes)
    return Training(Experiment(task=task, train=stream, steps=steps, optimizer=adamw(3e-3)), device="cpu", precision="fp32")


def accuracy(training: Training) -> float:
    return float(dict(evaluate(training, TensorStream(digits().test, 360)))["accuracy"])


def test_more_data_and_stopping_early_help_against_overfitting():
    """docs/overfitting.md has the table of remedies."""

    def losses(count):
        torch.manual_seed(0)
        training = perceptron(TensorStream(take(digits().train, torch.arange(count)), 20, shuffle=True), 200)
        over_time = [float(dict(evaluate(training, TensorStream(digits().valid, 360)))["loss"])
                     for step in training if step.number % 20 == 0]  # fmt: skip
        return min(over_time), over_time[-1]

    (stopped, few), (_, many) = losses(60), losses(600)
    assert many < 0.5 * few
    assert stopped < few


@pytest.mark.slow
def test_mirrored_digits_are_not_digits():
    """The mean of three seeds; a recipe of digits does not mirror."""

    def trained(seed, *augment):
        torch.manual_seed(seed)
        training = perceptron(TensorStream(take(digits().train, torch.arange(1000)), 20, shuffle=True, augment=augment), 300)
        list(training)
        return accuracy(training)

    plain, mirrored = (sum(trained(seed, *augment) for seed in range(3)) / 3 for augment in ([], [flip()]))
    assert mirrored < plain - 0.015


@pytest.mark.slow
def test_photographs_are_mirrored_and_digits_are_not(data_folder):
    def changes(experiment):
        return {change.__qualname__.partition(".")[0] for change in experiment.train.augment}

    assert "flip" in changes(resnet_cifar10(width=8))
    assert "flip" not in changes(lenet_digits())


def test_a_curriculum_learns_as_well_as_a_shuffled_stream_and_its_first_losses_are_lower():
    data = digits().train
    shuffled = TensorStream(data, 32, shuffle=True)
    judge = perceptron(shuffled, 60)
    list(judge)
    with torch.no_grad():
        logits = judge.task.eval().model(data["image"])
    difficulty = nn.functional.cross_entropy(logits, data["label"], reduction="none")
    torch.manual_seed(0)
    usual, graded = perceptron(shuffled, 250), perceptron(Curriculum(shuffled, difficulty, length=150), 250)
    graded.task.load_state_dict(usual.task.state_dict())
    losses = [[step.losses[""].item() for step in training] for training in (usual, graded)]
    assert sum(losses[1][:15]) < 0.9 * sum(losses[0][:15])  # what is easy is learned sooner
    assert accuracy(graded) > accuracy(usual) - 0.01
    assert accuracy(usual) > 0.95


def test_a_competition_from_its_table_to_a_submission_with_a_score_of_cross_validation(tmp_path):
    """Preprocessing, a model, five folds, and a file with an answer for every id."""
    random = torch.Generator().manual_seed(0)
    area, colour = torch.rand(120, generator=random) * 100 + 50, torch.randint(0, 2, (120,), generator=random)
    price = 2000 * area + 30_000 * colour + 2000 * torch.randn(120, generator=random)
    lines = [f"{a:.2f},{('red', 'blue')[c]}" for a, c in zip(area.tolist(), colour.tolist(), strict=True)]
    lines[3] = "NA,red"
    (tmp_path / "houses.csv").write_text("area,colour\n" + "\n".join(lines) + "\n")
    features = torch.stack(list(read_table(tmp_path / "houses.csv").values()), 1)
    known = {"features": features[:100], "target": price[:100, None]}  # the other 20 are to be answered
    moment = column_moments(**known)

    def experiment():
        model = adapt(build(linear_regression, in_features=features.shape[1]), rescale, **moment)
        task = build(Regression, model=model, targets=["SalePrice"], unit=moment["target_deviation"])
        return Experiment(task=task, train=TensorStream(known, 20, shuffle=True), epochs=40, optimizer=sgd(0.1))

    scores = []
    for number in range(5):
        training = Training(held_out(experiment(), number, 5), device="cpu", precision="fp32")
        list(training)
        scores.append(float(dict(evaluate(training, training.experiment.valid))["rmse"]))
    training = Training(experiment(), device="cpu", precision="fp32")
    list(training)
    answers = training.task.eval().predict({"features": features[100:]})
    write_table(tmp_path / "submission.csv", {"Id": range(101, 121), **answers})
    header, *rows = (tmp_path / "submission.csv").read_text().splitlines()
    assert header == "Id,SalePrice"
    assert [int(row.split(",")[0]) for row in rows] == list(range(101, 121))
    submitted = torch.tensor([float(row.split(",")[1]) for row in rows])
    error = (submitted - price[100:]).square().mean().sqrt().item()
    score = sum(scores) / 5
    assert 1500 < error < 3000  # the noise is 2000
    assert score < 12_000  # of one house the area is unknown

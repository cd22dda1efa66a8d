"""What a learning rate and its schedule do to learning, on digits."""

from statistics import mean

import pytest
import torch
from scenes import small_digits
from torch import nn

from thalweg.build import adapt, build
from thalweg.data.sources import digits
from thalweg.data.streams import TensorStream
from thalweg.figures import curves
from thalweg.inspection.range_test import range_test
from thalweg.layers.standardize import moments, standardize
from thalweg.models.classical.mlp import mlp
from thalweg.tasks.classification import Classification
from thalweg.training import Experiment, Task, Training, evaluate
from thalweg.training.optimisers import adam, sgd
from thalweg.training.recorder import read_metrics
from thalweg.training.run import run
from thalweg.training.schedules import constant, cyclical, on_plateau, one_cycle, scaled_rate, warmup


def perceptron(steps, lr, schedule=constant, *, batch_size=32) -> Training:
    """A perceptron reads digits, by plain gradient descent."""
    data = digits()
    model = adapt(build(mlp, in_features=64, out_features=10, hidden_dims=[64]), standardize,
                  **moments(data.train["image"]), size=(8, 8))  # fmt: skip
    task = build(Classification, model=model, classes=data.classes)
    made = Experiment(task=task, train=TensorStream(data.train, batch_size, shuffle=True), test=TensorStream(data.test, 360),
                      steps=steps, optimizer=sgd(lr), schedule=schedule)  # fmt: skip
    return Training(made, device="cpu", precision="fp32")


def curve(training) -> list[float]:
    return [step.losses[""].item() for step in training]


def accuracy(*arguments, **options) -> float:
    """On the test digits, the mean of five seeds."""
    measured = []
    for seed in range(5):
        torch.manual_seed(seed)
        curve(training := perceptron(*arguments, **options))
        measured.append(float(dict(evaluate(training, training.experiment.test))["accuracy"]))
    return mean(measured)


def test_a_small_rate_is_slow_a_good_one_learns_a_large_one_does_not():
    small, good, large = (curve(perceptron(100, lr)) for lr in (0.002, 0.3, 30.0))
    last = [mean(losses[-20:]) for losses in (small, good, large)]
    assert last[1] < 0.3 * last[0]
    assert last[0] < small[0]  # it goes down, slowly
    assert not last[2] < large[0]
    figure = curves({name: list(enumerate(losses)) for name, losses in zip("abc", (small, good, large), strict=True)}, log=True)
    assert len(figure.axes[0].lines) == 3


@pytest.mark.slow
def test_a_cyclical_rate_of_the_range_test_is_at_least_as_accurate_as_a_fixed_one():
    found = range_test(perceptron(1, 0.1))
    cycled = accuracy(320, 2 * found.suggestion, cyclical(4))
    assert all(cycled >= accuracy(320, lr) for lr in (found.suggestion / 3, found.suggestion, 2 * found.suggestion))


@pytest.mark.slow
def test_one_cycle_is_as_accurate_in_half_the_steps():
    """To half a percent; a fixed rate is not."""
    once = accuracy(160, 0.6, one_cycle(0.4))
    for lr in (0.1, 0.3, 1.0):
        assert once > accuracy(160, lr) + 0.005
        assert once > accuracy(320, lr) - 0.005


@pytest.mark.slow
def test_a_batch_four_times_as_large_needs_a_larger_rate():
    """Over as many examples."""
    small, same = accuracy(320, 0.03, batch_size=16), accuracy(80, 0.03, batch_size=64)
    scaled = accuracy(80, scaled_rate(0.03, 16, 64), batch_size=64)
    assert small - same > 0.02
    assert small - scaled < 0.25 * (small - same)


def test_accuracy_rises_when_the_rate_falls_on_a_plateau(tmp_path, monkeypatch):
    monkeypatch.setattr(Classification, "figures", lambda task, batch: {})
    made = small_digits(steps=400, train=1000, ema=None, dropout=0.0, optimizer=sgd(0.4, momentum=0.9), schedule=constant,
                        plateau=on_plateau(3), evaluate_every=20)  # fmt: skip
    run(Training(made, device="cpu", precision="fp32"), tmp_path, {}, progress=False)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    rate = {line["step"]: line["train/lr"] for line in lines if "train/lr" in line}
    accuracy = {line["step"]: line["valid/accuracy"] for line in lines if line["step"] and "valid/accuracy" in line}
    before = [value for step, value in accuracy.items() if rate[step] == pytest.approx(0.4)]
    after = [value for step, value in accuracy.items() if rate[step] == pytest.approx(0.04)]
    assert len(before) > 3
    assert mean(after) > mean(before[-4:]) + 0.03  # the plateau: three evaluations without a better one


class Sorting(Task):
    """A Transformer that normalises after each residual sum puts digits in order."""

    def __init__(self):
        super().__init__()
        self.embedding, self.position, self.head = nn.Embedding(10, 64), nn.Embedding(8, 64), nn.Linear(64, 10)
        block = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
        self.body = nn.TransformerEncoder(block, 6, enable_nested_tensor=False)

    def loss(self, batch):
        logits = self.head(self.body(self.embedding(batch["tokens"]) + self.position.weight))
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch["sorted"].flatten(), reduction="sum"), logits[
            ..., 0
        ].numel()


@pytest.mark.slow
def test_a_transformer_that_does_not_learn_at_a_rate_learns_when_it_is_warmed_up():
    tokens = torch.randint(0, 10, (2048, 8))
    examples = {"tokens": tokens, "sorted": tokens.sort(1).values}

    def last(schedule):
        torch.manual_seed(0)
        made = Experiment(task=Sorting(), train=TensorStream(examples, 64, shuffle=True), steps=200, optimizer=adam(0.01),
                          schedule=schedule)  # fmt: skip
        losses = [step.losses[""].item() for step in Training(made, device="cpu", precision="fp32")]
        return mean(losses[-20:])

    assert last(constant) > 2.1  # ln 10 = 2.3: it knows nothing
    assert last(warmup(0.5, constant)) < 0.5


def test_who_loops_can_change_the_rate_pause_and_go_on():
    made = small_digits(steps=12, schedule=constant, optimizer=sgd(0.1))
    training, rates, seen = Training(made, device="cpu"), [], []
    for step in training:
        rates.append(step.lr)
        seen.append(step.losses[""].item())  # whoever watches decides
        if step.number == 4:
            training.lr_scale = 0.5
        if step.number == 8:
            break  # a pause
    state = training.state_dict()
    training.lr_scale *= 0.2
    for step in training:
        rates.append(step.lr)
    assert rates == pytest.approx([0.1] * 4 + [0.05] * 4 + [0.01] * 4)
    assert len(seen) == 8
    other = Training(small_digits(steps=12, schedule=constant, optimizer=sgd(0.1)), device="cpu")
    other.load_state_dict(state)
    assert next(iter(other)).lr == pytest.approx(0.05)  # what was changed by hand is remembered

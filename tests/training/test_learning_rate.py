"""What a learning rate and its schedule do to learning, on some digits; means over three seeds."""

from statistics import mean

import pytest
import torch
from scenes import small_digits
from torch import nn

from thalweg.data.sources import digits
from thalweg.data.streams import TensorStream
from thalweg.figures import curves
from thalweg.inspection.range_test import range_test
from thalweg.tasks.classification import Classification
from thalweg.training import Experiment, Task, Training, evaluate
from thalweg.training.optimisers import adam, sgd
from thalweg.training.recorder import read_metrics
from thalweg.training.run import run
from thalweg.training.schedules import constant, cyclical, on_plateau, one_cycle, scaled_rate, warmup


def trained(steps, lr, schedule=constant, *, seed=0, batch_size=50):
    """Losses of the last 20 steps, accuracy on what was not trained on, and the curve."""
    torch.manual_seed(seed)
    made = small_digits(steps=steps, train=1000, ema=None, dropout=0.0, optimizer=sgd(lr, momentum=0.9), schedule=schedule)
    made.train.batch_size = batch_size
    training = Training(made, device="cpu", precision="fp32")
    losses = [step.losses[""].item() for step in training]
    accuracy = float(dict(evaluate(training, TensorStream(digits().test, 360)))["accuracy"])
    return mean(losses[-20:]), accuracy, losses


def means(*arguments, **options):
    results = [trained(*arguments, seed=seed, **options) for seed in range(3)]
    return mean(loss for loss, _, _ in results), mean(accuracy for _, accuracy, _ in results)


def test_a_small_rate_is_slow_a_good_one_learns_a_large_one_does_not(tmp_path):
    small, good, large = (trained(100, lr) for lr in (0.0005, 0.05, 3.0))
    assert good[0] < 0.5 * small[0] < small[0] < large[0]
    assert small[0] < 0.97 * small[2][0]  # it goes down, slowly
    assert good[1] > small[1] + 0.3
    assert good[1] > large[1] + 0.3
    lines = {name: list(enumerate(curve)) for name, (_, _, curve) in {"small": small, "good": good, "large": large}.items()}
    figure = curves(lines, ylabel="loss")
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["small", "good", "large"]


def test_a_cyclical_rate_of_the_range_test_is_at_least_as_accurate_as_a_fixed_one():
    found = range_test(Training(small_digits(train=1000, ema=None, dropout=0.0, optimizer=sgd(0.1, momentum=0.9)),
                                device="cpu", precision="fp32"))  # fmt: skip
    fixed = means(240, found.suggestion)
    cycled = means(240, 4 * found.suggestion, cyclical(3))  # up to between the suggestion and the minimum
    assert cycled[1] >= fixed[1]


def test_one_cycle_is_as_accurate_in_half_the_steps():
    assert means(120, 0.28, one_cycle(0.4))[1] >= means(240, 0.07)[1]


def test_a_batch_four_times_as_large_needs_a_larger_rate():
    """Over the same number of examples."""
    small = means(400, 0.005, batch_size=20)
    same = means(100, 0.005, batch_size=80)
    scaled = means(100, scaled_rate(0.005, 20, 80), batch_size=80)
    assert same[0] > 1.5 * small[0]
    assert scaled[0] < 1.2 * small[0]
    assert small[1] - scaled[1] < 0.5 * (small[1] - same[1])


def test_accuracy_rises_when_the_rate_falls_on_a_plateau(tmp_path, monkeypatch):
    monkeypatch.setattr(Classification, "figures", lambda task, batch: {})
    made = small_digits(steps=400, train=1000, ema=None, dropout=0.0, optimizer=sgd(0.4, momentum=0.9), schedule=constant,
                        plateau=on_plateau(3), evaluate_every=20)  # fmt: skip
    run(Training(made, device="cpu"), tmp_path, {}, progress=False)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    rate = {line["step"]: line["train/lr"] for line in lines if "train/lr" in line}
    accuracy = {line["step"]: line["valid/accuracy"] for line in lines if line["step"] and "valid/accuracy" in line}
    before = [value for step, value in accuracy.items() if rate[step] == pytest.approx(0.4)]
    after = [value for step, value in accuracy.items() if rate[step] == pytest.approx(0.04)]
    assert len(before) > 3
    assert min(after) > max(before)


class Sorting(Task):
    """A Transformer that normalises after each residual sum puts digits in order."""

    def __init__(self):
        super().__init__()
        self.embedding, self.position, self.head = nn.Embedding(10, 64), nn.Embedding(8, 64), nn.Linear(64, 10)
        block = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
        self.body = nn.TransformerEncoder(block, 6, enable_nested_tensor=False)

    def loss(self, batch):
        logits = self.head(self.body(self.embedding(batch["tokens"]) + self.position.weight))
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch["sorted"].flatten(), reduction="sum"), logits[..., 0].numel()


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

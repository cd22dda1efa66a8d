"""What LEE says of training ("Batch and Momentum", "New Optimizers"), measured on real data.

warm_up   Adam, a small GPT on plays, rates from the usual to ten times it: loss on held-out text with and without a rise
          over the first tenth of the steps, and how large the updates of the first ten steps are, as a share of the rate
batch     SGD with momentum, LeNet on 5,000 pictures of clothes until they are learned: batches of 32 and of 1,000, each
          at the rate of its own that does best on validation data: sharpness of the minimum and error on test data
"""

import json
import statistics

import compare  # noqa: F401 - declares what torchvision registers, which torchmetrics imports
import torch

from thalweg.data.streams import TensorStream
from thalweg.inspection.curvature import sharpness
from thalweg.recipes.race import optimizer_race
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import adam, sgd
from thalweg.training.schedules import constant, warmup

SEEDS = (0, 1, 2)


def trained(name: str, seed: int, optimizer, steps: int, *, batch_size: int, schedule=constant) -> tuple[Training, dict]:
    """A run of a course of the race, with what it measures: updates of the first ten steps, validation and test."""
    torch.manual_seed(seed)
    race = optimizer_race(course=name, batch_size=batch_size, epochs=1, rates=2)
    task = race.task.start.requires_grad_(True)
    experiment = Experiment(task=task, train=race.train, optimizer=optimizer, steps=steps, schedule=schedule)
    training = Training(experiment, device="cpu", precision="fp32")
    before, updates = [p.detach().clone() for p in task.parameters()], []
    for step in training:
        if step.number <= 10:
            moved = torch.cat([(p.detach() - b).abs().flatten() for p, b in zip(task.parameters(), before, strict=True)])
            before = [p.detach().clone() for p in task.parameters()]
            updates.append(float(moved.median() / step.lr) if step.lr else 0.0)
    measured = {part: dict(evaluate(training, stream)) for part, stream in (("valid", race.valid), ("test", race.test))}
    return training, {"updates": updates, **measured}


def middle(values) -> float:
    return round(float(statistics.median(map(float, values))), 4)


def warm_up() -> dict:
    found = {}
    for lr in (3e-3, 1e-2, 3e-2):
        for name, schedule in (("without", constant), ("with", warmup(0.1, constant))):
            runs = [trained("shakespeare", seed, adam(lr), 300, batch_size=32, schedule=schedule)[1] for seed in SEEDS]
            found[f"rate {lr:g} {name}"] = {
                "valid_loss": middle(run["valid"]["loss"] for run in runs),
                "updates_of_steps_2_to_10": [middle(run["updates"][step] for run in runs) for step in range(1, 10)],
            }
    return found


def batch() -> dict:
    found = {}
    for batch_size, steps in ((32, 4000), (1000, 600)):
        best = None
        for lr in (0.01, 0.03, 0.1):
            runs = [trained("fashion-mnist", seed, sgd(lr, momentum=0.9), steps, batch_size=batch_size) for seed in SEEDS]
            loss = statistics.median(float(run["valid"]["loss"]) for _, run in runs)
            if best is None or loss < best[0]:
                best = loss, lr, runs
        _, lr, runs = best
        found[f"batch {batch_size}"] = {
            "lr": lr,
            "steps": steps,
            "train_loss": middle(_loss(training) for training, _ in runs),
            "sharpness": middle(sharpness(_loss(training), list(training.task.parameters())) for training, _ in runs),
            "test_error": middle(1 - run["test"]["accuracy"] for _, run in runs),
            "gap": middle(run["test"]["loss"] - _loss(training).detach() for training, run in runs),
        }
    return found


def _loss(training: Training) -> torch.Tensor:
    """The mean loss on the first 2,000 training examples, with its graph."""
    task, tensors = training.task.eval(), training.experiment.train.tensors
    total, count = task.loss(next(iter(TensorStream({name: t[:2000] for name, t in tensors.items()}, 2000))))
    return total / count


if __name__ == "__main__":
    print(json.dumps({
        "what": "claims about training; the middle of three seeds",
        "warm_up": warm_up(), "batch": batch(),
    }))  # fmt: skip

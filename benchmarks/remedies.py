"""Remedies against overfitting (LEE: Overfitting, D2L 4), each by itself: LeNet on 500 pictures of clothes, 400 steps of AdamW.

train_loss, test_loss, test_error: the middle of three seeds; nothing was tuned.
"""

import json
import statistics

import compare  # noqa: F401 - declares what torchvision registers, which torchmetrics imports
import torch

from thalweg.build import adapt, build
from thalweg.data.augmentation import flip, shift
from thalweg.data.sources import fashion_mnist
from thalweg.data.streams import TensorStream
from thalweg.layers.standardize import moments, standardize
from thalweg.models.vision.lenet import lenet
from thalweg.tasks.classification import Classification
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import adamw

REMEDIES: dict[str, dict] = {
    "none": {},
    "four times the data": {"examples": 2000},
    "augmentation": {"augment": (flip(), shift(2))},
    "fewer parameters": {"channels": (4, 8), "hidden_dim": 16},
    "fewer features": {"size": 14},
    "early stopping": {"stop": True},
    "weight decay": {"weight_decay": 1.0},
    "dropout": {"dropout": 0.5},
    "too few parameters": {"channels": (1, 1), "hidden_dim": 4},
}


def run(splits, seed: int, *, examples: int = 500, augment=(), channels=(32, 64), hidden_dim=128, dropout=0.0, size=28,
        weight_decay=0.0, stop=False) -> dict:  # fmt: skip
    """The loss on what was learned, and what the test data say; with `stop` of the weights that validation likes best."""
    torch.manual_seed(seed)
    train = {name: part[:examples] for name, part in splits.train.items()}
    network = build(lenet, image_size=size, channels=channels, hidden_dim=hidden_dim, dropout=dropout)
    model = adapt(network, standardize, **moments(train["image"]), size=[size, size])
    task = build(Classification, model=model, classes=splits.classes)
    valid = TensorStream({name: part[:1000] for name, part in splits.valid.items()}, 500)
    stream = TensorStream(train, 50, shuffle=True, augment=augment)
    training = Training(
        Experiment(task=task, train=stream, optimizer=adamw(2e-3, weight_decay=weight_decay), steps=400),
        device="cpu", precision="fp32",
    )  # fmt: skip
    best, test = float("inf"), {}
    for step in training:
        last = step.number == 400
        if last or (stop and step.number % 20 == 0):
            loss = float(dict(evaluate(training, valid))["loss"])
            if loss < best or not stop:
                best, test = loss, dict(evaluate(training, TensorStream(splits.test, 500)))
    learned = dict(evaluate(training, TensorStream(train, 500)))["loss"]
    return {"train_loss": learned, "test_loss": test["loss"], "test_error": 1 - test["accuracy"]}


def main() -> None:
    torch.set_num_threads(1)
    splits, found = fashion_mnist(), {}
    for name, change in REMEDIES.items():
        runs = [run(splits, seed, **change) for seed in range(3)]
        found[name] = {f"{part}_{what}": round(float(statistics.median(float(one[f"{part}_{what}"]) for one in runs)), 4)
                       for part, what in (("train", "loss"), ("test", "loss"), ("test", "error"))}  # fmt: skip
    print(json.dumps({"what": "remedies against overfitting; the middle of three seeds", **found}))


if __name__ == "__main__":
    main()

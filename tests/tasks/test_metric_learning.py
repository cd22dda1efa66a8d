"""Metric learning: the loss is the ranking of distances; a distance learned on some classes serves for others."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from thalweg.build import adapt, build, load, save
from thalweg.data.sources import digits
from thalweg.data.streams import of_classes
from thalweg.data.views import side_by_side
from thalweg.layers.standardize import moments, standardize
from thalweg.metrics import NearestNeighbours, Verification
from thalweg.models.classical.mlp import mlp
from thalweg.tasks.metric_learning import MetricLearning
from thalweg.training import Experiment, Training
from thalweg.training.loop import evaluate
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import cosine, warmup


@pytest.fixture
def batch():
    return {"image": torch.randn(6, 1, 2, 3, dtype=torch.float64), "label": torch.tensor([0, 1, 0, 2, 1, 0])}


def test_the_loss_ranks_distances_between_vectors_of_length_one(batch):
    task = MetricLearning(nn.Sequential(nn.Flatten(), nn.Linear(6, 4).double()), margin=0.7)
    z = [row.float() for row in task.encoder(batch["image"])]
    z, label = [v / v.norm() for v in z], batch["label"]
    triplets = [
        (0.7 + (z[a] - z[b]).norm() - (z[a] - z[c]).norm()).clamp(min=0)
        for a in range(6) for b in range(6) for c in range(6)
        if a != b and label[a] == label[b] != label[c]
    ]  # fmt: skip
    total, count = task.loss(batch)
    assert count == len(triplets)
    torch.testing.assert_close(total, sum(triplets))
    task.evaluate(batch)
    torch.testing.assert_close(task.metrics["loss"].compute(), (total / count).detach())


def test_a_batch_of_one_class_ranks_nothing(batch):
    task = MetricLearning(nn.Sequential(nn.Flatten(), nn.Linear(6, 4).double()))
    batch["label"].zero_()
    assert task.loss(batch) == (0, 0)


def numbers():
    """Two-digit numbers, each image beside four others: 80 numbers to learn from, 20 to be asked about."""
    many = [side_by_side(digits(), seed) for seed in range(4)]
    train, test = (
        {n: torch.cat([getattr(s, part)[n] for s in many]) for n in ("image", "label")} for part in ("train", "test")
    )
    unseen = [n for n in range(100) if (n // 10 + n % 10) % 5 == 0]
    learned = of_classes(train, [n for n in range(100) if n not in unseen])
    return replace(many[0], train=learned, test=of_classes(test, unseen))


def test_numbers_never_seen_are_told_apart_by_a_distance_that_was_learned_on_others(tmp_path):
    splits = numbers()
    assert not set(splits.train["label"].tolist()) & set(splits.test["label"].tolist())
    pixels = {"verification": Verification(), "nearest_neighbours": NearestNeighbours()}
    for name, metric in pixels.items():
        metric.update(splits.test["image"].flatten(1).float(), splits.test["label"])
        pixels[name] = float(metric.compute())
    encoder = build(mlp, in_features=128, out_features=64, hidden_dims=[256])
    encoder = adapt(encoder, standardize, **moments(splits.train["image"]), size=[8, 16])
    task = build(MetricLearning, encoder=encoder, classes=splits.classes, margin=0.2)
    streams = splits.streams(256)
    training = Training(Experiment(task=task, train=streams.train, steps=120, optimizer=adamw(3e-3, weight_decay=1e-4),
                                   schedule=warmup(0.1, cosine())), precision="fp32")  # fmt: skip
    for _ in training:
        pass
    learned = {name: float(value) for name, value in evaluate(training, streams.test)}
    assert learned["verification"] > 0.98 > pixels["verification"] + 0.03
    assert learned["nearest_neighbours"] > pixels["nearest_neighbours"] + 0.05
    batch = {"image": splits.test["image"][:100], "label": splits.test["label"][:100]}
    drawn = task.eval().figures(batch)
    assert {name: len(figure.axes) for name, figure in drawn.items()} == {"map of the features": 1, "nearest neighbours": 64}
    save(task, tmp_path)
    features = load(tmp_path).predict(batch)["features"]
    torch.testing.assert_close(features, task.predict(batch)["features"])
    torch.testing.assert_close(features.norm(dim=1), torch.ones(100))

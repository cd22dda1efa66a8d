"""Small tasks on which the loop is tested: quick, in float64 where a formula is compared, with everything that is random."""

import torch
from torch import nn
from torchmetrics import MetricCollection

from thalweg.build import adapt, build
from thalweg.data.augmentation import rotate, shift
from thalweg.data.sources import digits
from thalweg.data.streams import Splits, TensorStream, take
from thalweg.layers.standardize import moments, standardize
from thalweg.metrics import MeanLoss
from thalweg.models.vision.lenet import lenet
from thalweg.tasks.classification import Classification
from thalweg.training import Experiment, Task
from thalweg.training.optimisers import sgd
from thalweg.training.schedules import cosine, warmup


class Fit(Task):
    """Half the squared error where the mask is 1; its count is the sum of the mask."""

    def __init__(self, features=3, hidden=0):
        super().__init__()
        self.model = (
            nn.Sequential(nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, 1)) if hidden else nn.Linear(features, 1)
        )
        self.metrics = MetricCollection({"loss": MeanLoss()})

    def terms(self, batch):
        return batch["mask"] * (self.model(batch["features"]).squeeze(1) - batch["target"]) ** 2 / 2

    def loss(self, batch):
        return self.terms(batch).sum(), batch["mask"].sum()

    def evaluate(self, batch):
        self.metrics["loss"].update(self.terms(batch))


class Game(Task):
    """Two players in turn; `seen` is what ran when, and what the weights were then."""

    def __init__(self):
        super().__init__()
        self.critic, self.maker = nn.Linear(3, 1), nn.Linear(3, 3)
        self.seen = []

    def losses(self, batch):
        made = self.maker(batch["features"])
        self.seen.append(("before critic", self.critic.weight.detach().clone()))
        yield self.critic, self.critic(made).sum() + self.critic(batch["features"]).pow(2).sum(), len(made)
        self.seen.append(("after critic", self.critic.weight.detach().clone()))
        made = self.maker(batch["features"])
        yield self.maker, self.critic(made).pow(2).sum(), len(made)
        self.seen.append(("after maker", self.maker.weight.detach().clone()))


def points(count=24, seed=0, dtype=torch.float64):
    """Rows of features, a target that a plane does not reach, and a mask that is uneven."""
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 3, generator=random, dtype=dtype)
    mask = (torch.rand(count, generator=random) < 0.6).to(dtype)
    mask[0] = 1
    return {"features": features, "target": features.sin().sum(1), "mask": mask}


def stream(batch_size, count=24, **options):
    return TensorStream(points(count, **options), batch_size)


def small_digits(*, steps=12, train=200, ema=0.9, dropout=0.3, **options):
    """A small LeNet on some digits with all that is random: shuffling, augmentation, dropout; and all that lasts: momentum,
    running statistics, an average of the weights."""
    splits = digits()
    splits = Splits(*(take(part, torch.arange(count)) for part, count in
                      ((splits.train, train), (splits.valid, 60), (splits.test, 60))), splits.classes)  # fmt: skip
    model = build(lenet, image_size=8, channels=(4, 8), hidden_dim=16, dropout=dropout)
    model = adapt(model, standardize, **moments(splits.train["image"]), size=(8, 8))
    task = build(Classification, model=model, classes=splits.classes)
    data = splits.streams(50, augment=[rotate(10, zoom=0.1), shift(1)])
    options = {"optimizer": sgd(0.1, momentum=0.9, weight_decay=1e-3), "schedule": warmup(0.1, cosine()), "monitor": "loss",
               "evaluate_every": 4, "ema": ema, **options}  # fmt: skip
    return Experiment(task=task, train=data.train, valid=data.valid, test=data.test, steps=steps, **options)

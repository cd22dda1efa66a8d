"""Recipes whose answers are places in the question."""

from thalweg.build import build
from thalweg.data.geometry import hulls
from thalweg.data.streams import TensorStream
from thalweg.models.sequence.pointer import PointerNetwork
from thalweg.tasks.pointing import Pointing
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import linear, warmup


def pointer_hull(*, points: int = 10, test_points: int = 15, examples: int = 50_000, epochs: float = 20, batch_size: int = 128,
                 hidden_dim: int = 192, lr: float = 3e-3) -> Experiment:  # fmt: skip
    """A pointer network finds convex hulls of 5 to 10 points, and then those of more than it ever saw.   LEE: Pointer Network

    points: the most that it learns from.   test_points: how many it is tested on.
    """
    train, valid, test = hulls(examples, 5, points, 1), hulls(1000, 5, points, 2), hulls(1000, test_points, test_points, 3)
    task = build(Pointing, model=build(PointerNetwork, hidden_dim=hidden_dim))
    return Experiment(task=task, train=TensorStream(train, batch_size, shuffle=True), valid=TensorStream(valid, 250),
                      test=TensorStream(test, 250), epochs=epochs, optimizer=adamw(lr, weight_decay=1e-3),
                      schedule=warmup(0.05, linear()), clip=1.0, monitor="whole")  # fmt: skip

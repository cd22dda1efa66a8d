"""What two processes do together for test_distribution.py: each function runs in both, and in one, and tells what it saw."""

import os
import warnings
from pathlib import Path

import torch
from scenes import Fit, Game, points, stream
from torch import nn

from thalweg.build import adapt, build, load
from thalweg.data.sources import digits
from thalweg.data.streams import TensorStream, take
from thalweg.layers.standardize import moments, standardize
from thalweg.models.classical.mlp import mlp
from thalweg.models.vision.lenet import lenet5
from thalweg.tasks.classification import Classification
from thalweg.training import Experiment, Task, Training, distribution, evaluate
from thalweg.training.optimisers import adamw, centralised, gradient_noise, lamb, lookahead, sgd, swats
from thalweg.training.run import run
from thalweg.training.schedules import cosine


def member(rank, port, jobs, folder):
    """One of two processes: does the jobs (function, arguments) with the other, and leaves what they returned in a file."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.save([job(*arguments) for job, arguments in jobs], folder / f"{rank}.pt")
    distribution.stop()


def told(task, steps):
    """Losses, norms and whole weights, as numbers."""
    return {
        "losses": [{player: float(loss) for player, loss in step.losses.items()} for step in steps],
        "norms": [{player: float(norm) for player, norm in step.gradient_norms.items()} for step in steps],
        "weights": {name: distribution.whole(value).clone() for name, value in task.state_dict().items()},
    }


def digits_experiment(*, model=None, size=8, batch_size=31, steps=30, ema=None, **options):
    """A network on digits, in uneven batches; no unit of it sees who else is in the batch."""
    torch.manual_seed(0)
    splits = digits()
    model = model or build(mlp, in_features=64, out_features=10, hidden_dims=[24, 24])
    model = adapt(model, standardize, **moments(splits.train["image"]), size=(size, size))
    task = build(Classification, model=model, classes=splits.classes)
    return Experiment(
        task=task,
        train=TensorStream(splits.train, batch_size, shuffle=True),
        valid=TensorStream(take(splits.valid, torch.arange(77)), 19),
        test=TensorStream(take(splits.test, torch.arange(101)), 50),
        steps=steps,
        **{"optimizer": adamw(2e-3, weight_decay=0.05), "schedule": cosine(), "evaluate_every": 10, "ema": ema, **options},
    )


def trained(experiment, parallel):
    training = Training(experiment, device="cpu", precision="fp32", parallel=parallel)
    return told(training.evaluated, list(training))


def lenet_5(parallel):
    torch.manual_seed(0)
    return trained(digits_experiment(model=build(lenet5), size=28), parallel)


def clipped_and_accumulated(parallel):
    return trained(digits_experiment(steps=12, batch_size=13, accumulate=3, clip=0.5), parallel)


def averaged(parallel):
    return trained(digits_experiment(steps=12, ema=0.9, optimizer=sgd(0.05, momentum=0.9)), parallel)


def stacked(parallel):
    """Optimisers of ours: lengths of whole layers, means of whole rows, slow weights, the same noise everywhere."""
    optimizer = gradient_noise(lookahead(centralised(lamb(5e-3)), k=3), eta=1e-4)
    return trained(digits_experiment(steps=12, optimizer=optimizer), parallel)


def switching(parallel):
    """The products that decide when to switch are of all weights."""
    return trained(digits_experiment(steps=12, optimizer=swats(5e-3, tolerance=1.0)), parallel)


def game(parallel):
    """Two players on uneven batches of 5."""
    torch.manual_seed(0)
    optimizer = {"critic": sgd(0.05, momentum=0.9), "maker": adamw(0.01)}
    train = stream(5, count=24, dtype=torch.float32)
    return trained(Experiment(task=Game(), train=train, steps=20, optimizer=optimizer, clip=1.0), parallel)


def masked(parallel):
    """A count that is a tensor and differs between the processes; the last batch of a pass is of one example."""
    torch.manual_seed(0)
    train = TensorStream(points(25, dtype=torch.float32), 6)
    return trained(Experiment(task=Fit(hidden=7), train=train, steps=20, optimizer=adamw(0.02)), parallel)


class Experts(Fit):
    """Each example is seen by one of two layers: a process may meet none for one of them."""

    def __init__(self):
        super().__init__()
        self.model = nn.ModuleList([nn.Linear(3, 1), nn.Linear(3, 1), nn.Linear(3, 1)])

    def loss(self, batch):
        chosen = (batch["features"][:, 0] > 0).long()
        answer = torch.zeros_like(batch["target"])
        for number in chosen.unique().tolist():  # the third is never chosen
            seen = chosen == number
            answer = answer.masked_scatter(seen, self.model[number](batch["features"][seen]).squeeze(1))
        return ((answer - batch["target"]) ** 2).sum(), len(answer)


def experts(parallel):
    torch.manual_seed(0)
    train = TensorStream(points(24, dtype=torch.float32), 2)
    return trained(Experiment(task=Experts(), train=train, steps=20, optimizer=adamw(0.02, weight_decay=0.1)), parallel)


class Follower(Task):
    """A target that follows the learner, after each step."""

    def __init__(self):
        super().__init__()
        self.online, self.target = nn.Linear(3, 2), nn.Linear(3, 2)
        self.target.requires_grad_(False)

    def losses(self, batch):
        x = batch["features"]
        yield self.online, (self.online(x) - self.target(2 * x)).pow(2).sum(), len(x)
        with torch.no_grad():
            for ours, theirs in zip(self.target.parameters(), self.online.parameters(), strict=True):
                ours.lerp_(theirs, 0.1)


def follower(parallel):
    torch.manual_seed(0)
    train = stream(5, dtype=torch.float32)
    return trained(Experiment(task=Follower(), train=train, steps=12, optimizer=sgd(0.05)), parallel)


def evaluated(parallel):
    """Metrics over batches that do not divide, before and after a few steps; training goes on unharmed."""
    experiment = digits_experiment(steps=6)
    training = Training(experiment, device="cpu", precision="fp32", parallel=parallel)
    before = dict(evaluate(training, experiment.test))
    steps = list(training)
    after = dict(evaluate(training, experiment.test))
    return {"before": before, "after": after, **told(training.task, steps)}


def whole_run(folder, parallel, **options):
    """A run with its folder: what its facts say, and what it predicts."""
    warnings.simplefilter("ignore")
    drawn, Classification.figures = Classification.figures, lambda task, batch: {}
    folder = Path(folder)
    experiment = digits_experiment(steps=20, monitor="accuracy", **options)
    training = Training(experiment, device="cpu", precision="fp32", parallel=parallel)
    facts = run(training, folder, {}, checkpoint_every=7, progress=False)
    Classification.figures = drawn
    kept = load(folder / "model")
    return {"metrics": facts.get("metrics"), "logits": kept.model(next(iter(experiment.test))["image"]).detach()}


class Noisy(Fit):
    """With dropout and running statistics: what follows depends on what is each process's own."""

    def __init__(self):
        super().__init__(hidden=16)
        self.model.insert(2, nn.Sequential(nn.BatchNorm1d(16), nn.Dropout(0.5)))


def noisy_experiment(*, steps, ema):
    torch.manual_seed(0)
    train = TensorStream(points(25, dtype=torch.float32), 6)
    return Experiment(task=Noisy(), train=train, steps=steps, optimizer=sgd(0.1, momentum=0.9), ema=ema)


def saved(folder, experiment, parallel):
    """A run that leaves a checkpoint on its way, and what comes after it."""
    training = Training(experiment(steps=12, ema=0.9), device="cpu", precision="fp32", parallel=parallel)
    steps = []
    for step in training:
        if step.number == 5:
            training.save(Path(folder))
        elif step.number > 5:
            steps.append(step)
    return told(training.evaluated, steps)


def restored(folder, experiment, parallel):
    training = Training(experiment(steps=12, ema=0.9), device="cpu", precision="fp32", parallel=parallel)
    training.restore(Path(folder))
    assert training.number == 5
    return told(training.evaluated, list(training))


def names(parallel):
    return list(Training(digits_experiment(ema=0.9), device="cpu", parallel=parallel).evaluated.state_dict())


def refused(parallel):
    """What cannot be done by many processes is said."""

    class Owner(Fit):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

    words = []
    for task, batch in [
        (Owner(), points()),
        (Fit(), points() | {"edges": torch.zeros(2, 7)}),
        (Fit(), {"scale": torch.ones(())}),
    ]:
        try:
            Training(Experiment(task=task, train=stream(5), steps=1, optimizer=sgd(0.1)), parallel=parallel).place(batch)
        except ValueError as error:
            words.append(str(error))
    return words


def threads(parallel):
    return {"threads": torch.get_num_threads(), "agreed": distribution.agreed(os.getpid()), "rank": distribution.rank(),
            "anywhere": [distribution.anywhere(distribution.rank() == 1), distribution.anywhere(False)]}  # fmt: skip

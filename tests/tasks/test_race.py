"""The race of optimisers: fair, and told by the rate that validation data choose."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from thalweg.data.streams import TensorStream
from thalweg.tasks.classification import Classification
from thalweg.tasks.race import SURFACES, AtBestRate, Race, heights
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import Together, sgd

EXAMPLES = {"image": torch.randn(40, 1, 2, 2), "label": torch.randint(0, 3, (40,))}
RATES = (0.1, 0.2)


def network() -> Classification:
    return Classification(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), classes=("a", "b", "c"))


def at(rates, *, of_points=RATES):
    return lambda racer: Together(
        *(sgd(lr)(part) for part, lr in zip(racer.networks, rates, strict=True)),
        *(sgd(lr)(points) for points, lr in zip(racer.points, of_points, strict=True)),
    )


def raced(task, steps=12, **rates):
    race = Race(task, racers=list(rates), rates=2, steps=steps)
    stream = TensorStream(EXAMPLES, 10, shuffle=True)
    optimizer = {f"racers.{name}": optimizer for name, optimizer in rates.items()}
    training = Training(Experiment(task=race, train=stream, optimizer=optimizer, steps=steps), device="cpu", precision="fp32")
    for _ in training:
        pass
    return training


def test_a_racer_learns_as_if_it_were_alone():
    task = network()
    race = raced(deepcopy(task), first=at((0.3, 0.1)), second=at((0.2, 0.1))).task
    alone = Experiment(task=task, train=TensorStream(EXAMPLES, 10, shuffle=True), optimizer=sgd(0.2), steps=12)
    losses = [step.losses[""] for step in Training(alone, device="cpu", precision="fp32")]
    assert_close(race.curve[1, 0], torch.stack(losses))
    assert_close(race.racers["second"].networks[0].state_dict(), task.state_dict())


def test_the_points_go_down_their_surfaces():
    race = raced(network(), first=at(RATES)).task
    for index, name in enumerate(SURFACES):
        if name == "noisy bowl":
            continue
        place = torch.tensor(SURFACES[name].start, requires_grad=True)
        for step in range(12):
            slope = torch.autograd.grad(SURFACES[name].height(*place), place)[0]
            place = (place - 0.2 * slope).detach().requires_grad_()
            assert_close(race.trail[0, 1, index, step], place.detach())


def test_the_noisy_bowl_is_right_on_average_and_noisy():
    places = torch.tensor([1.0, -1.0]).expand(4000, len(SURFACES), 2)
    noisy = heights(places)[-1]
    exact = SURFACES["noisy bowl"].height(*places[0, -1])
    assert noisy.mean() == pytest.approx(float(exact), abs=0.2)
    assert noisy.std() == pytest.approx(2 * 2**0.5, rel=0.1)


def test_what_is_thrown_far_off_begins_again_and_disturbs_nothing_else():
    task = network()
    wild = raced(deepcopy(task), first=at((1e9, 0.1), of_points=(1e9, 0.1))).task
    calm = raced(deepcopy(task), first=at((0.1, 0.1))).task
    assert_close(wild.racers["first"].networks[0].state_dict(), task.state_dict())
    assert_close(wild.trail[0, 0, 0, -1], torch.tensor(SURFACES["Rosenbrock"].start))
    assert_close(wild.curve[0, 1], calm.curve[0, 1])
    assert wild.curve.isfinite().all()


def test_the_rate_is_chosen_by_the_data_to_choose_by_and_by_no_others():
    metric = AtBestRate(3)
    metric.update(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([4.0, 8.0, 6.0]), 2, choosing=True)
    assert metric.compute() == 4
    metric.reset()
    metric.update(torch.tensor([0.0, 9.0, 9.0]), torch.tensor([1.0, 5.0, 1.0]), 5, choosing=False)
    assert metric.compute() == 1


def test_a_racer_is_told_by_its_loss_and_by_its_gap_to_training():
    training = raced(network(), first=at((0.3, 0.1)))
    valid = TensorStream(EXAMPLES, 40, augment=[lambda batch, random: {**batch, "choose": torch.ones(1)}])
    measured = dict(evaluate(training, valid))
    losses = [network.loss(EXAMPLES)[0].item() / 40 for network in training.task.racers["first"].networks]
    assert measured["first"] == pytest.approx(min(losses), rel=1e-5)
    best = losses.index(min(losses))
    learned = training.task.curve[0, best, -1].item()
    assert measured["first_gap"] == pytest.approx(losses[best] - learned, abs=1e-5)
    assert measured["first_slowness"] == pytest.approx(training.task.curve[0, best].mean().item(), abs=1e-6)
    assert set(training.task.figures({})) == {"loss in training", "evaluated", *SURFACES}


def test_a_race_that_goes_on_beyond_its_steps_says_so():
    race = Race(network(), racers=["first"], rates=2, steps=1)
    experiment = Experiment(task=race, train=TensorStream(EXAMPLES, 10), optimizer={"racers.first": at(RATES)}, steps=2)
    with pytest.raises(ValueError, match="steps=1: the race was built for so many"):
        list(Training(experiment, device="cpu"))

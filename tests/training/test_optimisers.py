"""Optimisers against their formulas, number by number, and what holds for all of them: decay, resuming, refusals."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from scenes import small_digits
from torch import nn

from thalweg.models.vision.lenet import lenet
from thalweg.training import Training, evaluate
from thalweg.training.optimisers import (
    OPTIMISERS,
    adabound,
    adadelta,
    adafactor,
    adagrad,
    adam,
    adamax,
    adamw,
    blocks,
    decayed,
    discriminative_adamw,
    lamb,
    lars,
    nadam,
    radam,
    rmsprop,
    sgd,
    sgdw,
    swats,
    yogi,
)
from thalweg.training.schedules import constant

STEPS = 14
LR = 0.1
BETAS = (0.8, 0.95)
DECAY = 0.3


# Formulas: from the first number and all gradients, the number after each step; l is the decay of this number.


def momentum_formula(w, gs, l, nesterov=False):
    v = 0.0
    for g in gs:
        g = g + l * w
        v = 0.9 * v + g
        w = w - LR * (g + 0.9 * v if nesterov else v)
        yield w


def nesterov_formula(w, gs, l):
    return momentum_formula(w, gs, l, nesterov=True)


def sgdw_formula(w, gs, l, nesterov=False):
    v = 0.0
    for g in gs:
        v = 0.9 * v + g
        w = w - LR * l * w - LR * (g + 0.9 * v if nesterov else v)
        yield w


def nesterov_sgdw_formula(w, gs, l):
    return sgdw_formula(w, gs, l, nesterov=True)


def adagrad_formula(w, gs, l):
    s = 0.0
    for g in gs:
        g = g + l * w
        s += g * g
        w = w - LR * g / (math.sqrt(s) + 1e-10)
        yield w


def rmsprop_formula(w, gs, l):
    s = v = 0.0
    for g in gs:
        g = g + l * w
        s = 0.95 * s + 0.05 * g * g
        v = 0.5 * v + g / (math.sqrt(s) + 1e-8)
        w = w - LR * v
        yield w


def adadelta_formula(w, gs, l):
    s = d = 0.0
    for g in gs:
        g = g + l * w
        s = 0.9 * s + 0.1 * g * g
        c = math.sqrt(d + 1e-6) / math.sqrt(s + 1e-6) * g
        d = 0.9 * d + 0.1 * c * c
        w = w - c
        yield w


def adam_formula(w, gs, l, amsgrad=False):
    m = v = largest = 0.0
    for t, g in enumerate(gs, 1):
        w = w - LR * l * w
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
        largest = max(largest, v) if amsgrad else v
        w = w - LR * (m / (1 - 0.8**t)) / (math.sqrt(largest / (1 - 0.95**t)) + 1e-8)
        yield w


def amsgrad_formula(w, gs, l):
    return adam_formula(w, gs, 0.0, amsgrad=True)


def adamax_formula(w, gs, l):
    m = u = 0.0
    for t, g in enumerate(gs, 1):
        g = g + l * w
        m, u = 0.8 * m + 0.2 * g, max(0.95 * u, abs(g) + 1e-8)
        w = w - LR * m / (1 - 0.8**t) / u
        yield w


def nadam_formula(w, gs, l):
    m, v, product = 0.0, 0.0, 1.0
    for t, g in enumerate(gs, 1):
        w = w - LR * l * w
        now, after = (0.8 * (1 - 0.96 ** (s * 4e-3) / 2) for s in (t, t + 1))
        product *= now
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
        ahead = after * m / (1 - product * after) + (1 - now) * g / (1 - product)
        w = w - LR * ahead / (math.sqrt(v / (1 - 0.95**t)) + 1e-8)
        yield w


def radam_formula(w, gs, l):
    m = v = 0.0
    n = 2 / (1 - 0.95) - 1
    for t, g in enumerate(gs, 1):
        w = w - LR * l * w
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
        known = n - 2 * t * 0.95**t / (1 - 0.95**t)
        step = m / (1 - 0.8**t)
        if known > 5:
            step *= math.sqrt((known - 4) * (known - 2) * n / ((n - 4) * (n - 2) * known))
            step *= math.sqrt(1 - 0.95**t) / (math.sqrt(v) + 1e-8)
        w = w - LR * step
        yield w


def yogi_formula(w, gs, l):
    m = v = 0.0
    for t, g in enumerate(gs, 1):
        w = w - LR * l * w
        m = 0.8 * m + 0.2 * g
        v = v + 0.05 * ((g * g > v) - (g * g < v)) * g * g
        w = w - LR * (m / (1 - 0.8**t)) / (math.sqrt(v / (1 - 0.95**t)) + 1e-3)
        yield w


def adabound_formula(w, gs, l, amsbound=False):
    m = v = largest = 0.0
    for t, g in enumerate(gs, 1):
        w = w - LR * l * w
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
        largest = max(largest, v) if amsbound else v
        rate = LR * math.sqrt(1 - 0.95**t) / (1 - 0.8**t) / (math.sqrt(largest) + 1e-8)
        lower, upper = 0.03 * (1 - 1 / (0.2 * t + 1)), 0.03 * (1 + 1 / (0.2 * t))
        w = w - min(max(rate, lower), upper) * m
        yield w


def amsbound_formula(w, gs, l):
    return adabound_formula(w, gs, l, amsbound=True)


# Where a layer is scaled as a whole, w and the gradients are tensors.


def lars_formula(w, gs, l):
    v = torch.zeros_like(w)
    for g in gs:
        g = g + l * w
        if w.ndim >= 2:
            g = g * 0.01 * w.norm() / ((g - l * w).norm() + l * w.norm())
        v = 0.9 * v + LR * g
        w = w - v
        yield w


def lamb_formula(w, gs, l):
    m = v = torch.zeros_like(w)
    for t, g in enumerate(gs, 1):
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
        u = (m / (1 - 0.8**t)) / ((v / (1 - 0.95**t)).sqrt() + 1e-6) + l * w
        w = w - LR * (w.norm() / u.norm() if w.ndim >= 2 else 1) * u
        yield w


def adafactor_formula(w, gs, l):
    rows = columns = 0.0
    for t, g in enumerate(gs, 1):
        size = max(1e-3, w.square().mean().sqrt())
        w = w - LR * l * w
        forgotten = t**-0.8
        if w.ndim >= 2:
            rows = (1 - forgotten) * rows + forgotten * g.square().mean(-1, keepdim=True)
            columns = (1 - forgotten) * columns + forgotten * g.square().mean(-2, keepdim=True)
            v = rows * columns / rows.mean(-2, keepdim=True)
        else:
            v = rows = (1 - forgotten) * rows + forgotten * g.square()
        u = g / v.sqrt()
        w = w - min(LR, 1 / math.sqrt(t)) * size * u / max(1, u.square().mean().sqrt())
        yield w


CASES = {
    "momentum": (sgd(LR, momentum=0.9, weight_decay=DECAY), momentum_formula),
    "nesterov": (sgd(LR, momentum=0.9, nesterov=True, weight_decay=DECAY), nesterov_formula),
    "sgdw": (sgdw(LR, weight_decay=DECAY), sgdw_formula),
    "sgdw-nesterov": (sgdw(LR, nesterov=True, weight_decay=DECAY), nesterov_sgdw_formula),
    "adagrad": (adagrad(LR, weight_decay=DECAY), adagrad_formula),
    "rmsprop": (rmsprop(LR, alpha=0.95, momentum=0.5, weight_decay=DECAY), rmsprop_formula),
    "adadelta": (adadelta(weight_decay=DECAY), adadelta_formula),
    "adafactor": (adafactor(LR, weight_decay=DECAY), adafactor_formula),
    "adam": (adam(LR, betas=BETAS), lambda w, gs, l: adam_formula(w, gs, 0.0)),
    "amsgrad": (adam(LR, betas=BETAS, amsgrad=True), amsgrad_formula),
    "adamw": (adamw(LR, betas=BETAS, weight_decay=DECAY), adam_formula),
    "adamax": (adamax(LR, betas=BETAS, weight_decay=DECAY), adamax_formula),
    "nadam": (nadam(LR, betas=BETAS, weight_decay=DECAY), nadam_formula),
    "radam": (radam(LR, betas=BETAS, weight_decay=DECAY), radam_formula),
    "yogi": (yogi(LR, betas=BETAS, weight_decay=DECAY), yogi_formula),
    "adabound": (adabound(LR, final_lr=0.03, gamma=0.2, betas=BETAS, weight_decay=DECAY), adabound_formula),
    "amsbound": (
        adabound(LR, final_lr=0.03, gamma=0.2, betas=BETAS, weight_decay=DECAY, amsbound=True),
        amsbound_formula,
    ),
    "lars": (lars(LR, trust=0.01, weight_decay=DECAY), lars_formula),
    "lamb": (lamb(LR, betas=BETAS, weight_decay=DECAY), lamb_formula),
}


TOLERANCE = {"nadam": {"rtol": 1e-6, "atol": 1e-7}}  # torch keeps its product of the b_t in float32


class Net(nn.Module):
    """A matrix, a filter, vectors and a scalar, in float64."""

    def __init__(self):
        super().__init__()
        self.linear, self.conv, self.norm = nn.Linear(3, 2), nn.Conv2d(2, 3, 2), nn.LayerNorm(4)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.double()
        for p in self.parameters():
            nn.init.normal_(p)


def gradients(module, steps=STEPS, seed=0):
    """For each step a gradient for each parameter; of very different size, and small after a burst."""
    random = torch.Generator().manual_seed(seed)
    draw = lambda p: torch.randn(p.shape, generator=random, dtype=p.dtype)  # noqa: E731
    return [[draw(p) * 3.0 ** (3 - step % 7) for p in module.parameters()] for step in range(steps)]


def walked(module, optimizer, slopes):
    """The parameters after each step on these gradients."""
    path = []
    for row in slopes:
        for p, g in zip(module.parameters(), row, strict=True):
            p.grad = None if g is None else g.clone(memory_format=torch.preserve_format)
        optimizer.step()
        path.append([p.detach().clone() for p in module.parameters()])
    return path


def by_formula(formula, w, gs, l):
    if formula in (lars_formula, lamb_formula, adafactor_formula):
        return torch.stack(list(formula(w, gs, l)))
    flat = [
        list(formula(a, g.tolist(), l))
        for a, g in zip(w.flatten().tolist(), torch.stack(gs).reshape(len(gs), -1).T, strict=True)
    ]
    return torch.tensor(flat, dtype=w.dtype).T.reshape(len(gs), *w.shape)


@pytest.mark.parametrize("block", [4, blocks.BLOCK], ids=["small blocks", "one block"])
@pytest.mark.parametrize("name", CASES)
def test_an_optimiser_is_its_formula_on_every_number_of_every_tensor(name, block, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", block)
    (make, formula), module = CASES[name], Net()
    start, slopes = [p.detach().clone() for p in module.parameters()], gradients(module)
    path = walked(module, make(module), slopes)
    for index, w in enumerate(start):
        found = torch.stack([row[index] for row in path])
        expected = by_formula(formula, w, [row[index] for row in slopes], DECAY if w.ndim >= 2 else 0.0)
        torch.testing.assert_close(found, expected, **TOLERANCE.get(name, {"rtol": 1e-10, "atol": 1e-10}))


@pytest.mark.parametrize("name", CASES)
def test_a_parameter_that_joins_late_begins_as_one_that_was_there_from_the_start(name):
    make, formula = CASES[name]
    module, late = Net(), 5
    slopes = gradients(module)
    for row in slopes[:late]:
        row[0] = None
    first = next(module.parameters()).detach().clone()
    path = walked(module, make(module), slopes)
    assert torch.equal(path[late - 1][0], first)
    expected = by_formula(formula, first, [row[0] for row in slopes[late:]], DECAY if first.ndim >= 2 else 0.0)
    found = torch.stack([row[0] for row in path[late:]])
    torch.testing.assert_close(found, expected, **TOLERANCE.get(name, {"rtol": 1e-10, "atol": 1e-10}))


ALL = {name: make(LR) for name, make in OPTIMISERS.items()}


@pytest.mark.parametrize("name", ALL)
def test_a_saved_state_goes_on_bit_equal(name):
    module = Net().float()  # in float64 torch's NAdam casts what it counts
    optimizer, slopes = ALL[name](module), gradients(module)
    walked(module, optimizer, slopes[:6])
    other = copy.deepcopy(module)
    state = copy.deepcopy(optimizer.state_dict())
    straight = walked(module, optimizer, slopes[6:])
    resumed = ALL[name](other)
    resumed.load_state_dict(state)
    assert all(
        torch.equal(a, b)
        for one, two in zip(straight, walked(other, resumed, slopes[6:]), strict=True)
        for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("name", ALL)
def test_channels_last_weights_learn_as_others_do(name):
    module = Net().float()
    other = copy.deepcopy(module).to(memory_format=torch.channels_last)
    slopes = gradients(module)
    laid = [[g.contiguous(memory_format=torch.channels_last) if g.ndim == 4 else g for g in row] for row in slopes]
    for one, two in zip(walked(module, ALL[name](module), slopes)[-1], walked(other, ALL[name](other), laid)[-1], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
    held = [value for state in ALL[name](other).state.values() for value in state.values() if torch.is_tensor(value)]
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in held if value.ndim == 4)


DECAYING = {name: make for name, make in OPTIMISERS.items() if name not in ("adam", "amsgrad")}


@pytest.mark.parametrize("name", DECAYING)
def test_matrices_and_filters_decay_vectors_do_not(name):
    model = lenet(channels=(2, 3), hidden_dim=4)
    optimizer = DECAYING[name](0.001, weight_decay=5.0)(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for key, p in model.named_parameters():
        if p.ndim < 2:
            assert torch.equal(p, before[key])
        elif name in ("sgd", "momentum", "sgdw", "adamw", "yogi", "nadam", "radam", "swats", "adabound", "amsbound"):
            torch.testing.assert_close(p.detach(), before[key] * 0.995)
        else:
            assert p.norm() < before[key].norm()


def test_decay_that_is_decoupled_is_not_the_decay_that_is_added_to_the_gradient():
    module = Net()
    other, slopes = copy.deepcopy(module), gradients(module)
    decoupled = walked(module, adamw(LR, weight_decay=DECAY)(module), slopes)[-1][0]
    coupled = walked(other, torch.optim.Adam(other.parameters(), lr=LR, weight_decay=DECAY), slopes)[-1][0]
    assert not torch.allclose(decoupled, coupled, rtol=0, atol=1e-3)


def test_the_velocity_of_sgdw_knows_nothing_of_the_decay():
    module = Net()
    plain, slopes = copy.deepcopy(module), gradients(module)
    ours, without = sgdw(LR, weight_decay=DECAY)(module), sgd(LR, momentum=0.9)(plain)
    coupled = sgd(LR, momentum=0.9, weight_decay=DECAY)(third := copy.deepcopy(module))
    for subject, optimizer in ((module, ours), (plain, without), (third, coupled)):
        walked(subject, optimizer, slopes)
    velocity = ours.state[module.linear.weight]["velocity"]
    torch.testing.assert_close(velocity, without.state[plain.linear.weight]["momentum_buffer"])
    assert not torch.allclose(velocity, coupled.state[third.linear.weight]["momentum_buffer"], atol=0.1)


def test_every_parameter_is_in_one_group_and_frozen_ones_in_none():
    for make in ALL.values():
        model = lenet(channels=(2, 3), hidden_dim=4)
        model.head.weight.requires_grad_(False)
        held = [p for group in make(model).param_groups for p in group["params"]]
        assert len(held) == len(set(held))
        assert set(held) == {p for p in model.parameters() if p.requires_grad}
    assert [len(group["params"]) for group in decayed(model.parameters(), 0.0)] == [len(list(model.parameters()))]


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_rate_that_makes_no_sense_is_refused_before_there_is_a_module(name):
    with pytest.raises(ValueError, match=r"^lr=-0\.1: expected at least 0"):
        OPTIMISERS[name](-0.1)


@pytest.mark.parametrize("name", ["adam", "amsgrad", "adamax", "nadam", "radam", "adamw", "yogi", "adabound", "swats", "lamb"])
@pytest.mark.parametrize("betas", [(1.0, 0.9), (0.9, 1.0), (-0.1, 0.9)])
def test_means_that_keep_everything_or_less_than_nothing_are_refused(name, betas):
    with pytest.raises(ValueError, match=r"^betas=\(.*\): expected in \[0, 1\)"):
        OPTIMISERS[name](0.1, betas=betas)


@pytest.mark.parametrize(
    ("make", "options", "error"),
    [
        (sgd, {"momentum": 1.0}, r"momentum=1\.0: expected in \[0, 1\)"),
        (sgdw, {"weight_decay": -1.0}, r"weight_decay=-1\.0: expected at least 0"),
        (rmsprop, {"alpha": 1.0}, r"alpha=1\.0: expected in \[0, 1\)"),
        (adafactor, {"beta2_decay": 0.8}, r"beta2_decay=0\.8: expected at most 0"),
        (adadelta, {"rho": -0.5}, r"rho=-0\.5: expected in \[0, 1\)"),
        (yogi, {"eps": -1.0}, r"eps=-1\.0: expected at least 0"),
        (adabound, {"final_lr": 0.0}, r"final_lr=0\.0: expected more than 0"),
        (adabound, {"gamma": 0.0}, r"gamma=0\.0: expected more than 0"),
        (lars, {"trust": -1.0}, r"trust=-1\.0: expected at least 0"),
        (swats, {"tolerance": math.nan}, r"tolerance=nan: expected at least 0"),
    ],
)
def test_other_numbers_that_make_no_sense_are_refused(make, options, error):
    with pytest.raises(ValueError, match=f"^{error}"):
        make(0.1, **options)


# What the books say of single ones


def alone(make, slopes, start=0.0):
    """A number after each step of an optimiser on these gradients."""
    module = nn.ParameterList([torch.tensor(start, dtype=torch.float64)])
    path = walked(module, make(module), [[torch.tensor(float(g), dtype=torch.float64)] for g in slopes])
    return [row[0].item() for row in path]


def rates(make, slopes):
    """How far a step goes a unit of gradient."""
    path = [0.0, *alone(make, slopes)]
    return [(before - after) / g for (before, after), g in zip(pairwise(path), slopes, strict=True)]


def test_after_a_burst_of_large_gradients_the_rate_of_rmsprop_recovers_that_of_adagrad_does_not():
    slopes = [1.0] * 60 + [100.0] * 3 + [1.0] * 120
    forgetful, faithful = rates(rmsprop(0.1, alpha=0.9), slopes), rates(adagrad(0.1), slopes)
    assert forgetful[64] < 0.05 * forgetful[59]
    assert forgetful[-1] > 0.95 * forgetful[59]
    assert faithful[-1] < 0.1 * faithful[59]
    assert all(after <= before for before, after in pairwise(faithful))


def test_adagrad_beats_gradient_descent_where_some_features_are_rare():
    """Two coordinates, one of which has a gradient every hundredth step only; each optimiser at its best of nine rates."""

    def error(make):
        module = nn.ParameterList([torch.tensor([1.0, 1.0])])
        optimizer = make(module)
        for step in range(300):
            module[0].grad = module[0].detach() * torch.tensor([1.0, float(step % 100 == 0) * 0.1])
            optimizer.step()
        return module[0].detach().norm().item()

    tried = [2.0**k for k in range(-7, 2)]  # gradient descent diverges past 2
    assert min(error(adagrad(lr)) for lr in tried) < 0.1 * min(error(sgd(lr)) for lr in tried)


def test_adam_s_means_of_a_constant_are_exact_from_the_first_step():
    assert alone(adam(0.1, eps=0.0), [7.0] * 5) == pytest.approx([-0.1, -0.2, -0.3, -0.4, -0.5], abs=1e-12)
    m = v = 0.0
    for t in range(1, 6):
        m, v = 0.9 * m + 0.1 * 7.0, 0.999 * v + 0.001 * 49.0
        assert (m / (1 - 0.9**t), v / (1 - 0.999**t)) == pytest.approx((7.0, 49.0), abs=1e-9)
    assert m < 3  # as it stands it is slow to start


def test_adam_is_that_of_torch_over_a_hundred_steps():
    module = Net()
    other, slopes = copy.deepcopy(module), gradients(module, 100)
    ours = walked(module, adam(1e-2)(module), slopes)
    theirs = walked(other, torch.optim.Adam(other.parameters(), lr=1e-2, fused=False, foreach=False), slopes)
    for one, two in zip(ours[-1], theirs[-1], strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-10)


def test_the_rate_of_amsgrad_never_rises_that_of_adam_does():
    slopes = [10.0] * 3 + [1.0] * 117
    free, bound = (rates(adam(0.1, betas=(0.0, 0.9), amsgrad=amsgrad), slopes) for amsgrad in (False, True))
    assert free[-1] > 5 * free[3]
    assert all(after <= before * (1 + 1e-4) for before, after in pairwise(bound[80:]))  # by then nothing is corrected
    assert bound[-1] < 0.2 * free[-1]


def test_the_first_steps_of_radam_are_momentum_and_need_no_warm_up():
    """With beta2 = 0.999 five gradients are too few; Adam's first step is a whole lr however small the gradient."""
    slopes = [1e-3, 2e-3, -1e-3, 3e-3, 1e-3, 1e-3]
    m, w, momentum = 0.0, 0.0, []
    for t, g in enumerate(slopes, 1):
        m = 0.9 * m + 0.1 * g
        w -= 0.1 * m / (1 - 0.9**t)
        momentum.append(w)
    found = alone(radam(0.1), slopes)
    assert found[:5] == pytest.approx(momentum[:5], abs=1e-12)
    assert abs(found[5] - momentum[5]) > 1e-4
    assert alone(adam(0.1), slopes)[0] == pytest.approx(-0.1, rel=1e-4)
    assert found[0] == pytest.approx(-1e-4, rel=1e-4)


def test_where_adam_is_thrown_out_of_a_narrow_valley_without_warm_up_radam_needs_none():
    """The first step of Adam is a whole lr, here five times the width of the valley, and outside it is flat."""

    def end(make, warm=1):
        module = nn.ParameterList([torch.tensor([0.1], dtype=torch.float64)])
        optimizer = make(module)
        for step in range(200):
            optimizer.zero_grad()
            (0.1 * (1 - torch.exp(-((module[0] / 0.1) ** 2) / 2)).sum()).backward()
            optimizer.param_groups[0]["lr"] = 0.5 * min(1.0, (step + 1) / warm)
            optimizer.step()
        return abs(module[0].item())

    assert end(adam(0.5)) > 1
    assert end(adam(0.5), warm=100) < 1e-3
    assert end(radam(0.5)) < 1e-3


def drifted(make, steps=1500):
    """Where Reddi's example leads on [-1, 1]: the slope is 3, then twice -1, so on average -1 is best."""
    module = nn.ParameterList([torch.tensor(0.0)])
    optimizer, number = make(module), module[0]
    for step in range(steps):
        number.grad = torch.tensor(-1.0 if step % 3 else 3.0)
        optimizer.step()
        number.data.clamp_(-1, 1)
    return number.item()


def test_yogi_finds_the_minimum_of_reddi_s_example_where_adam_goes_to_the_maximum():
    """beta2 = 1 / (1 + 3^2), as in the proof: Adam has forgotten the large gradient when the small ones come."""
    for lr in (0.02, 0.05):
        assert drifted(adam(lr, betas=(0.0, 0.1))) > 0.9
        assert drifted(adam(lr, betas=(0.0, 0.1), amsgrad=True)) < -0.8
        assert drifted(yogi(lr, betas=(0.0, 0.1))) < -0.8


@pytest.mark.parametrize("amsbound", [False, True])
def test_the_rates_of_adabound_stay_inside_bounds_that_close_in_on_that_of_gradient_descent(amsbound):
    random = torch.Generator().manual_seed(0)
    slopes = (torch.randn(400, generator=random, dtype=torch.float64).exp() * 10).tolist()
    make = adabound(0.1, final_lr=0.05, gamma=0.1, betas=(0.0, 0.9), amsbound=amsbound)
    found = rates(make, slopes)  # beta1 = 0: the step is the rate times the gradient
    lower = [0.05 * (1 - 1 / (0.1 * t + 1)) for t in range(1, 401)]
    upper = [0.05 * (1 + 1 / (0.1 * t)) for t in range(1, 401)]
    assert all(low - 1e-12 <= rate <= up + 1e-12 for low, rate, up in zip(lower, found, upper, strict=True))
    assert found[-1] == pytest.approx(0.05, rel=0.03)
    free = rates(adam(0.1, betas=(0.0, 0.9)), slopes)
    assert min(free[100:]) < 0.5 * lower[-1]  # Adam's own are not inside


def test_a_schedule_scales_the_bounds_of_adabound_too():
    module = nn.ParameterList([torch.tensor(0.0)])
    optimizer = adabound(0.1, final_lr=0.05, gamma=1e9, betas=(0.0, 0.9))(module)
    optimizer.param_groups[0]["lr"] = 0.01
    module[0].grad = torch.tensor(2.0)
    optimizer.step()
    assert module[0].item() == pytest.approx(-0.1 * 0.05 * 2.0, rel=1e-5)


def test_layers_move_by_a_share_of_their_length_whatever_the_size_of_their_gradient():
    for make, share in ((lars(0.5, trust=0.01, momentum=0.0), 0.005), (lamb(0.02, weight_decay=0.0), 0.02)):
        for size in (1e-3, 1e3):
            module = Net()
            before = module.linear.weight.detach().clone()
            walked(module, make(module), [[g * size for g in gradients(module, 1)[0]]])
            moved = (module.linear.weight.detach() - before).norm()
            assert moved / before.norm() == pytest.approx(share, rel=1e-3)


@pytest.mark.parametrize("make", [lars(0.1, weight_decay=0.1), lamb(0.1)])
def test_weights_of_length_0_learn_and_gradients_of_length_0_do_no_harm(make):
    module = Net()
    module.linear.weight.data.zero_()
    slopes = gradients(module, 3)
    for row in slopes:
        row[2].zero_()
    walked(module, make(module), slopes)
    assert module.linear.weight.norm() > 0
    assert all(p.isfinite().all() for p in module.parameters())


def swats_by_hand(w, slopes, lr, betas, eps, tolerance):
    """Numbers, the step of the switch and the rate, from vectors, as in the paper's listing."""
    m = v = torch.zeros_like(w)
    mean, rate, switch, path = 0.0, None, None, []
    for k, g in enumerate(slopes, 1):
        if rate is not None:
            v = betas[0] * v + g
            w = w - (1 - betas[0]) * rate * v
        else:
            m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
            p = -lr * math.sqrt(1 - betas[1] ** k) / (1 - betas[0] ** k) * m / (v.sqrt() + eps * math.sqrt(1 - betas[1] ** k))
            w = w + p
            gamma = (p @ p / -(p @ g)).item()
            mean = betas[1] * mean + (1 - betas[1]) * gamma
            estimate = mean / (1 - betas[1] ** k)
            if k > 1 and estimate > 0 and abs(estimate - gamma) < tolerance:
                rate, switch, v = estimate, k, torch.zeros_like(w)
        path.append(w)
    return torch.stack(path), switch, rate


def settling(steps):
    """Gradients that become smaller and then stay, so that the rate of gradient descent does."""
    random = torch.Generator().manual_seed(1)
    sizes = [1 + 3 * 0.6**step for step in range(steps)]
    return [[size + 0.01 * torch.randn(p.shape, generator=random, dtype=p.dtype) for p in Net().parameters()] for size in sizes]


@pytest.mark.parametrize("block", [4, blocks.BLOCK])
def test_swats_is_its_listing_and_its_switch_can_be_read(block, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", block)
    module, slopes = Net(), settling(40)
    flat = lambda tensors: torch.cat([t.detach().reshape(-1) for t in tensors])  # noqa: E731
    expected, switch, rate = swats_by_hand(
        flat(module.parameters()), [flat(row) for row in slopes], 0.1, (0.8, 0.7), 1e-8, 1e-3
    )
    assert 4 < switch < 35
    optimizer = swats(0.1, betas=(0.8, 0.7), tolerance=1e-3)(module)
    assert optimizer.switched is None
    found = torch.stack([flat(row) for row in walked(module, optimizer, slopes)])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert optimizer.switched == (switch, pytest.approx(rate, rel=1e-10))


def test_swats_goes_on_bit_equal_from_before_and_from_after_its_switch():
    for stop in (3, 35):
        module, slopes = Net(), settling(40)
        make = swats(0.1, betas=(0.8, 0.7), tolerance=1e-3)
        optimizer = make(module)
        walked(module, optimizer, slopes[:stop])
        other, state = copy.deepcopy(module), copy.deepcopy(optimizer.state_dict())
        assert (optimizer.switched is None) == (stop == 3)
        resumed = make(other)
        resumed.load_state_dict(state)
        straight, again = walked(module, optimizer, slopes[stop:])[-1], walked(other, resumed, slopes[stop:])[-1]
        assert all(torch.equal(a, b) for a, b in zip(straight, again, strict=True))
        assert optimizer.switched == resumed.switched is not None


def test_a_schedule_scales_the_rate_that_swats_found():
    module = nn.ParameterList([torch.zeros(3)])
    optimizer = swats(0.1, betas=(0.0, 0.5), tolerance=1.0)(module)
    walked(module, optimizer, [[torch.ones(3)]] * 2)
    step, rate = optimizer.switched
    assert (step, rate) == (2, pytest.approx(0.1, rel=1e-4))
    optimizer.param_groups[0]["lr"] = 0.05
    before = module[0].detach().clone()
    walked(module, optimizer, [[torch.full((3,), 4.0)]])
    torch.testing.assert_close(module[0].detach(), before - 0.5 * rate * 4.0)


def test_adadelta_trains_lenet_without_a_rate():
    torch.manual_seed(0)
    experiment = small_digits(steps=160, train=1000, optimizer=adadelta(), schedule=constant, ema=None, dropout=0.0)
    training = Training(experiment, precision="fp32")
    for _ in training:
        pass
    assert dict(evaluate(training, experiment.test))["accuracy"] > 0.7


def rates_and_decays(optimizer, model):
    held = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    return {name: held.get(id(p)) for name, p in model.named_parameters()}


def test_a_backbone_learns_more_slowly_than_all_that_was_put_around_it():
    inner = nn.ModuleDict({"backbone": nn.ModuleDict({"head": nn.Linear(2, 3, bias=False)}), "box_head": nn.Linear(3, 3)})
    optimizer = discriminative_adamw(0.5, backbone=0.1, weight_decay=0.2)(nn.ModuleDict({"model": inner}))
    assert rates_and_decays(optimizer, inner) == {"backbone.head.weight": (0.05, 0.2), "box_head.weight": (0.5, 0.2),
                                                  "box_head.bias": (0.5, 0.0)}  # fmt: skip


def test_the_head_learns_faster_than_what_was_learned_elsewhere():
    model = nn.ModuleDict({"stem": nn.Linear(2, 3), "frozen": nn.Linear(3, 3).requires_grad_(False), "head": nn.Linear(3, 2)})
    optimizer = discriminative_adamw(0.5, backbone=0.1, weight_decay=0.2)(model)
    assert rates_and_decays(optimizer, model) == {
        "stem.weight": (0.05, 0.2), "stem.bias": (0.05, 0.0), "head.weight": (0.5, 0.2), "head.bias": (0.5, 0.0),
        "frozen.weight": None, "frozen.bias": None}  # fmt: skip

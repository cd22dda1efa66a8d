"""Optimisers against their formulas, and what decays."""

import pytest
import torch
from torch import nn

from thalweg.models.vision.lenet import lenet
from thalweg.training.optimisers import adam, adamw, decayed, sgd


def stepped(make, gradients, start=3.0):
    """A number after each step of an optimiser on these gradients."""
    module = nn.Linear(1, 1, bias=False).double()
    module.weight.data.fill_(start)
    optimizer, values = make(module), []
    for gradient in gradients:
        module.weight.grad = torch.full((1, 1), gradient, dtype=torch.float64)
        optimizer.step()
        values.append(module.weight.item())
    return values


GRADIENTS = [1.0, -2.0, 0.5, 4.0]


@pytest.mark.parametrize(("momentum", "nesterov", "decay"), [(0, False, 0), (0.9, False, 0), (0.9, True, 0.1), (0, False, 0.1)])
def test_gradient_descent_is_its_formula(momentum, nesterov, decay):
    w, v, values = 3.0, 0.0, []
    for g in GRADIENTS:
        g += decay * w
        v = momentum * v + g
        w -= 0.1 * (g + momentum * v if nesterov else v)
        values.append(w)
    made = sgd(0.1, momentum=momentum, nesterov=nesterov, weight_decay=decay)
    assert stepped(made, GRADIENTS) == pytest.approx(values, abs=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_adam_is_its_formula_and_its_decay_is_decoupled(decay):
    w, m, v, values = 3.0, 0.0, 0.0, []
    for t, g in enumerate(GRADIENTS, 1):
        w -= 0.1 * decay * w
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
        w -= 0.1 * (m / (1 - 0.8**t)) / ((v / (1 - 0.95**t)) ** 0.5 + 1e-6)
        values.append(w)
    options = {"betas": (0.8, 0.95), "eps": 1e-6}
    assert stepped(adamw(0.1, weight_decay=decay, **options), GRADIENTS) == pytest.approx(values, abs=1e-12)
    if decay == 0:
        assert stepped(adam(0.1, **options), GRADIENTS) == pytest.approx(values, abs=1e-12)


@pytest.mark.parametrize("make", [sgd(0.5, weight_decay=0.1), adamw(0.5, weight_decay=0.1)])
def test_matrices_and_filters_decay_vectors_do_not(make):
    model = lenet(channels=(2, 3), hidden_dim=4)
    optimizer = make(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), before[name] * (0.95 if p.ndim > 1 else 1))


def test_every_parameter_is_in_one_group_and_frozen_ones_in_none():
    model = lenet(channels=(2, 3), hidden_dim=4)
    model.head.weight.requires_grad_(False)
    held = [p for group in adamw(0.1)(model).param_groups for p in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {p for p in model.parameters() if p.requires_grad}
    assert [len(group["params"]) for group in decayed(model.parameters(), 0.0)] == [len(list(model.parameters()))]

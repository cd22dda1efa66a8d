"""Muon beside another optimiser: which weights it moves, how far, and that a saved state goes on as if never saved."""

import copy

import pytest
import torch
from torch import nn

from thalweg.models.language.gpt import GPT
from thalweg.models.language.rotary_gpt import RotaryGPT
from thalweg.training.optimisers import adamw, muon


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.conv, self.norm = nn.Embedding(5, 6), nn.Conv1d(6, 6, 3), nn.LayerNorm(6)
        self.hidden, self.overhead, self.head = nn.Linear(6, 9), nn.Linear(9, 6), nn.Sequential(nn.Linear(6, 5))

    def forward(self, tokens):
        x = self.norm(self.conv(self.embedding(tokens).mT).mT)
        return self.head(self.overhead(self.hidden(x).relu()))


def loss(model, seed):
    tokens = torch.randint(5, (4, 12), generator=torch.Generator().manual_seed(seed))
    return nn.functional.cross_entropy(model(tokens).mT, tokens[:, 2:])


def steps(model, optimizer, seeds):
    for seed in seeds:
        optimizer.zero_grad()
        loss(model, seed).backward()
        optimizer.step()


def held(optimizer, model):
    name = {parameter: name for name, parameter in model.named_parameters()}
    return [sorted(name[p] for group in each.param_groups for p in group["params"]) for each in optimizer.optimizers]


def test_it_moves_the_matrices_of_hidden_layers_and_the_other_all_else():
    first, second = held(muon(0.1, other=adamw(0.1))(model := Small()), model)
    assert first == ["hidden.weight", "overhead.weight"]
    assert sorted(first + second) == sorted(name for name, _ in model.named_parameters())


@pytest.mark.parametrize("make", [lambda: GPT(7, 8, 12, 2, 3), lambda: RotaryGPT(7, 12, 2, 3)], ids=["gpt", "rotary"])
def test_in_a_language_model_it_moves_the_matrices_of_the_blocks(make):
    model = make()
    first, _ = held(muon(0.1, other=adamw(0.1))(model), model)
    assert first == sorted(name for name, p in model.named_parameters() if name.startswith("blocks") and p.ndim == 2)


def test_a_first_step_goes_equally_far_in_every_direction_of_the_gradient():
    model = Small()
    before = model.hidden.weight.detach().clone()
    optimizer = muon(0.01, other=adamw(0.1))(model)
    steps(model, optimizer, [0])
    u, s, v = torch.linalg.svd(model.hidden.weight.grad, full_matrices=False)
    moved = u.T @ (before - model.hidden.weight.detach()) @ v.T / (0.01 * 0.2 * 9**0.5)
    felt = s > s[0] / 50
    assert s[0] / s[felt][-1] > 5  # the gradient itself goes further in some
    assert (moved - torch.diag(moved.diag())).abs().max() < 0.1
    assert ((moved.diag()[felt] > 0.6) & (moved.diag()[felt] < 1.3)).all()


def test_the_other_optimiser_does_to_the_rest_what_it_does_alone():
    model = Small()
    alone = copy.deepcopy(model)
    steps(model, muon(0.0, other=adamw(0.1))(model), range(3))  # with no step of its own Muon leaves its matrices
    for part in (alone.hidden.weight, alone.overhead.weight):
        part.requires_grad_(False)
    steps(alone, adamw(0.1)(alone), range(3))
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), alone.parameters(), strict=True))


def test_weight_decay_shrinks_a_matrix_by_lr_times_decay():
    models = [Small(), Small()]
    models[1].load_state_dict(models[0].state_dict())
    before = models[0].hidden.weight.detach().clone()
    for model, decay in zip(models, (0.0, 0.5), strict=True):
        steps(model, muon(0.1, weight_decay=decay, other=adamw(0.1))(model), [0])
    difference = models[0].hidden.weight - models[1].hidden.weight
    assert torch.allclose(difference, 0.1 * 0.5 * before, atol=1e-6)


def test_a_learning_rate_set_on_its_groups_is_the_one_taken_also_after_loading():
    model = Small()
    optimizer = muon(0.1, other=adamw(0.1))(model)
    steps(model, optimizer, [0])
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [p.detach().clone() for p in model.parameters()]
    steps(model, optimizer, [1])
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


def test_a_saved_state_goes_on_bit_equal():
    model = Small()
    optimizer = muon(0.02, other=adamw(0.01))(model)
    steps(model, optimizer, range(3))
    other = copy.deepcopy(model)
    state = copy.deepcopy(optimizer.state_dict())
    steps(model, optimizer, range(3, 6))
    resumed = muon(0.02, other=adamw(0.01))(other)
    resumed.load_state_dict(state)
    steps(other, resumed, range(3, 6))
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("module", [nn.Linear(3, 2, bias=False), nn.LayerNorm(3)], ids=["matrices alone", "no matrix"])
def test_a_module_may_have_only_one_kind_of_parameter(module):
    before = [p.detach().clone() for p in module.parameters()]
    optimizer = muon(0.1, other=adamw(0.1))(module)
    for p in module.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert all(not torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))

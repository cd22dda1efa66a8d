"""What goes around any optimiser: slow weights, noise, centred gradients; alone, stacked, and inside a run."""

import copy
import math

import pytest
import torch
from scenes import small_digits
from test_optimisers import Net, gradients, walked

from thalweg.training import Training
from thalweg.training.optimisers import (
    OPTIMISERS,
    Together,
    adam,
    adamw,
    centralised,
    gradient_noise,
    lookahead,
    muon,
    parts,
    sgd,
    sgdw,
)


@pytest.mark.parametrize("make", [sgd(0.1, momentum=0.9), adam(0.1), sgdw(0.1)], ids=["sgd", "adam", "sgdw"])
def test_every_k_steps_the_slow_weights_go_a_share_of_the_way_to_the_fast_ones(make):
    module, steps = Net(), 11
    by_hand = copy.deepcopy(module)
    slopes, inner = gradients(module, steps), make(by_hand)
    slow = [p.detach().clone() for p in by_hand.parameters()]
    for number, row in enumerate(slopes, 1):
        walked(by_hand, inner, [row])
        if number % 4 == 0:
            for p, s in zip(by_hand.parameters(), slow, strict=True):
                s += 0.3 * (p.detach() - s)
                p.data = s.clone()
    path = walked(module, lookahead(make, k=4, alpha=0.3)(module), slopes)
    for ours, theirs in zip(path[-1], by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=1e-12)


def test_lookahead_of_every_step_and_the_whole_way_is_the_optimiser_itself():
    module = Net()
    other, slopes = copy.deepcopy(module), gradients(module)
    one = walked(module, lookahead(adam(0.1), k=1, alpha=1.0)(module), slopes)[-1]
    two = walked(other, adam(0.1)(other), slopes)[-1]
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"k": 0}, r"k=0: expected at least 1"),
        ({"alpha": 0.0}, r"alpha=0\.0: expected in \(0, 1\]"),
        ({"alpha": 1.5}, r"alpha=1\.5: expected in \(0, 1\]"),
    ],
)
def test_a_lookahead_that_makes_no_sense_is_refused(options, error):
    with pytest.raises(ValueError, match=f"^{error}"):
        lookahead(sgd(0.1), **options)


def noise_of(steps, **options):
    """What is added to the gradients of each step: with a rate of 1 and no gradient, the steps themselves."""
    module = Net()
    optimizer = gradient_noise(sgd(1.0), **options)(module)
    zero = [[torch.zeros_like(p) for p in module.parameters()]]
    path = [[p.detach().clone() for p in module.parameters()], *walked(module, optimizer, zero * steps)]
    flat = torch.stack([torch.cat([p.reshape(-1) for p in row]) for row in path])
    return flat[:-1] - flat[1:]


def test_the_noise_has_mean_0_and_a_variance_that_falls_as_its_formula_says():
    torch.manual_seed(0)
    noise = noise_of(4000, eta=0.3)
    expected = (0.3 / (1 + torch.arange(4000.0, dtype=torch.float64)) ** 0.55).sqrt()
    drawn = noise / expected[:, None]
    count = math.sqrt(drawn.numel())
    assert abs(drawn.mean().item()) < 4 / count
    for part in drawn.chunk(4):  # early as late
        assert part.std().item() == pytest.approx(1, abs=4 / math.sqrt(part.numel()))
    assert abs((drawn[1:] * drawn[:-1]).mean().item()) < 4 / count  # each step's is new
    assert abs((drawn[:, 1:] * drawn[:, :-1]).mean().item()) < 4 / count  # each number's too


def test_noise_follows_from_the_seed_and_leaves_torch_s_random_numbers_alone():
    def drawn(seed):
        torch.manual_seed(seed)
        module = Net()
        optimizer = gradient_noise(sgd(1.0))(module)
        torch.manual_seed(5)
        path = walked(module, optimizer, [[torch.zeros_like(p) for p in module.parameters()]])
        return path[0][0], torch.rand(1)

    torch.manual_seed(5)
    untouched = torch.rand(1)
    (one, after), (two, _), (three, _) = drawn(1), drawn(1), drawn(2)
    assert torch.equal(one, two)
    assert not torch.equal(one, three)
    assert torch.equal(after, untouched)


def test_noise_of_a_negative_size_is_refused():
    with pytest.raises(ValueError, match=r"^eta=-1\.0: expected at least 0"):
        gradient_noise(sgd(0.1), eta=-1.0)


def test_a_centred_gradient_is_that_minus_its_mean_over_the_inputs_of_every_output():
    module = Net()
    other, slopes = copy.deepcopy(module), gradients(module)
    centred = [[g.clone() for g in row] for row in slopes]
    for row in centred:
        for g in row:
            for output in g if g.ndim >= 2 else ():
                output -= output.sum() / output.numel()
    one = walked(module, centralised(adamw(0.1, weight_decay=0.2))(module), slopes)[-1]
    two = walked(other, adamw(0.1, weight_decay=0.2)(other), centred)[-1]
    for ours, theirs in zip(one, two, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_with_centred_gradients_the_weights_of_an_output_keep_their_sum():
    module = Net()
    before = module.conv.weight.detach().sum((1, 2, 3))
    walked(module, centralised(sgd(0.1, momentum=0.9))(module), gradients(module))
    torch.testing.assert_close(module.conv.weight.detach().sum((1, 2, 3)), before, rtol=0, atol=1e-12)


def test_a_change_of_the_gradients_around_several_optimisers_is_made_once():
    def trained(stacked):
        torch.manual_seed(0)
        module = Net()
        Together(sgd(0.1)(Net()))  # one that was made before: torch wraps the steps of a class when it is first used
        for _ in walked(module, stacked(module), gradients(module, 3)):
            pass
        return module.linear.weight.detach()

    plain = trained(gradient_noise(sgd(0.1)))
    assert torch.equal(trained(gradient_noise(lookahead(sgd(0.1), k=9))), plain)
    assert torch.equal(trained(lookahead(gradient_noise(sgd(0.1)), k=9)), plain)


STACKED = {
    "lookahead": lookahead(adamw(0.01), k=2),
    "noise": gradient_noise(sgd(0.1, momentum=0.9)),
    "centralised": centralised(adamw(0.01)),
    "all": gradient_noise(lookahead(centralised(muon(0.02, other=lookahead(adamw(0.01), k=3))), k=2)),
}


OURS = {name: OPTIMISERS[name](0.01) for name in ("yogi", "amsbound", "sgdw", "swats", "lars", "lamb")}


@pytest.mark.parametrize("make", [*STACKED.values(), *OURS.values()], ids=[*STACKED, *OURS])
def test_a_restored_run_goes_on_bit_for_bit(tmp_path, make):
    def training():
        torch.manual_seed(0)
        return Training(small_digits(optimizer=make, steps=9))

    straight, losses = training(), []
    for step in straight:
        losses.append(step.losses[""])
        if step.number == 5:
            straight.save(tmp_path)
    again = training()
    again.restore(tmp_path)
    assert torch.equal(torch.stack([step.losses[""] for step in again]), torch.stack(losses[5:]))
    ours, theirs = again.state_dict()["task"], straight.state_dict()["task"]
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())


def test_what_a_run_remembers_is_laid_out_as_its_weights_after_loading(tmp_path):
    training = Training(small_digits(optimizer=lookahead(adamw(0.01)), steps=2))
    for _ in training:
        training.save(tmp_path)
    training.restore(tmp_path)
    held = [
        (value, parameter)
        for part in parts(training.optimizers[""])
        for parameter, state in part.state.items()
        for value in state.values()
        if value.ndim == 4
    ]
    assert len(held) == 2 * 3  # two filters, each with a mean, a mean square and slow weights
    assert all(value.stride() == parameter.stride() for value, parameter in held)


def test_the_parts_of_a_stack_are_all_of_it():
    names = [type(part).__name__ for part in parts(STACKED["all"](Net()))]
    assert names == ["Lookahead", "Together", "Muon", "Lookahead", "AdamW"]

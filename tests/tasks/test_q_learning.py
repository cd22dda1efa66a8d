"""Q-learning: loss and target by their formulas, who gets a gradient, how the target follows; known values; a resumed run."""

import gymnasium
import pytest
import torch
from chain import LENGTH
from torch import nn

from thalweg.build import build, load, save
from thalweg.data.streams import TensorStream
from thalweg.models.control.q_network import QNetwork
from thalweg.recipes.control import dqn_cartpole
from thalweg.tasks.experience import Replay
from thalweg.tasks.q_learning import QLearning
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import adam
from thalweg.training.schedules import linear

GAMMA = 0.9


def make_task(environment="CartPole-v1", features=4, **arguments):
    task = QLearning(nn.Linear(features, 3), environment, gamma=GAMMA, **arguments).double()
    with torch.no_grad():
        for parameter in task.target.parameters():  # so that the target and the network differ
            parameter.add_(torch.randn_like(parameter))
    return task


@pytest.fixture
def batch():
    observation, following = torch.randn(2, 12, 4, dtype=torch.float64)
    return {
        "observation": observation, "next_observation": following, "action": torch.arange(12) % 3,
        "reward": torch.randn(12, dtype=torch.float64), "done": torch.arange(12) % 4 == 0,
    }  # fmt: skip


@pytest.mark.parametrize("double_q", [True, False])
@pytest.mark.parametrize("delta", [None, 0.7])
def test_the_loss_and_its_gradient_are_those_of_the_paper(batch, double_q, delta):
    task = make_task(double_q=double_q, delta=delta)
    player, total, count = next(task.losses(batch))
    total.backward()
    weight, bias = task.model.weight.detach(), task.model.bias.detach()
    target_weight, target_bias = task.target.weight, task.target.bias
    expected, weight_gradient, bias_gradient = 0.0, torch.zeros_like(weight), torch.zeros_like(bias)
    for s, a, r, t, done in zip(
        *(batch[n] for n in ("observation", "action", "reward", "next_observation", "done")), strict=True
    ):
        following = target_weight @ t + target_bias
        best = following[(weight @ t + bias).argmax()] if double_q else following.max()
        y = r if done else r + GAMMA * best
        error = (weight[a] @ s + bias[a]) - y
        if delta is None:
            expected, slope = expected + error**2, 2 * error
        elif abs(error) < delta:
            expected, slope = expected + error**2 / 2, error
        else:
            expected, slope = expected + delta * (abs(error) - delta / 2), delta * error.sign()
        weight_gradient[a] += slope * s
        bias_gradient[a] += slope
    assert player is task
    assert count == 12
    torch.testing.assert_close(total, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(task.model.weight.grad, weight_gradient, atol=1e-10, rtol=0)
    torch.testing.assert_close(task.model.bias.grad, bias_gradient, atol=1e-10, rtol=0)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in task.target.parameters())


@pytest.mark.parametrize(("target_every", "tau"), [(3, 1.0), (1, 0.25), (2, 0.5)])
def test_the_target_follows_after_the_step_and_no_graph_grows_behind_it(batch, target_every, tau):
    task = make_task(target_every=target_every, tau=tau)
    expected = task.target.weight.clone()
    for number in range(1, 8):
        for _ in task.losses(batch):
            with torch.no_grad():
                task.model.weight.add_(torch.randn_like(task.model.weight))  # stands for the optimiser's step
        if number % target_every == 0:
            expected += tau * (task.model.weight.detach() - expected)
        torch.testing.assert_close(task.target.weight.data, expected, atol=1e-12, rtol=0)
    assert task.target.weight.is_leaf
    assert not task.target.weight.requires_grad


def test_values_are_computed_in_single_precision_whatever_the_run_multiplies_in():
    task = QLearning(QNetwork(4, 2), "CartPole-v1")
    batch = {name: torch.randn(6, 4) for name in ("observation", "next_observation")}
    batch |= {"action": torch.arange(6) % 2, "reward": torch.ones(6), "done": torch.arange(6) == 0}
    plain = task.loss(batch)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(task.loss(batch)[0], plain)
        assert task.values(batch["observation"]).dtype == torch.float32


def learned(environment, **arguments):
    """A table of values, learned from random actions."""
    model = nn.Linear(LENGTH, 2, bias=False)
    task = QLearning(model, environment, gamma=GAMMA, target_every=10, **arguments)
    train = Replay(environment, model, 32, capacity=2000, warmup=200, exploration=1, epsilon=1.0, num_envs=2)
    experiment = Experiment(task=task, train=train, steps=1500, optimizer=adam(0.05), schedule=linear())
    for _ in Training(experiment, precision="fp32"):
        pass
    return model.weight.detach().T  # [state action]


@pytest.mark.parametrize("double_q", [True, False])
def test_the_values_of_a_corridor_are_learned(double_q):
    value = torch.tensor([GAMMA ** (LENGTH - 1 - state) for state in range(LENGTH)])
    left = GAMMA * value[[0, *range(LENGTH - 1)]]
    torch.testing.assert_close(learned("ThalwegChain-v0", double_q=double_q), torch.stack([left, value], 1), atol=1e-2, rtol=0)


def test_a_world_that_only_a_time_limit_ends_is_worth_what_it_would_be_without_end():
    expected = torch.full((LENGTH, 2), 1 / (1 - GAMMA))
    torch.testing.assert_close(learned("ThalwegForever-v0"), expected, atol=1e-2, rtol=0)


def experiment(steps=200):
    model = build(QNetwork, in_features=4, num_actions=2, hidden_dims=[16])
    task = build(QLearning, model=model, environment="CartPole-v1", target_every=30)
    train = Replay("CartPole-v1", model, 16, capacity=300, warmup=50, exploration=400, num_envs=2)
    valid = TensorStream({"seed": torch.arange(5)}, 5)
    return Experiment(task=task, train=train, valid=valid, steps=steps, optimizer=adam(1e-3), ema=0.9)


def test_a_run_that_is_killed_and_resumed_ends_bit_identical_and_looking_at_it_changes_nothing(tmp_path):
    torch.manual_seed(1)
    straight = Training(experiment())
    for _ in straight:
        pass
    torch.manual_seed(1)
    killed = Training(experiment())
    for step in killed:
        if step.number % 40 == 0:
            dict(evaluate(killed, killed.experiment.valid))
        if step.number == 100:
            killed.save(tmp_path)
        if step.number == 130:
            break
    torch.manual_seed(2)
    resumed = Training(experiment())
    resumed.restore(tmp_path)
    assert resumed.number == 100
    for _ in resumed:
        pass
    for ours, theirs in ((straight.task, resumed.task), (straight.evaluated, resumed.evaluated)):
        expected = ours.state_dict()
        assert all(torch.equal(expected[name], tensor) for name, tensor in theirs.state_dict().items())
    first, second = (t.experiment.train.memory.tensors for t in (straight, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_evaluation_plays_greedy_episodes_as_a_plain_loop_would():
    training = Training(experiment(), precision="fp32")
    found = {name: float(value) for name, value in evaluate(training, training.experiment.valid)}
    task = training.evaluated
    returns, lengths, over = [], [], []
    environment = gymnasium.make("CartPole-v1")
    for seed in range(5):
        seen, _ = environment.reset(seed=seed)
        promised = float(task.model(torch.from_numpy(seen)[None]).max())
        rewards, over_yet = [], False
        while not over_yet:
            action = int(task.model(torch.from_numpy(seen)[None]).argmax())
            seen, reward, terminated, truncated, _ = environment.step(action)
            rewards.append(float(reward))
            over_yet = terminated or truncated
        returns.append(sum(rewards))
        lengths.append(len(rewards))
        over.append(promised - sum(r * task.gamma**t for t, r in enumerate(rewards)))
    assert found == pytest.approx(
        {"return": sum(returns) / 5, "length": sum(lengths) / 5, "overestimation": sum(over) / 5}, abs=1e-3
    )
    assert task.metrics["return"].higher_is_better


def test_a_saved_task_predicts_and_draws(tmp_path):
    task = experiment().task
    save(task, tmp_path)
    again = load(tmp_path)
    inputs = {"observation": torch.randn(3, 4)}
    expected, found = task.predict(inputs), again.predict(inputs)
    assert torch.equal(expected["value"], found["value"])
    assert torch.equal(found["action"], found["value"].argmax(1))
    drawn = again.figures({"seed": torch.tensor([4])})
    assert sorted(drawn) == ["episode", "value map", "value of an episode"]
    assert len(drawn["episode"].axes) == 12
    with pytest.raises(ValueError, match="observation: 3 numbers, expected 4"):
        again.predict({"observation": torch.randn(1, 3)})


@pytest.mark.parametrize("wrong", [{"gamma": 1.0}, {"tau": 0.0}, {"target_every": 0}, {"delta": -1.0}])
def test_what_cannot_be_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=rf"{next(iter(wrong))}={next(iter(wrong.values()))}: expected"):
        QLearning(nn.Linear(4, 2), "CartPole-v1", **wrong)


def test_a_short_run_balances_the_pole_far_longer_than_no_training():
    torch.manual_seed(1)
    training = Training(dqn_cartpole(updates=1000, hidden_dim=128, exploration=2000))
    before = float(dict(evaluate(training, training.experiment.valid))["return"])
    for _ in training:
        pass
    after = float(dict(evaluate(training, training.experiment.valid))["return"])
    assert before < 60
    assert after > 130


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_recipe_solves_cart_pole(seed):
    torch.manual_seed(seed)
    training = Training(dqn_cartpole())
    best, weights = 0.0, {}
    for step in training:
        if step.number % training.experiment.evaluate_every == 0:
            value = float(dict(evaluate(training, training.experiment.valid))["return"])
            if value > best:
                best, weights = value, {name: tensor.clone() for name, tensor in training.task.state_dict().items()}
    training.task.load_state_dict(weights)
    assert float(dict(evaluate(training, training.experiment.test))["return"]) >= 475

"""Experience: what is remembered, what a time limit means, how much is explored; a stream resumed goes on as it would have."""

import sys
from collections import deque

import gymnasium
import pytest
import torch
from chain import LENGTH
from hypothesis import given
from hypothesis import strategies as some
from torch import nn

from thalweg.data.streams import generator
from thalweg.tasks.experience import Environments, Replay, Ring, make, play

ARGUMENTS = {"capacity": 64, "warmup": 16, "exploration": 100}


def replay(environment="CartPole-v1", features=4, **arguments):
    return Replay(environment, nn.Linear(features, 2), 8, **{**ARGUMENTS, **arguments})


@given(some.integers(1, 7), some.lists(some.integers(1, 7), max_size=8))
def test_a_ring_remembers_the_last_rows_and_nothing_else(capacity, counts):
    ring, naive, number = Ring(capacity), deque(maxlen=capacity), 0
    for count in (min(count, capacity) for count in counts):
        rows = torch.arange(number, number + count)
        ring.add({"a": rows, "b": torch.stack([rows, -rows], 1)})
        naive.extend(rows.tolist())
        number += count
    assert len(ring) == len(naive)
    if naive:
        drawn = ring.sample(300, generator(number))
        assert set(drawn["a"].tolist()) == set(naive)
        torch.testing.assert_close(drawn["b"], torch.stack([drawn["a"], -drawn["a"]], 1))


def test_rows_are_drawn_uniformly():
    ring = Ring(10)
    ring.add({"a": torch.arange(10)})
    share = ring.sample(100_000, generator(0))["a"].bincount() / 100_000
    torch.testing.assert_close(share, torch.full((10,), 0.1), atol=0.005, rtol=0)


def test_a_time_limit_ends_the_episode_but_is_not_done_and_what_followed_is_remembered():
    environments = Environments("ThalwegForever-v0", 1, seed=0)
    for _ in range(3):
        row = environments.step(torch.tensor([0]))
        assert torch.equal(environments.observation, row["next_observation"])
    row = environments.step(torch.tensor([0]))  # the fourth and last
    assert environments.episode == [1]
    assert not row["done"].item()
    followed = (row["observation"].argmax() + 1) % LENGTH
    assert row["next_observation"].argmax() == followed


def test_a_step_is_what_gymnasium_says_it_is():
    environments = Environments("CartPole-v1", 2, seed=3)
    peer = [gymnasium.make("CartPole-v1") for _ in range(2)]
    seen = [p.reset(seed=generator(3, i, 0).initial_seed() % 2**31)[0] for i, p in enumerate(peer)]
    ended = 0
    for time in range(60):
        action = torch.tensor([time % 2, 1])
        row = environments.step(action)
        for index, p in enumerate(peer):
            after, reward, terminated, truncated, _ = p.step(int(action[index]))
            assert row["observation"][index].tolist() == seen[index].tolist()
            assert row["next_observation"][index].tolist() == after.tolist()
            assert (row["reward"][index], row["done"][index]) == (reward, terminated)
            seen[index] = after
            if terminated or truncated:
                ended += 1
                number = environments.episode[index]
                seen[index] = p.reset(seed=generator(3, index, number).initial_seed() % 2**31)[0]
    assert ended > 2


def test_exploration_falls_linearly_with_the_steps_in_the_environment():
    stream = replay(epsilon=0.2, num_envs=2)
    seen = {0: stream.epsilon}
    for _ in range(75):
        stream.act()
        seen[stream.memory.added] = stream.epsilon
    assert seen[0] == 1
    assert seen[50] == pytest.approx(0.6)
    assert seen[100] == seen[150] == pytest.approx(0.2)


def test_an_explorer_takes_the_best_action_but_for_a_share_epsilon_of_chance():
    stream = replay("ThalwegForever-v0", LENGTH, epsilon=0.4, exploration=1, capacity=4000)
    with torch.no_grad():
        stream.model.weight.zero_()
        stream.model.bias.copy_(torch.tensor([0.0, 1.0]))
    for _ in range(4000):
        stream.act()
    assert stream.memory.tensors["action"][1:].float().mean() == pytest.approx(0.8, abs=0.03)


def test_the_first_batch_comes_after_the_warm_up_and_each_further_one_after_some_acts():
    stream = replay(num_envs=4, acts=2)
    batches = stream.batches()
    batch = next(batches)
    assert stream.memory.added == 16
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "observation": (8, 4), "action": (8,), "reward": (8,), "next_observation": (8, 4), "done": (8,)
    }  # fmt: skip
    next(batches)
    assert stream.memory.added == 24


def test_a_stream_acts_with_the_weights_as_they_are_now():
    stream = replay("ThalwegForever-v0", LENGTH, epsilon=0.0, exploration=1)
    stream.act()
    for best in (0, 1, 0):
        with torch.no_grad():
            stream.model.weight.zero_()
            stream.model.bias.copy_(torch.eye(2)[best])
        stream.act()
        assert stream.memory.tensors["action"][stream.memory.added - 1] == best


@pytest.mark.parametrize("environment", ["CartPole-v1", "ThalwegChain-v0"])
def test_a_stream_restored_elsewhere_goes_on_exactly_as_it_would_have(environment):
    features = 4 if environment == "CartPole-v1" else LENGTH
    stream = replay(environment, features, num_envs=3)
    batches = stream.batches()
    for _ in range(30):
        next(batches)
    state = {"state": stream.state_dict(), "weights": stream.model.state_dict()}
    state = torch.utils._pytree.tree_map_only(torch.Tensor, torch.clone, state)
    torch.manual_seed(99)
    other = replay(environment, features, num_envs=3)
    other.model.load_state_dict(state["weights"])
    other.load_state_dict(state["state"])
    again = other.batches(30)
    for _ in range(40):
        expected, found = next(batches), next(again)
        assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert other.epsilon == stream.epsilon
    assert other.environments.episode == stream.environments.episode


def test_an_environment_with_a_randomness_of_its_own_is_refused_when_resumed():
    stream = replay("ThalwegUnseeded-v0", LENGTH)
    next(stream.batches())
    with pytest.raises(ValueError, match=r"environment='ThalwegUnseeded-v0' cannot be resumed.*led elsewhere"):
        replay("ThalwegUnseeded-v0", LENGTH).load_state_dict(stream.state_dict())


def test_an_episode_depends_on_its_seed_and_not_on_those_played_beside_it():
    def policy(observation):
        return (observation[:, 2] > 0).long()

    def episodes(seeds):
        returns = torch.zeros(len(seeds))
        for step in play(policy, "CartPole-v1", seeds):
            returns[step["episode"]] += step["reward"]
        return returns.tolist()

    together = episodes([3, 5, 7, 8])
    assert together == [episodes([seed])[0] for seed in (3, 5, 7, 8)]
    assert len(set(together)) > 1


def test_what_cannot_be_is_said(monkeypatch):
    with pytest.raises(ValueError, match="environment='CartPol-v1'"):
        make("CartPol-v1")
    with pytest.raises(ValueError, match="environment='Pendulum-v1': expected actions numbered from 0, got Box"):
        make("Pendulum-v1")
    with pytest.raises(ValueError, match="start=5: the stream stands at batch 0"):
        next(replay().batches(5))
    for wrong in ({"epsilon": 1.5}, {"warmup": 65}, {"num_envs": 17}, {"acts": 0}, {"exploration": 0}):
        name = "warmup" if "num_envs" in wrong else next(iter(wrong))
        with pytest.raises(ValueError, match=f"{name}="):
            replay(**wrong)
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ModuleNotFoundError, match=r"'CartPole-v1' needs Gymnasium: pip install 'thalweg\[control\]'"):
        make("CartPole-v1")

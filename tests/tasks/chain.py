"""Environments whose optimal values are known in closed form, registered with Gymnasium."""

import gymnasium
import numpy

LENGTH = 5
"""States of the chain."""


class Chain(gymnasium.Env):
    """A corridor: action 1 goes right, 0 left; leaving it on the right is worth 1 and ends the episode.

    What is seen after the end is what is seen at the start: only `done` tells them apart.
    V(s) = gamma^(LENGTH - 1 - s).
    """

    observation_space = gymnasium.spaces.Box(0, 1, (LENGTH,), numpy.float64)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(LENGTH))
        return self.seen(), {}

    def step(self, action):
        self.place = max(self.place - 1, 0) if action == 0 else self.place + 1
        left = self.place == LENGTH
        if left:
            self.place = 0
        return self.seen(), float(left), left, False, {}

    def seen(self):
        return numpy.eye(LENGTH)[self.place]


class Forever(Chain):
    """Every step is worth 1 and nothing ends but by the time limit: Q = 1 / (1 - gamma)."""

    def step(self, action):
        self.place = (self.place + 1) % LENGTH
        return self.seen(), 1.0, False, False, {}


class Unseeded(Chain):
    """Breaks the rule that all randomness is in the seed."""

    def seen(self):
        return super().seen() + numpy.random.default_rng().random()


for made in (Chain, Forever, Unseeded):
    gymnasium.register(f"Thalweg{made.__name__}-v0", entry_point=made, max_episode_steps=4 if made is Forever else 50)

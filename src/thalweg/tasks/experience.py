"""Learning from interaction: a stream acts with the current policy, remembers what happened, and yields what it remembers.

An episode is a function of its seed and its actions. So an environment is put back where it was by acting again from
the start of its episode, and nothing has to be known about its inside.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy
import torch
from torch import Generator, Tensor, nn

from thalweg.data.streams import generator
from thalweg.vocabulary import Batch

Policy = Callable[[Tensor], Tensor]


def make(environment: str) -> Any:
    """A Gymnasium environment by its id.   ValueError if there is none, or if its actions are not numbered from 0."""
    try:
        import gymnasium
    except ImportError as error:
        raise ModuleNotFoundError(f"environment={environment!r} needs Gymnasium: pip install 'thalweg[control]'") from error
    try:
        made = gymnasium.make(environment, disable_env_checker=True)
    except gymnasium.error.Error as error:
        raise ValueError(f"environment={environment!r}: {error}") from error
    if not isinstance(made.action_space, gymnasium.spaces.Discrete) or made.action_space.start != 0:
        raise ValueError(f"environment={environment!r}: expected actions numbered from 0, got {made.action_space}")
    return made


def play(policy: Policy, environment: str, seeds: Sequence[int]) -> Iterator[Batch]:
    """Plays an episode a seed, side by side, to its end; yields each step of those that still run.

    policy: observation [batch ...] -> action [batch].   Yields episode (which of the seeds), observation, action, reward.
    """
    copies = [make(environment) for _ in seeds]
    running = numpy.arange(len(copies))
    observation = stack([copy.reset(seed=seed)[0] for copy, seed in zip(copies, seeds, strict=True)])
    while len(running):
        action = policy(observation).cpu()
        after, reward, terminated, truncated = step([copies[i] for i in running], action)
        yield {"episode": torch.from_numpy(running), "observation": observation, "action": action, "reward": reward}
        going = ~(terminated | truncated)
        running, observation = running[going.numpy()], after[going]


def step(copies: Sequence[Any], action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One step of each environment: observation, reward, terminated, truncated [batch ...]."""
    after, reward, terminated, truncated, _ = zip(
        *(c.step(a) for c, a in zip(copies, action.tolist(), strict=True)), strict=True
    )
    return stack(after), torch.tensor(reward, dtype=torch.float32), torch.tensor(terminated), torch.tensor(truncated)


def stack(observations: Sequence[Any]) -> Tensor:
    """Observations as a batch; numbers with a fraction in single precision."""
    tensor = torch.from_numpy(numpy.stack(observations))
    return tensor.float() if tensor.is_floating_point() else tensor


class Environments:
    """Copies of a Gymnasium environment that act side by side, the next episode starting where one ended.

    state_dict holds the number of each copy's episode and the actions since its start: `load_state_dict` repeats them,
    and raises ValueError if that leads elsewhere, because the environment then has a randomness that no seed governs.
    """

    def __init__(self, environment: str, num_envs: int, seed: int):
        if num_envs < 1:
            raise ValueError(f"num_envs={num_envs}: expected at least 1")
        self.environment, self.seed = environment, seed
        self.copies = [make(environment) for _ in range(num_envs)]
        self.num_actions = int(self.copies[0].action_space.n)
        self.episode = [0] * num_envs
        self.actions: list[list[int]] = [[] for _ in range(num_envs)]
        self.observation = stack([self._reset(index) for index in range(num_envs)])

    def _reset(self, index: int) -> Any:
        seed = generator(self.seed, index, self.episode[index]).initial_seed() % 2**31
        return self.copies[index].reset(seed=seed)[0]

    def step(self, action: Tensor) -> Batch:
        """Acts in every copy.   action: [num_envs]

        done is termination only: a time limit ends the episode but not the world, so what follows still has a value.
        next_observation is what the action led to, also where the next episode has begun.
        """
        before = self.observation
        after, reward, terminated, truncated = step(self.copies, action)
        self.observation = after.clone()
        for index, (taken, ended) in enumerate(zip(action.tolist(), (terminated | truncated).tolist(), strict=True)):
            self.actions[index].append(taken)
            if ended:
                self.episode[index] += 1
                self.actions[index] = []
                self.observation[index] = stack([self._reset(index)])[0]
        return {"observation": before, "action": action, "reward": reward, "next_observation": after, "done": terminated}

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed, "episode": list(self.episode), "observation": self.observation.clone(),
                "actions": [torch.tensor(taken, dtype=torch.int64) for taken in self.actions]}  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seed, self.episode = state["seed"], list(state["episode"])
        self.actions = [taken.tolist() for taken in state["actions"]]
        reached = []
        for index, copy in enumerate(self.copies):
            observation = self._reset(index)
            for action in self.actions[index]:
                observation = copy.step(action)[0]
            reached.append(observation)
        self.observation = stack(reached)
        if not torch.equal(self.observation, state["observation"]):
            raise ValueError(f"environment={self.environment!r} cannot be resumed: the same seed and actions led elsewhere")


class Ring:
    """The last `capacity` transitions; a new one takes the place of the oldest.   Lin 1992; LBDL 6.7"""

    def __init__(self, capacity: int):
        if capacity < 1:
            raise ValueError(f"capacity={capacity}: expected at least 1")
        self.capacity, self.added = capacity, 0
        self.tensors: Batch = {}

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, rows: Batch) -> None:
        """rows: tensors of the same number of rows, at most `capacity`."""
        count = len(next(iter(rows.values())))
        place = torch.arange(self.added, self.added + count) % self.capacity
        for name, row in rows.items():
            if name not in self.tensors:
                self.tensors[name] = row.new_zeros(self.capacity, *row.shape[1:])
            self.tensors[name][place] = row
        self.added += count

    def sample(self, batch_size: int, random: Generator) -> Batch:
        """Rows drawn uniformly, with replacement."""
        drawn = torch.randint(len(self), (batch_size,), generator=random)
        return {name: tensor[drawn] for name, tensor in self.tensors.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"added": self.added, "tensors": {name: tensor[: len(self)] for name, tensor in self.tensors.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.added = state["added"]
        self.tensors = {}
        for name, rows in state["tensors"].items():
            self.tensors[name] = rows.new_zeros(self.capacity, *rows.shape[1:])
            self.tensors[name][: len(rows)] = rows


class Replay:
    """Experience of the current policy, replayed: acts a little, then yields a random batch of what it remembers.

    The action is random with probability epsilon, else argmax_a Q(s, a); epsilon falls linearly from 1 to `epsilon`
    over the first `exploration` steps in the environment.
    model: observation [batch ...] -> values [batch action], as it is when a batch is asked for.
    num_envs: copies that act side by side.   acts: steps of each between two batches.   warmup: transitions remembered
    before the first batch.   capacity: transitions remembered at most.
    Batches: observation, action, reward, next_observation, done.   A resumed stream goes on exactly as it would have.
    """

    def __init__(
        self,
        environment: str,
        model: nn.Module,
        batch_size: int,
        *,
        capacity: int,
        warmup: int,
        exploration: int,
        epsilon: float = 0.05,
        num_envs: int = 1,
        acts: int = 1,
    ):
        if not 0 <= epsilon <= 1:
            raise ValueError(f"epsilon={epsilon}: expected a probability")
        if not num_envs <= warmup <= capacity:
            raise ValueError(f"warmup={warmup}: expected at least num_envs={num_envs} and at most capacity={capacity}")
        for name, value in {"batch_size": batch_size, "exploration": exploration, "acts": acts}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: expected at least 1")
        self.model, self.batch_size, self.warmup = model, batch_size, warmup
        self.exploration, self.final_epsilon, self.acts = exploration, epsilon, acts
        seed = torch.initial_seed() % 2**63
        self.random = generator(seed, 0)
        self.environments = Environments(environment, num_envs, seed)
        self.memory = Ring(capacity)
        self.number = 0  # of the next batch

    @property
    def epsilon(self) -> float:
        """The probability of a random action, now."""
        return 1 - (1 - self.final_epsilon) * min(self.memory.added / self.exploration, 1)

    @torch.no_grad()
    def act(self) -> None:
        """One step in every copy, remembered."""
        observation = self.environments.observation
        greedy = self.model(observation.to(next(self.model.parameters()).device)).argmax(-1).cpu()
        chance = torch.randint(self.environments.num_actions, greedy.shape, generator=self.random)
        explore = torch.rand(greedy.shape, generator=self.random) < self.epsilon
        self.memory.add(self.environments.step(torch.where(explore, chance, greedy)))

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """ValueError if `start` is not the number of the next batch: experience cannot be skipped."""
        if start != self.number:
            raise ValueError(f"start={start}: the stream stands at batch {self.number}; restore its state to go elsewhere")
        while True:
            for _ in range(self.acts):
                self.act()
            while len(self.memory) < self.warmup:
                self.act()
            self.number += 1
            yield self.memory.sample(self.batch_size, self.random)

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number, "random": self.random.get_state(), "environments": self.environments.state_dict(),
                "memory": self.memory.state_dict()}  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number = state["number"]
        self.random.set_state(state["random"])
        self.environments.load_state_dict(state["environments"])
        self.memory.load_state_dict(state["memory"])

"""Recipes that act: they learn from what their own actions lead to."""

import torch

from thalweg.build import build
from thalweg.data.streams import TensorStream
from thalweg.models.control.q_network import QNetwork
from thalweg.tasks.experience import Replay
from thalweg.tasks.q_learning import QLearning
from thalweg.training import Experiment
from thalweg.training.optimisers import adam
from thalweg.training.schedules import linear


def dqn_cartpole(*, updates: int = 20_000, batch_size: int = 128, lr: float = 1e-3, hidden_dim: int = 256,
                 gamma: float = 0.995, double_q: bool = True, target_every: int = 50, num_envs: int = 4,
                 exploration: int = 10_000) -> Experiment:  # fmt: skip
    """DQN balances a pole on a cart.   LBDL 6.7

    updates: steps of the optimiser; every copy of the environment takes one step an update.
    exploration: environment steps over which the share of random actions falls from 1 to 0.05.
    """
    model = build(QNetwork, in_features=4, num_actions=2, hidden_dims=[hidden_dim, hidden_dim])
    task = build(QLearning, model=model, environment="CartPole-v1", gamma=gamma, double_q=double_q, target_every=target_every)
    train = Replay("CartPole-v1", model, batch_size, capacity=50_000, warmup=1000, exploration=exploration, num_envs=num_envs)
    episodes = torch.arange(200)  # the seeds of their environments
    return Experiment(task=task, train=train, valid=TensorStream({"seed": episodes[:100]}, 100),  # type: ignore[arg-type]
                      test=TensorStream({"seed": episodes[100:]}, 100), steps=updates, optimizer=adam(lr), schedule=linear(),
                      monitor="return", evaluate_every=1000)  # fmt: skip

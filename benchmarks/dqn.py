"""DQN on CartPole: how many steps a second, in the environment and of the optimiser, against stable-baselines3.

The same work in both: four copies of the environment, one step of each an update, batches of 128, two layers of 256 units,
Huber loss, Adam, gradients clipped at 10, targets copied every 50 updates, fp32, one thread.
What differs: our optimiser step is fused, our network acts on every step also where chance decides.
"""

import json
import time

import gymnasium
import torch
from compare import alternate

from thalweg.build import build
from thalweg.models.control.q_network import QNetwork
from thalweg.tasks.experience import Replay
from thalweg.tasks.q_learning import QLearning
from thalweg.training import Experiment, Training
from thalweg.training.optimisers import adam

ENVIRONMENT, COPIES, UPDATES, WARMUP = "CartPole-v1", 4, 2000, 1000
ENVIRONMENT_STEPS = WARMUP + COPIES * UPDATES
SHARED = {"batch_size": 128, "gamma": 0.99, "lr": 1e-3, "width": 256, "capacity": 50_000, "every": 50, "exploration": 5000}


def ours() -> float:
    model = build(QNetwork, in_features=4, num_actions=2, hidden_dims=[SHARED["width"]] * 2)
    task = build(QLearning, model=model, environment=ENVIRONMENT, gamma=SHARED["gamma"], double_q=False, delta=1.0,
                 target_every=SHARED["every"])  # fmt: skip
    stream = Replay(ENVIRONMENT, model, SHARED["batch_size"], capacity=SHARED["capacity"], warmup=WARMUP,
                    exploration=SHARED["exploration"], num_envs=COPIES)  # fmt: skip
    training = Training(Experiment(task=task, train=stream, steps=UPDATES, optimizer=adam(SHARED["lr"]), clip=10.0),
                        device="cpu", precision="fp32")  # fmt: skip
    start = time.perf_counter()
    for _ in training:
        pass
    return time.perf_counter() - start


def peer() -> float:
    from stable_baselines3 import DQN
    from stable_baselines3.common.vec_env import DummyVecEnv

    environments = DummyVecEnv([lambda: gymnasium.make(ENVIRONMENT)] * COPIES)
    agent = DQN("MlpPolicy", environments, learning_rate=SHARED["lr"], buffer_size=SHARED["capacity"], learning_starts=WARMUP,
                batch_size=SHARED["batch_size"], gamma=SHARED["gamma"], train_freq=1, gradient_steps=1,
                target_update_interval=SHARED["every"] * COPIES, exploration_fraction=SHARED["exploration"] / ENVIRONMENT_STEPS,
                max_grad_norm=10.0, policy_kwargs={"net_arch": [SHARED["width"]] * 2}, device="cpu")  # fmt: skip
    start = time.perf_counter()
    agent.learn(ENVIRONMENT_STEPS)
    return time.perf_counter() - start


if __name__ == "__main__":
    torch.set_num_threads(1)
    seconds = alternate({"ours": ours, "stable_baselines3": peer})
    print(json.dumps({
        "environment_steps_per_s": {name: round(ENVIRONMENT_STEPS / taken) for name, taken in seconds.items()},
        "gradient_steps_per_s": {name: round(UPDATES / taken) for name, taken in seconds.items()},
        "ratio": round(seconds["stable_baselines3"] / seconds["ours"], 2),
        "shared": SHARED,
    }))  # fmt: skip

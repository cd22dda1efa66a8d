"""What the loop costs: a tiny MLP, batches of 64, against loops written by hand doing the same work.

ours       Training with the recorder writing metrics.jsonl
best       by hand: batches indexed from tensors, fused Adam, losses kept and written to a file at the end
usual      by hand: DataLoader over a TensorDataset, Adam as it comes
"""

import json
import tempfile
import time
from pathlib import Path

import torch
from compare import alternate
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from thalweg.data.streams import TensorStream
from thalweg.models.classical.mlp import mlp
from thalweg.training import Experiment, Task, Training
from thalweg.training.optimisers import adam
from thalweg.training.recorder import Recorder

SIZE, BATCH, STEPS = 64_000, 64, 1000
FEATURES, LABEL = torch.randn(SIZE, 32), torch.randint(0, 10, (SIZE,))


def network() -> nn.Module:
    return mlp(32, 10, hidden_dims=[128])


class Labels(Task):
    def __init__(self):
        super().__init__()
        self.model = network()

    def loss(self, batch):
        return cross_entropy(self.model(batch["features"]), batch["label"], reduction="sum"), len(batch["label"])


def ours() -> float:
    stream = TensorStream({"features": FEATURES, "label": LABEL}, BATCH, shuffle=True)
    training = Training(Experiment(task=Labels(), train=stream, epochs=1, optimizer=adam(1e-3)), device="cpu", precision="fp32")
    with tempfile.TemporaryDirectory() as folder, Recorder(Path(folder)) as recorder:
        start = time.perf_counter()
        for step in training:
            recorder.write(step)
        recorder.flush()
        return time.perf_counter() - start


def best() -> float:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    losses = []
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        order = torch.randperm(SIZE).split(BATCH)
        for indices in order:
            loss = cross_entropy(model(FEATURES[indices]), LABEL[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        lines = [json.dumps({"step": step, "loss": loss}) for step, loss in enumerate(torch.stack(losses).tolist())]
        Path(folder, "losses.jsonl").write_text("\n".join(lines))
        return time.perf_counter() - start


def usual() -> float:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = DataLoader(TensorDataset(FEATURES, LABEL), batch_size=BATCH, shuffle=True)
    start = time.perf_counter()
    for features, label in loader:
        loss = cross_entropy(model(features), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - start


def measure() -> dict:
    seconds = alternate({"ours": ours, "best": best, "usual": usual}, repeats=7)
    return {
        "what": "microseconds a step of a 32-128-10 MLP, batch 64, two torch threads where there are two cores",
        **{f"{name}_us_per_step": 1e6 * value / STEPS for name, value in seconds.items()},
        "over_best": seconds["ours"] / seconds["best"] - 1,
        "faster_than_usual": seconds["usual"] / seconds["ours"],
        "target": "over_best <= 0.05",
    }


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))

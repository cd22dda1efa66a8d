"""One step of every optimiser on 200 tensors of 10 million parameters in all, against torch's AdamW, fused and foreach.

100 matrices of 316 x 316 and 100 vectors of 316, as weights and biases are. The wrappers are measured around adamw.
An optimiser that torch has is there too: its ratio says what the choice costs.
"""

import json
import time
from collections.abc import Callable

import torch
from compare import alternate
from torch import nn
from torch.optim import Optimizer

from thalweg.training.optimisers import OPTIMISERS, adamw, centralised, gradient_noise, lookahead, muon, swats

WIDTH, COUNT, STEPS = 316, 100, 10
OURS = ("yogi", "adabound", "amsbound", "sgdw", "swats", "lars", "lamb")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def model() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH, device=DEVICE) for _ in range(COUNT)])
    for parameter in layers.parameters():
        parameter.grad = torch.randn_like(parameter)
    return layers


def timed(optimizer: Optimizer) -> Callable[[], float]:
    """Seconds of a step."""

    def run() -> float:
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(STEPS):
            optimizer.step()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / STEPS

    return run


def measure() -> dict:
    peers = {
        f"torch_adamw_{kind}": torch.optim.AdamW(model().parameters(), lr=1e-3, **{kind: True}) for kind in ("fused", "foreach")
    }
    made = {name: make(1e-3) for name, make in OPTIMISERS.items()} | {
        "swats": swats(1e-3, tolerance=0.0),  # which never switches: a step of its dearer half
        "muon": muon(1e-3, other=adamw(1e-3)),
        "lookahead_adamw": lookahead(adamw(1e-3)),
        "centralised_adamw": centralised(adamw(1e-3)),
        "noisy_adamw": gradient_noise(adamw(1e-3)),
    }
    seconds = alternate({name: timed(optimizer) for name, optimizer in peers.items()}
                        | {name: timed(make(model())) for name, make in made.items()})  # fmt: skip
    fused, foreach = (seconds[name] for name in peers)
    return {
        "what": f"milliseconds a step on {DEVICE}: 200 tensors, 10 million parameters in float32",
        **{f"{name}_milliseconds": round(1000 * value, 3) for name, value in seconds.items()},
        "times_fused_adamw": {name: round(seconds[name] / fused, 2) for name in made},
        "times_foreach_adamw": {name: round(seconds[name] / foreach, 2) for name in made},
        "slowest_of_ours_times_foreach_adamw": max(seconds[name] for name in OURS) / foreach,
        "target": "slowest_of_ours_times_foreach_adamw <= 1.2",
    }


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))

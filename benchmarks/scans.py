"""Recurrences at 1,024 places: a training step (forward and backward), all at once against place by place.

at once         the layer as it is: scans and convolutions
place by place  the same layer, a place at a time with the state handed on, all inside one graph
linear_scan     alone, at several widths, against h = a_t h + x_t in a loop over unbound places (the best loop there is)
sequential      what has no scan: our loops, beside torch's LSTM and GRU of the same width and a loop over its LSTMCell,
                which is what one has who changes a cell
"""

import json
import sys
import time

import torch
from compare import alternate
from torch import Tensor, nn

from thalweg.layers.recurrence import QRNN, SCRN, ClockworkRNN, Jordan, PeepholeLSTM, irnn
from thalweg.layers.scan import linear_scan
from thalweg.layers.state_space import S4D, Mamba
from thalweg.training.machine import keep_memory

TIME, BATCH, WIDTH = (int(word) for word in sys.argv[1:4]) if len(sys.argv) > 3 else (1024, 8, 64)
REPEATS = 5


def trained(run, *leaves: Tensor) -> float:
    """Seconds of a forward and a backward pass."""
    start = time.perf_counter()
    y = run()
    torch.autograd.grad(y, leaves, torch.ones_like(y))
    return time.perf_counter() - start


def at_once(layer: nn.Module, x: Tensor) -> float:
    return trained(lambda: layer(x)[0], x, *layer.parameters())


def place_by_place(layer: nn.Module, x: Tensor) -> float:
    def run() -> Tensor:
        state, ys = None, []
        for place in x.unbind(1):
            if hasattr(layer, "step"):
                y, state = layer.step(place, state)
            else:
                y, state = layer(place[:, None], state)
                y = y[:, 0]
            ys.append(y)
        return torch.stack(ys, 1)

    return trained(run, x, *layer.parameters())


class Cells(nn.Module):
    def __init__(self, cell: nn.Module):
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> tuple[Tensor]:
        state, hs = None, []
        for place in x.unbind(1):
            state = self.cell(place, state)
            hs.append(state[0])
        return (torch.stack(hs, 1),)


def looped(gate: Tensor, x: Tensor, h: Tensor) -> Tensor:
    hs = []
    for now, new in zip(gate.unbind(1), x.unbind(1), strict=True):
        h = torch.addcmul(new, now, h)
        hs.append(h)
    return torch.stack(hs, 1)


def compared(ours, peer) -> dict[str, float]:
    seconds = alternate({"at_once": ours, "place_by_place": peer}, REPEATS)
    milliseconds = {f"{name}_ms": round(1e3 * value, 2) for name, value in seconds.items()}
    return {**milliseconds, "faster": round(seconds["place_by_place"] / seconds["at_once"], 2)}


def scan_alone(batch: int, width: int) -> dict[str, float]:
    gate, x = (torch.rand(batch, TIME, width, requires_grad=True) for _ in range(2))
    start = torch.zeros(batch, width)
    return compared(
        lambda: trained(lambda: linear_scan(gate, x, start), gate, x),
        lambda: trained(lambda: looped(gate, x, start), gate, x),
    )


def measure() -> dict:
    keep_memory()
    x = torch.randn(BATCH, TIME, WIDTH, requires_grad=True)
    scans = {"QRNN": QRNN(WIDTH, WIDTH), "S4D": S4D(WIDTH), "Mamba": Mamba(WIDTH, 2 * WIDTH)}
    loops = {
        "torch_LSTM": nn.LSTM(WIDTH, WIDTH, batch_first=True),
        "torch_LSTMCell": Cells(nn.LSTMCell(WIDTH, WIDTH)),
        "PeepholeLSTM": PeepholeLSTM(WIDTH, WIDTH),
        "torch_GRU": nn.GRU(WIDTH, WIDTH, batch_first=True),
        "irnn": irnn(WIDTH, WIDTH),
        "Jordan": Jordan(WIDTH, WIDTH, WIDTH),
        "ClockworkRNN": ClockworkRNN(WIDTH, WIDTH),
        "SCRN": SCRN(WIDTH, WIDTH, WIDTH // 2),
    }
    sequential = alternate({name: lambda layer=layer: at_once(layer, x) for name, layer in loops.items()}, REPEATS)
    return {
        "what": f"forward and backward, {TIME} places, batch {BATCH}, width {WIDTH}, float32, one thread",
        "linear_scan": {f"batch {batch}, width {width}": scan_alone(batch, width)
                        for batch, width in ((1, 64), (BATCH, WIDTH), (16, 256))},
        "layers": {name: compared(lambda layer=layer: at_once(layer, x), lambda layer=layer: place_by_place(layer, x))
                   for name, layer in scans.items()},
        "sequential_ms": {name: round(1e3 * seconds, 2) for name, seconds in sequential.items()},
        "target": "faster >= 5",
    }  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(measure(), indent=2))

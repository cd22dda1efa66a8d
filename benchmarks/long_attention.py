"""What the ways to attend cost as a text grows: seconds and memory of a pass forward and backward, from 256 places to 16,384.

formula   the weights as a matrix, as one would write it: where the square of the length is
kernel    torch's scaled_dot_product_attention, whose memory is linear but whose time is not
the rest  each of `thalweg.layers`, at the sizes that its paper has for long texts, made smaller with the width

peak      bytes that are allocated at once, by torch's own allocator, above what was there before
exponent  over the last four lengths, fitted: 1 is linear, 2 quadratic
faster_from   the shortest length measured from which a way was always faster than the formula, and than the kernel

A way is measured no further once a pass takes more than SLOW seconds.   python benchmarks/long_attention.py [SMALL LARGE]
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from math import log2
from statistics import linear_regression

import torch
from compare import alternate
from torch import Tensor, nn

from thalweg.layers.attention import attention
from thalweg.layers.clustered_attention import RoutedAttention, hashed_attention
from thalweg.layers.linear_attention import Linformer, elu_features, linear_attention, orthogonal_directions, softmax_features
from thalweg.layers.mixing import AttentionFree, DenseSynthesizer, RandomSynthesizer, fourier_mixing
from thalweg.layers.sinkhorn_attention import SinkhornAttention
from thalweg.layers.sparse_attention import random_blocks, sparse_attention, strided_attention
from thalweg.training.machine import keep_memory, peak_memory

WIDTH, HEADS, WINDOW, SLOW = 64, 2, 64, 3.0
SMALL, LARGE = (int(word) for word in sys.argv[1:3]) if len(sys.argv) > 2 else (256, 16384)
LENGTHS = [SMALL * 2**i for i in range(int(log2(LARGE / SMALL)) + 1)]

Way = Callable[[Tensor], Tensor]  # [batch time embed] -> a tensor to go back from


def on_heads(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Way:
    """The same numbers as queries, keys and values: what a projection costs is the same for all."""

    def run(x: Tensor) -> Tensor:
        heads = x.unflatten(-1, (HEADS, -1)).transpose(1, 2)
        return attend(heads, heads, heads)

    return run


def formula(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1) @ value


def ways(length: int) -> dict[str, Way]:
    dim = WIDTH // HEADS
    directions, rotations = orthogonal_directions(2 * dim, dim), torch.randn(2, dim, max(1, length // WINDOW // 2))
    chosen = random_blocks(length, WINDOW, min(2, length // WINDOW - 1))
    clusters = max(1, round(length**0.5))

    def performer(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
        phi = softmax_features(q, directions, query=True), softmax_features(k, directions, query=False)
        return linear_attention(*phi, v, causal=causal)

    def by_elu(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
        return linear_attention(elu_features(q), elu_features(k), v, causal=causal)

    on_queries: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
        "formula": formula,
        "kernel": attention,
        "kernel_causal": partial(attention, causal=True),
        "window": partial(sparse_attention, window=WINDOW),
        "window_causal": partial(sparse_attention, window=WINDOW, causal=True),
        "longformer": partial(sparse_attention, window=WINDOW, tokens=8),
        "big_bird": partial(sparse_attention, window=WINDOW, tokens=8, chosen=chosen),
        "strided": partial(strided_attention, stride=clusters),
        "linformer": Linformer(length, WINDOW),
        "linear": by_elu,
        "linear_causal": partial(by_elu, causal=True),
        "performer": performer,
        "performer_causal": partial(performer, causal=True),
        "reformer_2_rounds": lambda q, k, v: hashed_attention(q, v, rotations, WINDOW),
        "routing": RoutedAttention(HEADS, dim, clusters),
        "sinkhorn": SinkhornAttention(dim, length, WINDOW),
    }
    on_places: dict[str, nn.Module | Way] = {
        "synthesizer_dense": DenseSynthesizer(WIDTH, HEADS, length),
        "synthesizer_random": RandomSynthesizer(WIDTH, HEADS, length),
        "attention_free": AttentionFree(WIDTH, length),
        "fourier": fourier_mixing,
    }
    return {name: on_heads(attend) for name, attend in on_queries.items()} | on_places


def passed(way: Way, x: Tensor) -> float:
    start = time.perf_counter()
    y = way(x)
    torch.autograd.backward(y, torch.ones_like(y))
    return time.perf_counter() - start


def exponents(measured: dict[int, float]) -> float | None:
    last = sorted(measured)[-4:]
    return round(linear_regression([*map(log2, last)], [log2(measured[n]) for n in last]).slope, 2) if len(last) > 1 else None


def faster_from(ours: dict[int, float], dense: dict[int, float]) -> int | None:
    """From there on ours is faster wherever both were measured; where only ours still was, the other was too slow."""
    found = None
    for length in sorted(ours, reverse=True):
        if length in dense and ours[length] >= dense[length]:
            break
        found = length
    return found


def measure() -> dict:
    keep_memory()
    seconds: dict[str, dict[int, float]] = {}
    memory: dict[str, dict[int, int]] = {}
    for length in LENGTHS:
        x = torch.randn(1, length, WIDTH, requires_grad=True)
        going = {name: way for name, way in ways(length).items()
                 if length == LENGTHS[0] or seconds[name].get(length // 2, SLOW) < SLOW / 4}  # fmt: skip
        for name, way in going.items():  # before times are taken, so that what a first call does is done
            memory.setdefault(name, {})[length] = peak_memory(partial(passed, way, x))
        runs = {name: partial(passed, way, x) for name, way in going.items()}
        for name, taken in alternate(runs, repeats=5 if length <= 4096 else 3).items():
            seconds.setdefault(name, {})[length] = taken
    return {
        "what": f"a pass forward and backward, batch 1, width {WIDTH}, {HEADS} heads, window {WINDOW}, float32, one thread",
        "milliseconds": {name: {n: round(1e3 * t, 2) for n, t in row.items()} for name, row in seconds.items()},
        "peak_megabytes": {name: {n: round(b / 1e6, 2) for n, b in row.items()} for name, row in memory.items()},
        "exponent": {name: {"time": exponents(seconds[name]), "memory": exponents(memory[name])} for name in seconds},
        "faster_from": {
            name: {dense: faster_from(row, seconds[dense]) for dense in ("formula", "kernel")}
            for name, row in seconds.items() if name != "formula"
        },
        "target": "formula: exponents of time and memory near 2; window, longformer, linear, linformer: near 1",
    }  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(measure(), indent=2))

"""Layers of attention, biases of distances and large softmaxes against the public implementation of the same: a step each.

A step is a pass forward and backward, in float32 and under bf16 autocast where the machine multiplies it natively.
over: how many times faster ours is than the peer; naive is the formula as one would write it, where no library has the
layer.   Needs timm and transformers.
"""

import json
import time
from collections.abc import Callable

import compare
import torch
from timm.layers import Attention as TimmAttention
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers import T5Config
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention

from thalweg.layers.attention import AdditiveAttention, BilinearAttention, KernelRegression, MultiHeadAttention, attention
from thalweg.layers.position import BucketedBias, RelativeKeys, WindowBias, alibi
from thalweg.layers.softmax import HierarchicalSoftmax
from thalweg.training.machine import keep_memory, native_bf16

BATCH, TIME, WIDTH, HEADS = 32, 256, 384, 6
STEPS = 8
PRECISIONS = ("float32", "bf16") if native_bf16(torch.device("cpu")) else ("float32",)


def timed(step: Callable[[], Tensor], bf16: bool) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        for _ in range(STEPS):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                result = step()
            result.float().square().mean().backward()
        return time.perf_counter() - start

    return run


def compared(steps: dict[str, Callable[[], Tensor]], precisions: tuple[str, ...] = PRECISIONS) -> dict:
    """Milliseconds a step of each, and how much faster ours is."""
    found = {}
    for precision in precisions:
        seconds = compare.alternate({name: timed(step, precision == "bf16") for name, step in steps.items()}, repeats=5)
        found[precision] = {
            "milliseconds": {name: round(1000 * taken / STEPS, 2) for name, taken in seconds.items()},
            "over": {name: round(taken / seconds["ours"], 2) for name, taken in seconds.items() if name != "ours"},
        }
    return found


def self_attention() -> dict:
    x = torch.randn(BATCH, TIME, WIDTH, requires_grad=True)
    ours, theirs = MultiHeadAttention(WIDTH, HEADS), nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    timm = TimmAttention(WIDTH, HEADS, qkv_bias=True)
    return compared({
        "ours": lambda: ours(x),
        "torch": lambda: theirs(x, x, x, need_weights=False)[0],
        "timm": lambda: timm(x),
    })  # fmt: skip


def padded() -> dict:
    x, real = torch.randn(BATCH, TIME, WIDTH, requires_grad=True), torch.arange(TIME) < torch.randint(64, TIME, (BATCH, 1))
    ours, theirs = MultiHeadAttention(WIDTH, HEADS), nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    return compared({
        "ours": lambda: ours(x, mask=real),
        "torch": lambda: theirs(x, x, x, key_padding_mask=~real, need_weights=False)[0],
    })  # fmt: skip


def causal() -> dict:
    x = torch.randn(BATCH, TIME, WIDTH, requires_grad=True)
    ours, theirs = MultiHeadAttention(WIDTH, HEADS, causal=True), nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    future = torch.ones(TIME, TIME, dtype=torch.bool).triu(1)
    return compared({
        "ours": lambda: ours(x),
        "torch": lambda: theirs(x, x, x, attn_mask=future, is_causal=True, need_weights=False)[0],
    })  # fmt: skip


def dropped() -> dict:
    x = torch.randn(BATCH, TIME, WIDTH, requires_grad=True)
    ours = MultiHeadAttention(WIDTH, HEADS, dropout=0.1)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, dropout=0.1, batch_first=True)
    return compared({"ours": lambda: ours(x), "torch": lambda: theirs(x, x, x, need_weights=False)[0]})


def shared_keys() -> dict:
    """The function alone, two heads of keys for six of queries, causal."""
    shape = (BATCH, TIME, HEADS + 4, WIDTH // HEADS)
    parts = torch.randn(shape, requires_grad=True)

    def split() -> tuple[Tensor, ...]:
        held = parts.bfloat16() if torch.is_autocast_enabled("cpu") else parts
        return held.transpose(1, 2).split([HEADS, 2, 2], 1)

    return compared({
        "ours": lambda: attention(*split(), causal=True),
        "torch": lambda: scaled_dot_product_attention(*split(), is_causal=True, enable_gqa=True),
    })  # fmt: skip


def bucketed_bias() -> dict:
    ours = BucketedBias(HEADS)
    theirs = T5Attention(T5Config(d_model=WIDTH, num_heads=HEADS, is_decoder=False), has_relative_attention_bias=True)
    return compared({"ours": lambda: ours(TIME, TIME), "transformers": lambda: theirs.compute_bias(TIME, TIME)})


def window_bias() -> dict:
    ours, theirs = WindowBias(HEADS, 14, 14), WindowAttention(WIDTH, HEADS, window_size=(14, 14))
    return compared({"ours": ours, "timm": theirs._get_rel_pos_bias})


def fixed_bias() -> dict:
    """ALiBi, which has nothing to learn; bloom's adds to the keys alone, since its scores are causal."""
    x, real = torch.zeros(1, requires_grad=True), torch.ones(1, TIME)
    return compared({
        "ours": lambda: alibi(HEADS, TIME, TIME, x) + x,
        "transformers": lambda: build_alibi_tensor(real, HEADS, torch.float32).expand(-1, TIME, -1) + x,
    }, ("float32",))  # fmt: skip


def relative_keys() -> dict:
    query, ours = torch.randn(BATCH, HEADS, TIME, WIDTH // HEADS, requires_grad=True), RelativeKeys(WIDTH // HEADS)
    away = (torch.arange(TIME) - torch.arange(TIME)[:, None]).clamp(-ours.distance, ours.distance) + ours.distance

    def naive() -> Tensor:
        return torch.einsum("bhtd,tsd->bhts", query, ours.table(away)) / (WIDTH // HEADS) ** 0.5

    return compared({"ours": lambda: ours(query, TIME), "naive": naive}, ("float32",))


def scoring() -> dict[str, dict]:
    """Layers that score by a network, a matrix, a distance: 32 queries, a memory of TIME places."""
    query, memory = torch.randn(BATCH, 32, 128, requires_grad=True), torch.randn(BATCH, TIME, 128, requires_grad=True)
    additive, bilinear, kernel = AdditiveAttention(128, 128, 128), BilinearAttention(128, 128), KernelRegression()

    def additive_naive() -> Tensor:
        score = additive.score(torch.tanh(additive.query(query).unsqueeze(2) + additive.key(memory).unsqueeze(1)))
        return score.squeeze(-1).softmax(-1) @ memory

    def kernel_naive() -> Tensor:
        away = query.unsqueeze(2) - memory.unsqueeze(1)
        return (-(away * kernel.width).square().sum(-1) / 2).softmax(-1) @ memory

    pairs = {
        "additive": (lambda: additive(query, memory, memory), additive_naive),
        "bilinear": (lambda: bilinear(query, memory, memory),
                     lambda: torch.einsum("btd,bsd->bts", query, bilinear.key(memory)).softmax(-1) @ memory),
        "kernel_regression": (lambda: kernel(query, memory, memory), kernel_naive),
    }  # fmt: skip
    return {name: compared({"ours": ours, "naive": naive}, ("float32",)) for name, (ours, naive) in pairs.items()}


def large_softmax() -> dict:
    """50,000 words with counts that fall as their rank, in float32, since torch's adaptive softmax knows no autocast."""
    words, x = 50_000, torch.randn(512, WIDTH, requires_grad=True)
    counts = [words // rank + 1 for rank in range(1, words + 1)]
    target = torch.multinomial(torch.tensor(counts).double(), len(x), replacement=True)
    ours = HierarchicalSoftmax(WIDTH, counts, sparse=True)
    adaptive, whole = nn.AdaptiveLogSoftmaxWithLoss(WIDTH, words, [2000, 10_000]), nn.Linear(WIDTH, words, bias=False)

    def afresh(layer: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def step() -> Tensor:
            layer.zero_grad()  # sparse gradients would be kept side by side
            return loss()

        return step

    return compared({
        "ours": afresh(ours, lambda: ours.loss(x, target)[0]),
        "torch_adaptive": afresh(adaptive, lambda: adaptive(x, target).loss),
        "torch_whole": afresh(whole, lambda: cross_entropy(whole(x), target)),
    }, ("float32",))  # fmt: skip


if __name__ == "__main__":
    keep_memory()
    print(json.dumps({
        "what": f"milliseconds a step, batch {BATCH}, {TIME} places, width {WIDTH}, {HEADS} heads",
        "self_attention": self_attention(),
        "padded": padded(),
        "causal": causal(),
        "dropout": dropped(),
        "shared_keys": shared_keys(),
        "bucketed_bias": bucketed_bias(),
        "window_bias": window_bias(),
        "alibi": fixed_bias(),
        "relative_keys": relative_keys(),
        **scoring(),
        "softmax_of_50000_words": large_softmax(),
        "target": "over >= 0.91",
    }))  # fmt: skip

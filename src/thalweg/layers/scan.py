"""Linear recurrences, h_t = a_t h_{t-1} + x_t, without a step for each place.   LBDL 6.9 names them as affine recurrences

A composition of affine maps is an affine map: (a, x) then (b, y) is (b a, b x + y). So time is cut into chunks, all chunks
are composed at once, the states between them are such a recurrence again, but shorter, and from these all chunks are run
at once. Of a thousand places that takes a hundred small operations, of a million two hundred: the depth is logarithmic.
Blelloch 1990, "Prefix sums and their applications"; Martin, Cundy 2017, arXiv:1709.04057.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Inexact
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import pad

CHUNK = 32  # places that are run one after the other, all chunks at once; from 8 to 64 a CPU is equally fast


def linear_scan(
    gate: Inexact[Tensor, "#batch #time *#any"], x: Inexact[Tensor, "batch time *any"], start: Tensor | None = None
) -> Inexact[Tensor, "batch time *any"]:
    """The states of a linear recurrence at every place: each keeps a share of the one before and adds what is new.

    h_t = a_t h_{t-1} + x_t,   t = 1, ..., time,   h_0 = start, or 0.
    gate: a, real or complex, of x's shape or broadcast to it.   x: [batch time ...].   start: [batch ...], broadcast too.
    Nothing is divided and no logarithm taken, so a gate may be 0 and underflow harms nothing; where |a| > 1 the states grow
    as the formula has it. A type of fewer than 32 bits is computed in float32. A batch of none gives none.
    A padded place with gate 1 and x 0 leaves the state as it was.   ValueError if there is no time.
    Elsewhere: torch has one only for compiled code (associative_scan).
    """
    if x.shape[1] == 0:
        raise ValueError(f"x: {list(x.shape)}, expected at least one place in time")
    start = x.new_zeros(()) if start is None else start
    kind = torch.result_type(gate, x)
    exact = torch.promote_types(kind, torch.float32)
    gate, x, start = (v.to(exact) for v in (gate, x, start))
    return Forwards.apply(gate.expand_as(x), x, start.expand_as(x[:, 0])).to(kind)  # type: ignore[no-untyped-call]


class Forwards(Function):
    """h_t = a_t h_{t-1} + x_t. Its gradient flows backwards through the same gates."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, x: Tensor, start: Tensor) -> Tensor:
        state = _run(_places(gate), _places(x), start)[:, : x.shape[1]]
        ctx.save_for_backward(gate, start, state)
        return state

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:  # type: ignore[override]
        gate, start, state = ctx.saved_tensors
        flow = Backwards.apply(gate.conj(), grad)  # type: ignore[no-untyped-call]
        to_gate = flow * torch.cat([start[:, None], state[:, :-1]], 1).conj() if ctx.needs_input_grad[0] else None
        return to_gate, flow, gate[:, 0].conj() * flow[:, 0]


class Backwards(Function):
    """h_t = a_{t+1} h_{t+1} + x_t, from 0 after the end. Its gradient flows forwards through the same gates."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, x: Tensor) -> Tensor:
        first, *others = _places(gate)
        next_chunk = torch.cat([first[:, 1:], torch.zeros_like(first[:, :1])], 1)
        state = _run([*others, next_chunk], _places(x), torch.zeros_like(x[:, 0]), reverse=True)[:, : x.shape[1]]
        ctx.save_for_backward(gate, state)
        return state

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        gate, state = ctx.saved_tensors
        nothing = torch.zeros_like(grad[:, :1])
        flow = Forwards.apply(gate.conj(), grad, nothing[:, 0])  # type: ignore[no-untyped-call]
        return torch.cat([nothing, flow[:, :-1]], 1) * state.conj(), flow


def _places(x: Tensor) -> Sequence[Tensor]:
    """[batch time ...] as the first, second, ... places of all chunks, [batch chunk ...] each; after the end stands 0."""
    size = min(CHUNK, x.shape[1])
    chunks = -(-x.shape[1] // size)
    if missing := chunks * size - x.shape[1]:
        x = pad(x, (0, 0) * (x.ndim - 2) + (0, missing))
    return x.unflatten(1, (chunks, size)).unbind(2)


def _run(gates: Sequence[Tensor], xs: Sequence[Tensor], start: Tensor, reverse: bool = False) -> Tensor:
    """The states of all places [batch time ...], time in whole chunks."""
    batch, chunks, *rest = xs[0].shape
    state = xs[0].new_empty(batch, chunks, len(xs), *rest)
    states: Sequence[Tensor] = state.unbind(2)
    if reverse:
        gates, xs, states = gates[::-1], xs[::-1], states[::-1]
    before = start[:, None]
    if chunks > 1:
        product, end = gates[0].clone(), xs[0].clone()  # h -> product h + end is the map of a chunk
        for gate, x in zip(gates[1:], xs[1:], strict=True):
            torch.addcmul(x, gate, end, out=end)
            product.mul_(gate)
        ends = _run(_places(product), _places(end), start, reverse)[:, :chunks]
        before = torch.cat([ends[:, 1:], before] if reverse else [before, ends[:, :-1]], 1)
    for gate, x, here in zip(gates, xs, states, strict=True):
        before = torch.addcmul(x, gate, before, out=here)
    return state.flatten(1, 2)

"""State spaces: many small linear recurrences with well chosen memories, computed for all places at once.   LBDL 6.9

h'(t) = A h(t) + B x(t),  y(t) = C h(t) + D x(t),  with a diagonal A, read in steps of a learned length. S4D's A, B and C are
the same everywhere, so that y is a convolution of x; Mamba chooses what to keep and what to let in at every place, so that
y is a scan.
"""

from functools import partial
from math import isqrt, log, pi

import torch
from jaxtyping import Bool, Float, Inexact
from torch import Tensor, nn
from torch.nn.functional import pad, silu, softplus
from torch.utils.checkpoint import checkpoint

from thalweg.layers.recurrence import last_places
from thalweg.layers.scan import linear_scan

SEGMENT = 256  # places whose states the gradient of a selective scan holds at a time


class S4D(nn.Module):
    """Every feature has a state of its own, decaying and turning numbers, and its output is a long convolution.

    h_t = a h_{t-1} + b x_t,   y_t = Re sum_n c_n h_tn + d x_t,   so   y = k * x + d x,   k_l = Re sum_n c_n a_n^l b_n.
    zoh:        a = exp(Delta A),                       b = (a - 1) / A,
    bilinear:   a = (1 + Delta A/2) / (1 - Delta A/2),  b = Delta / (1 - Delta A/2),
    lin:        A_n = -1/2 + i pi n,   inv: A_n = -1/2 + i N/pi (N/(2n + 1) - 1),   real: A_n = -(n + 1),   at the start;
    lin and inv hold one of each of N/2 conjugate pairs and count it twice. Delta starts log-uniform in [0.001, 0.1].
    x: [batch time hidden_size] -> the same; state: [batch hidden_size state_size/2], complex (real: [... state_size]).
    Features are not mixed, that is a linear layer's. Computed in float32 or more; padding at the end changes no output
    before it, but its zeros pass through the state.   ValueError for another name, or an odd state_size of pairs.
    Gu, Gupta, Goel, Re 2022, arXiv:2206.11893.
    """

    def __init__(
        self,
        hidden_size: int,
        state_size: int = 64,
        *,
        initialisation: str = "lin",
        discretisation: str = "zoh",
    ):
        super().__init__()
        if initialisation not in ("lin", "inv", "real") or discretisation not in ("zoh", "bilinear"):
            raise ValueError(f"initialisation={initialisation!r}, discretisation={discretisation!r}: "
                             "expected 'lin', 'inv' or 'real', and 'zoh' or 'bilinear'")  # fmt: skip
        pairs = initialisation != "real"
        if pairs and state_size % 2:
            raise ValueError(f"state_size={state_size}: expected an even number, to be made of pairs")
        self.discretisation, self.pairs = discretisation, pairs
        count = state_size // 2 if pairs else state_size
        n = torch.arange(count).float()
        self.log_decay = nn.Parameter((torch.full_like(n, 0.5) if pairs else n + 1).log().repeat(hidden_size, 1))
        if pairs:
            frequency = pi * n if initialisation == "lin" else state_size / pi * (state_size / (2 * n + 1) - 1)
            self.frequency = nn.Parameter(frequency.repeat(hidden_size, 1))
        self.log_step = nn.Parameter(torch.empty(hidden_size).uniform_(log(0.001), log(0.1)))
        self.output = nn.Parameter(torch.randn(hidden_size, count, 1 + pairs) / (1 + pairs) ** 0.5)  # c, or its two parts
        self.skip = nn.Parameter(torch.randn(hidden_size))

    def discrete(self) -> tuple[Inexact[Tensor, "hidden n"], Inexact[Tensor, "hidden n"], Inexact[Tensor, "hidden n"]]:
        """a, b and c of the recurrence; c counts a pair twice."""
        rate, step = -self.log_decay.exp(), self.log_step.exp()[:, None]
        if self.pairs:
            rate = torch.complex(rate, self.frequency)
        c = 2 * torch.view_as_complex(self.output) if self.pairs else self.output[..., 0]
        if self.discretisation == "zoh":
            a = (step * rate).exp()
            return a, (step * rate).expm1() / rate, c
        return (1 + step * rate / 2) / (1 - step * rate / 2), step / (1 - step * rate / 2), c

    def kernel(self, time: int) -> Float[Tensor, "hidden time"]:
        """k_0, ..., k_{time - 1}: what an impulse leaves behind."""
        a, b, c = self.discrete()
        return _weighted_powers(b * c, *_powers(a, time), time)

    def forward(
        self, x: Float[Tensor, "batch time hidden"], state: Inexact[Tensor, "batch hidden n"] | None = None
    ) -> tuple[Float[Tensor, "batch time hidden"], Inexact[Tensor, "batch hidden n"]]:
        kind, x, time = x.dtype, x.to(torch.promote_types(x.dtype, self.skip.dtype)), x.shape[1]
        a, b, c = self.discrete()
        coarse, fine = _powers(a, time)
        kernel = _weighted_powers(b * c, coarse, fine, time)
        spectrum = torch.fft.rfft(kernel, 2 * time) * torch.fft.rfft(x.mT, 2 * time)  # twice as long: no wrapping round
        y = torch.fft.irfft(spectrum, 2 * time)[..., :time].mT + self.skip * x
        late = pad(x.flip(1), (0, 0, 0, coarse.shape[-1] * fine.shape[-1] - time))
        late = late.unflatten(1, (coarse.shape[-1], fine.shape[-1])).to(a.dtype)
        end = b * torch.einsum("bksh,hns,hnk->bhn", late, fine, coarse)
        if state is not None:
            y = y + _weighted_powers(state * a * c, coarse, fine, time).mT
            end = end + a**time * state
        return y.to(kind), end

    def step(
        self, x: Float[Tensor, "batch hidden"], state: Inexact[Tensor, "batch hidden n"] | None = None
    ) -> tuple[Float[Tensor, "batch hidden"], Inexact[Tensor, "batch hidden n"]]:
        """One place of `forward`, by the recurrence itself."""
        a, b, c = self.discrete()
        state = b * x[..., None] + (0 if state is None else a * state)
        return ((c * state).real.sum(-1) + self.skip * x).to(x.dtype), state


def _powers(a: Tensor, time: int) -> tuple[Tensor, Tensor]:
    """a^(size k) [... n k] and a^s [... n s], whose products are all powers below time; size is its root."""
    size = isqrt(time - 1) + 1
    fine = _first_powers(a, size)
    return _first_powers(fine[..., -1] * a, -(-time // size)), fine


def _first_powers(a: Tensor, count: int) -> Tensor:
    """a^0, ..., a^(count - 1) on a last axis; each round doubles them."""
    found = torch.ones_like(a)[..., None]
    while found.shape[-1] < count:
        found = torch.cat([found, found * a[..., None]], -1)
        a = a * a
    return found[..., :count]


def _weighted_powers(weight: Tensor, coarse: Tensor, fine: Tensor, time: int) -> Tensor:
    """Re sum_n w_n a_n^t at t = 0, ..., time - 1: [... n] -> [... time]; as matrices, never all powers of all n at once."""
    return ((weight[..., None, :] * coarse.mT) @ fine).real.flatten(-2)[..., :time]


def selective_scan(
    x: Float[Tensor, "batch time channel"],
    delta: Float[Tensor, "batch time channel"],
    rate: Float[Tensor, "channel n"],
    entry: Float[Tensor, "batch time n"],
    exit: Float[Tensor, "batch time n"],
    state: Float[Tensor, "batch channel n"] | None = None,
) -> tuple[Float[Tensor, "batch time channel"], Float[Tensor, "batch channel n"]]:
    """A state space whose steps, entries and exits depend on the place: it can ignore a place (delta 0) or start anew.

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t x_t,   y_t = C_t . h_t;   rate: A < 0, entry: B, exit: C.
    Gives y and the last h, computed in float32 or more. Of more than SEGMENT places the states are computed again for the
    gradient, a segment at a time, since to keep them would take n times the memory of x.   Gu, Dao 2023, arXiv:2312.00752.
    """
    kind, exact = x.dtype, torch.promote_types(x.dtype, rate.dtype)
    state = rate.new_zeros(len(x), *rate.shape) if state is None else state
    again = partial(checkpoint, _segment, use_reentrant=False, preserve_rng_state=False)
    run, ys = again if x.shape[1] > SEGMENT else _segment, []
    with torch.autocast(x.device.type, enabled=False):
        for part in zip(*(v.to(exact).split(SEGMENT, 1) for v in (x, delta, entry, exit)), strict=True):
            y, state = run(rate, state, *part)
            ys.append(y)
        return torch.cat(ys, 1).to(kind), state


def _segment(rate: Tensor, state: Tensor, x: Tensor, delta: Tensor, entry: Tensor, exit: Tensor) -> tuple[Tensor, Tensor]:
    states = linear_scan((delta[..., None] * rate).exp(), (delta * x)[..., None] * entry[:, :, None], state)
    return (states @ exit[..., None])[..., 0], states[:, -1]


class Mamba(nn.Module):
    """A selective state space between two projections, with a short convolution before it and a gate behind it.

    u, g = W_in x;   v = silu(convolution(u)), over the last kernel_size places of each channel;   r, B, C = W_sel v;
    delta = softplus(W_delta r + bias);   y = W_out ((selective_scan(v, delta, A, B, C) + d v) silu(g)).
    x: [batch time input_size] -> the same; hidden_size channels (the paper: twice input_size), state_size numbers each.
    state: the kernel_size - 1 places of u before, [batch ... hidden_size], and h [batch hidden_size state_size]. With mask
    [batch time], True where real, padding at the end leaves both as they were.
    At the start A_n = -(n + 1), d = 1, delta is log-uniform in [0.001, 0.1].   Gu, Dao 2023, arXiv:2312.00752.
    """

    def __init__(self, input_size: int, hidden_size: int, state_size: int = 16, *, kernel_size: int = 4, rank: int = 0):
        super().__init__()
        self.rank, self.state_size, self.kernel_size = rank or -(-input_size // 16), state_size, kernel_size
        self.input = nn.Linear(input_size, 2 * hidden_size, bias=False)
        self.convolution = nn.Conv1d(hidden_size, hidden_size, kernel_size, groups=hidden_size)
        self.selection = nn.Linear(hidden_size, self.rank + 2 * state_size, bias=False)
        self.delta = nn.Linear(self.rank, hidden_size)
        self.log_decay = nn.Parameter(torch.arange(1.0, state_size + 1).log().repeat(hidden_size, 1))
        self.skip = nn.Parameter(torch.ones(hidden_size))
        self.output = nn.Linear(hidden_size, input_size, bias=False)
        nn.init.uniform_(self.delta.weight, -(self.rank**-0.5), self.rank**-0.5)
        with torch.no_grad():
            self.delta.bias.uniform_(log(0.001), log(0.1)).exp_().expm1_().log_()  # softplus takes it back

    def forward(
        self,
        x: Float[Tensor, "batch time input"],
        state: tuple[Float[Tensor, "batch before hidden"], Float[Tensor, "batch hidden n"]] | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time input"], tuple[Float[Tensor, "batch before hidden"], Float[Tensor, "batch hidden n"]]]:
        u, gate = self.input(x).chunk(2, -1)
        window, h = (u.new_zeros(len(u), self.kernel_size - 1, u.shape[-1]), None) if state is None else state
        whole = torch.cat([window, u], 1)
        v = silu(self.convolution(whole.mT).mT)
        rank, entry, exit = self.selection(v).split([self.rank, self.state_size, self.state_size], -1)
        delta = softplus(self.delta(rank))
        if mask is not None:
            delta = delta * mask[..., None]
        y, h = selective_scan(v, delta, -self.log_decay.exp(), entry, exit, h)
        return self.output((y + self.skip * v) * silu(gate)), (last_places(whole, self.kernel_size - 1, mask), h)

    def step(
        self,
        x: Float[Tensor, "batch input"],
        state: tuple[Float[Tensor, "batch before hidden"], Float[Tensor, "batch hidden n"]] | None = None,
    ) -> tuple[Float[Tensor, "batch input"], tuple[Float[Tensor, "batch before hidden"], Float[Tensor, "batch hidden n"]]]:
        """One place of `forward`, to decode with: time and memory do not grow with what was read."""
        y, state = self(x[:, None], state)
        return y[:, 0], state

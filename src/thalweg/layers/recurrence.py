"""Recurrent layers that torch has not: a state goes from place to place and every place changes it.   LBDL 6.9, D2L 8.4-9.2

All read [batch time input_size] and give [batch time hidden_size] with the state after the last place, from which they go
on: two halves, one after the other, give what the whole gives. torch's own are nn.RNN, nn.GRU and nn.LSTM (batch_first).

Padding stands at the end, so it changes no output before it; with mask [batch time], True where a place is real, it leaves
the state as it was too, so that the state returned is that after the last real place: what torch needs packing for. What
stands at a padded place of the output means nothing, and gives no gradient if no loss reads it.

All that does not depend on the state is computed for all places at once; the loop is left with one product a place.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise, repeat

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from thalweg.layers.scan import linear_scan


def last_places(x: Float[Tensor, "batch time *any"], count: int, mask: Bool[Tensor, "batch read"] | None) -> Tensor:
    """The last places of each example that are real, [batch count ...]; before the masked places x may have others."""
    if mask is None:
        return x[:, x.shape[1] - count :]
    end = x.shape[1] - mask.shape[1] + mask.sum(1, keepdim=True)
    return x[torch.arange(len(x), device=x.device)[:, None], end + torch.arange(-count, 0, device=x.device)]


def _by_place(layer: nn.Linear, x: Tensor) -> Sequence[Tensor]:
    """What a layer makes of every place, all computed at once."""
    return layer(x.transpose(0, 1)).unbind()


def _mask_by_place(mask: Tensor | None) -> Iterable[Tensor | None]:
    return repeat(None) if mask is None else mask[..., None].unbind(1)


def _held(real: Tensor | None, new: Tensor, old: Tensor) -> Tensor:
    return new if real is None else torch.where(real, new, old)


def truncated(state: Float[Tensor, "batch *any"], keep: float) -> Float[Tensor, "batch *any"]:
    """The same state, from which the gradient goes back in time with probability `keep` only, 1/keep times as large.

    So it goes back 1/(1 - keep) places on average, and is on average the whole one: randomised truncation.   0 < keep <= 1
    Tallec, Ollivier 2017, arXiv:1705.08209.   D2L 8.7
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep={keep}: expected a probability above 0")
    gate = (torch.rand(len(state), *(1,) * (state.ndim - 1), device=state.device) < keep) / keep
    return state.detach() + gate * (state - state.detach())


def irnn(input_size: int, hidden_size: int) -> nn.RNN:
    """A plain recurrent network of rectifiers that at first keeps its state as it is: it learns over long times.

    h_t = relu(W x_t + U h_{t-1} + b),   at the start U = identity, b = 0, W normal with deviation 0.001.
    It is an nn.RNN (batch_first): x [batch time input_size] -> [batch time hidden_size], state [1 batch hidden_size].
    Le, Jaitly, Hinton 2015, arXiv:1504.00941.
    """
    network = nn.RNN(input_size, hidden_size, nonlinearity="relu", batch_first=True)
    weight, recurrent, *biases = network.parameters()
    nn.init.normal_(weight, std=0.001)
    nn.init.eye_(recurrent)
    for bias in biases:
        nn.init.zeros_(bias)
    return network


class Jordan(nn.Module):
    """A recurrent network whose memory is its output, so that what it should remember can be told.

    h_t = tanh(W x_t + U y_{t-1} + b),   z_t = V h_t + c,   y_t = activation(z_t).   It gives z, scores for a loss.
    x: [batch time input_size] -> z: [batch time output_size], y_T: [batch output_size]; state: y_0, or 0.
    With target [batch time output_size] the right answers are fed back in place of its own (teacher forcing), and then no
    place waits for another.   ValueError for another activation than identity, sigmoid or softmax.
    Jordan 1986, "Serial order: A parallel distributed processing approach".
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        activation: str = "identity",
    ):
        super().__init__()
        activations = {"identity": nn.Identity(), "sigmoid": nn.Sigmoid(), "softmax": nn.Softmax(-1)}
        if activation not in activations:
            raise ValueError(f"activation={activation!r}: expected one of {', '.join(activations)}")
        self.activation = activations[activation]
        self.input = nn.Linear(input_size, hidden_size)
        self.recurrent = nn.Linear(output_size, hidden_size, bias=False)
        self.output = nn.Linear(hidden_size, output_size)

    def forward(
        self,
        x: Float[Tensor, "batch time input"],
        state: Float[Tensor, "batch output"] | None = None,
        *,
        target: Float[Tensor, "batch time output"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], Float[Tensor, "batch output"]]:
        y = x.new_zeros(len(x), self.output.out_features) if state is None else state
        if target is not None:
            fed = torch.cat([y[:, None], target], 1)
            return self.output((self.input(x) + self.recurrent(fed[:, :-1])).tanh()), last_places(fed, 1, mask)[:, 0]
        scores = []
        for now, real in zip(_by_place(self.input, x), _mask_by_place(mask), strict=False):
            scores.append(self.output(torch.addmm(now, y, self.recurrent.weight.mT).tanh()))
            y = _held(real, self.activation(scores[-1]), y)
        return torch.stack(scores, 1), y


class PeepholeLSTM(nn.Module):
    """Long short-term memory whose gates also see the cell, so that they can keep time by what it holds.

    i_t = sigmoid(W_i x_t + U_i h_{t-1} + p_i c_{t-1} + b_i),   f_t likewise,   g_t = tanh(W_g x_t + U_g h_{t-1} + b_g),
    c_t = f_t c_{t-1} + i_t g_t,   o_t = sigmoid(W_o x_t + U_o h_{t-1} + p_o c_t + b_o),   h_t = o_t tanh(c_t).
    x: [batch time input_size] -> h: [batch time hidden_size]; state: h and c, [batch hidden_size] each.
    The peepholes p, one number a cell, are 0 at the start, where it is nn.LSTM, whose rows are in the same order.
    Gers, Schmidhuber 2000, "Recurrent nets that time and count".
    """

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.input = nn.Linear(input_size, 4 * hidden_size)
        self.recurrent = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.peephole = nn.Parameter(torch.zeros(3, hidden_size))

    def forward(
        self,
        x: Float[Tensor, "batch time input"],
        state: tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]] | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time hidden"], tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]]]:
        h, c = (x.new_zeros(len(x), self.recurrent.in_features),) * 2 if state is None else state
        early, late = self.peephole[:2], self.peephole[2]
        hs = []
        for now, real in zip(_by_place(self.input, x), _mask_by_place(mask), strict=False):
            gates = torch.addmm(now, h, self.recurrent.weight.mT).unflatten(1, (4, -1))
            i, f = torch.addcmul(gates[:, :2], early, c[:, None]).sigmoid().unbind(1)
            cell = torch.addcmul(f * c, i, gates[:, 2].tanh())
            o = torch.addcmul(gates[:, 3], late, cell).sigmoid()
            h, c = _held(real, o * cell.tanh(), h), _held(real, cell, c)
            hs.append(h)
        return torch.stack(hs, 1), (h, c)


class ClockworkRNN(nn.Module):
    """Modules that run at clocks of their own: the slow ones hear less often, and so remember for longer.

    h_t = tanh(W x_t + U h_{t-1} + b) in the modules whose period divides t, h_{t-1} in all others,   t = 0, 1, ...
    U lets a module hear itself and slower ones only. The hidden_size units are shared equally among the periods.
    x: [batch time input_size] -> h: [batch time hidden_size]; state: h [batch hidden_size] and the places read so far, padded
    ones too.
    Weights are normal with deviation 0.1, biases 0, as in the paper.   ValueError where a period is no multiple of the one
    before, or hidden_size of their number.   Koutnik, Greff, Gomez, Schmidhuber 2014, arXiv:1402.3511.
    """

    def __init__(self, input_size: int, hidden_size: int, periods: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128)):
        super().__init__()
        if min(periods, default=0) < 1 or any(slow <= fast or slow % fast for fast, slow in pairwise(periods)):
            raise ValueError(f"periods={periods}: expected each to be a multiple of the one before")
        if hidden_size % len(periods):
            raise ValueError(f"hidden_size={hidden_size}: expected a multiple of {len(periods)}, the number of periods")
        self.periods, self.size = tuple(periods), hidden_size // len(periods)
        self.input = nn.Linear(input_size, hidden_size)
        self.recurrent = nn.Linear(hidden_size, hidden_size, bias=False)
        for weight in (self.input.weight, self.recurrent.weight):
            nn.init.normal_(weight, std=0.1)
        nn.init.zeros_(self.input.bias)

    def forward(
        self,
        x: Float[Tensor, "batch time input"],
        state: tuple[Float[Tensor, "batch hidden"], int] | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time hidden"], tuple[Float[Tensor, "batch hidden"], int]]:
        h, clock = (x.new_zeros(len(x), self.recurrent.in_features), 0) if state is None else state
        module = torch.arange(len(self.periods), device=x.device).repeat_interleave(self.size)
        heard = (self.recurrent.weight * (module >= module[:, None])).mT  # [from to]
        hs = []
        for now, real in zip(_by_place(self.input, x), _mask_by_place(mask), strict=False):
            active = self.size * sum(clock % period == 0 for period in self.periods)  # the first units: periods are multiples
            new = torch.addmm(now[:, :active], h, heard[:, :active]).tanh()
            h = _held(real, torch.cat([new, h[:, active:]], 1), h)
            hs.append(h)
            clock += 1
        return torch.stack(hs, 1), (h, clock)


class SCRN(nn.Module):
    """Structurally constrained: slow context units beside the hidden ones, averages of the past with a long memory.

    s_t = (1 - alpha) B x_t + alpha s_{t-1},   h_t = sigmoid(P s_t + A x_t + R h_{t-1} + b).   s is a linear scan.
    x: [batch time input_size] -> [h, s]: [batch time hidden_size + context_size]; state: h [batch hidden_size] and
    s [batch context_size].   Mikolov, Joulin, Chopra, Mathieu, Ranzato 2014, arXiv:1412.7753.
    """

    def __init__(self, input_size: int, hidden_size: int, context_size: int, alpha: float = 0.95):
        super().__init__()
        self.alpha = alpha
        self.context = nn.Linear(input_size, context_size, bias=False)
        self.input = nn.Linear(context_size + input_size, hidden_size)
        self.recurrent = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(
        self,
        x: Float[Tensor, "batch time input"],
        state: tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch context"]] | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time units"], tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch context"]]]:
        h, s = (x.new_zeros(len(x), self.recurrent.in_features), None) if state is None else state
        share = x.new_tensor(1 - self.alpha) if mask is None else (1 - self.alpha) * mask[..., None].to(x.dtype)
        contexts = linear_scan((1 - share).expand(*x.shape[:2], 1), share * self.context(x), s)
        hs = []
        for now, real in zip(_by_place(self.input, torch.cat([contexts, x], -1)), _mask_by_place(mask), strict=False):
            h = _held(real, torch.addmm(now, h, self.recurrent.weight.mT).sigmoid(), h)
            hs.append(h)
        return torch.cat([torch.stack(hs, 1), contexts], -1), (h, contexts[:, -1])


class QRNN(nn.Module):
    """Quasi-recurrent: a convolution over the last places says what to keep and what to add, and a linear scan does it.

    z_t = tanh(W_z X_t),   f_t, o_t, i_t = sigmoid(W_{f, o, i} X_t),   X_t = x_{t - kernel_size + 1}, ..., x_t, with biases,
    pooling f:    h_t = f_t h_{t-1} + (1 - f_t) z_t
            fo:   c_t = f_t c_{t-1} + (1 - f_t) z_t,   h_t = o_t c_t
            ifo:  c_t = f_t c_{t-1} + i_t z_t,         h_t = o_t c_t
    x: [batch time input_size] -> h: [batch time hidden_size]; state: the kernel_size - 1 inputs before, [batch ...
    input_size], and c (of f: h), [batch hidden_size].
    ValueError for another pooling.   Bradbury, Merity, Xiong, Socher 2016, arXiv:1611.01576.
    """

    def __init__(self, input_size: int, hidden_size: int, kernel_size: int = 2, pooling: str = "fo"):
        super().__init__()
        if pooling not in ("f", "fo", "ifo"):
            raise ValueError(f"pooling={pooling!r}: expected 'f', 'fo' or 'ifo'")
        self.pooling, self.kernel_size = pooling, kernel_size
        self.convolution = nn.Conv1d(input_size, (1 + len(pooling)) * hidden_size, kernel_size)

    def forward(
        self,
        x: Float[Tensor, "batch time input"],
        state: tuple[Float[Tensor, "batch before input"], Float[Tensor, "batch hidden"]] | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time hidden"], tuple[Float[Tensor, "batch before input"], Float[Tensor, "batch hidden"]]]:
        window, c = (x.new_zeros(len(x), self.kernel_size - 1, x.shape[-1]), None) if state is None else state
        whole = torch.cat([window, x], 1)
        z, *gates = self.convolution(whole.mT).mT.chunk(1 + len(self.pooling), -1)
        gate = dict(zip(self.pooling, (g.sigmoid() for g in gates), strict=True))
        f, i = gate["f"], gate.get("i", 1 - gate["f"])
        if mask is not None:
            f, i = torch.where(mask[..., None], f, 1.0), torch.where(mask[..., None], i, 0.0)
        cs = linear_scan(f, i * z.tanh(), c)
        return gate["o"] * cs if "o" in gate else cs, (last_places(whole, self.kernel_size - 1, mask), cs[:, -1])

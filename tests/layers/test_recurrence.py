"""Recurrent cells, torch's and ours: their formulas a place at a time, and what goes from one place to the next."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_torch_layers import EXACT, equal_with_gradients, numbers
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot, softmax
from torch.testing import assert_close

from thalweg.layers.recurrence import QRNN, SCRN, ClockworkRNN, Jordan, PeepholeLSTM, irnn, truncated
from thalweg.layers.state_space import S4D, Mamba

LAYERS = {
    "irnn": lambda: irnn(3, 8),
    "jordan": lambda: Jordan(3, 8, 2),
    "jordan softmax": lambda: Jordan(3, 8, 4, activation="softmax"),
    "peephole": lambda: PeepholeLSTM(3, 8),
    "clockwork": lambda: ClockworkRNN(3, 8, (1, 2, 4, 12)),
    "scrn": lambda: SCRN(3, 6, 4),
    "qrnn f": lambda: QRNN(3, 8, 1, "f"),
    "qrnn fo": lambda: QRNN(3, 8, 2, "fo"),
    "qrnn ifo": lambda: QRNN(3, 8, 4, "ifo"),
    "s4d lin": lambda: S4D(3, 8),
    "s4d inv bilinear": lambda: S4D(3, 8, initialisation="inv", discretisation="bilinear"),
    "s4d real": lambda: S4D(3, 8, initialisation="real"),
    "s4d real bilinear": lambda: S4D(3, 8, initialisation="real", discretisation="bilinear"),
    "mamba": lambda: Mamba(3, 8, 4),
    "mamba wide": lambda: Mamba(3, 8, 4, kernel_size=1, rank=5),
}
MASKED = [name for name in LAYERS if not name.startswith(("s4d", "irnn"))]


def random(name: str) -> nn.Module:
    """The layer in float64 with numbers of order one, so that every path matters."""
    layer = LAYERS[name]().double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.4)
    return layer


def tensors(state) -> list[torch.Tensor]:
    return [part for part in (state if isinstance(state, tuple) else (state,)) if isinstance(part, torch.Tensor)]


# what holds for all of them


@pytest.mark.parametrize("name", LAYERS)
@settings(max_examples=5, deadline=None)
@given(st.integers(2, 40), st.data())
def test_two_halves_one_after_the_other_are_the_whole(name, time, data):
    layer, x = random(name), numbers(2, time, 3)
    middle = data.draw(st.integers(1, time - 1))
    whole, end = layer(x)
    first, state = layer(x[:, :middle])
    second, last = layer(x[:, middle:], state)
    assert_close(torch.cat([first, second], 1), whole, **EXACT)
    for one, other in zip(tensors(last), tensors(end), strict=True):
        assert_close(one, other, **EXACT)


@pytest.mark.parametrize("name", LAYERS)
def test_place_by_place_is_all_at_once_in_values_and_gradients(name):
    layer, x = random(name), numbers(2, 19, 3)
    state, outputs = None, []
    for place in x.unbind(1):
        if hasattr(layer, "step"):
            y, state = layer.step(place, state)
        else:
            y, state = layer(place[:, None], state)
            y = y[:, 0]
        outputs.append(y)
    equal_with_gradients(layer(x)[0], torch.stack(outputs, 1), [x, *layer.parameters()])


@pytest.mark.parametrize("name", LAYERS)
def test_no_output_hears_of_what_comes_later(name):
    layer, x = random(name), numbers(2, 20, 3).detach()
    other = x.clone()
    other[:, 12:] = numbers(2, 8, 3).detach()
    before, after = layer(x)[0], layer(other)[0]
    assert_close(after[:, :12], before[:, :12], **EXACT)
    assert (after[:, 12] - before[:, 12]).abs().max() > 1e-4
    assert (after[:, 13:] - before[:, 13:]).abs().amax((0, 2)).min() > 1e-6


@pytest.mark.parametrize("name", MASKED)
def test_padding_at_the_end_leaves_the_state_after_the_last_real_place(name):
    layer, x, lengths = random(name), numbers(3, 9, 3), [9, 4, 1]
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    start = layer(numbers(3, 5, 3))[1]
    parts = start if isinstance(start, tuple) else (start,)
    found, state = layer(x, start, mask=mask)
    for example, length in enumerate(lengths):
        alone = [part[example, None] if isinstance(part, torch.Tensor) else part for part in parts]
        expected, end = layer(x[example, None, :length], tuple(alone) if len(alone) > 1 else alone[0])
        assert_close(found[example, None, :length], expected, **EXACT)
        for one, other in zip(tensors(state), tensors(end), strict=True):
            assert_close(one[example, None], other, **EXACT)


@pytest.mark.parametrize("name", LAYERS)
def test_every_parameter_learns_and_bfloat16_stays_finite(name):
    layer = random(name).float()
    x = torch.randn(2, 30, 3)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = layer(x)
    assert y.isfinite().all()
    assert_close(y.float(), layer(x)[0], rtol=0.1, atol=0.2)
    y.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in layer.parameters())


# torch's own


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_an_elman_network_hears_its_own_last_state(nonlinearity):
    layer, x, h = nn.RNN(3, 4, nonlinearity=nonlinearity, batch_first=True).double(), numbers(2, 5, 3), numbers(2, 4)
    weight, recurrent, bias, other = layer.parameters()
    start, hs = h, []
    for t in range(5):
        h = getattr(torch, nonlinearity)(x[:, t] @ weight.T + bias + h @ recurrent.T + other)
        hs.append(h)
    equal_with_gradients(layer(x, start[None])[0], torch.stack(hs, 1), [x, start, *layer.parameters()])
    assert sum(p.numel() for p in layer.parameters()) == 4 * 3 + 4 * 4 + 2 * 4  # whatever the length


def test_a_gated_recurrent_unit_is_its_two_gates():
    layer, x, h = nn.GRU(3, 4, batch_first=True).double(), numbers(2, 5, 3), numbers(2, 4)
    weight, recurrent, bias, other = layer.parameters()
    start, hs = h, []
    for t in range(5):
        (ir, iz, i_n), (hr, hz, hn) = (v.chunk(3, 1) for v in (x[:, t] @ weight.T + bias, h @ recurrent.T + other))
        reset, update = (ir + hr).sigmoid(), (iz + hz).sigmoid()
        h = (1 - update) * (i_n + reset * hn).tanh() + update * h
        hs.append(h)
    equal_with_gradients(layer(x, start[None])[0], torch.stack(hs, 1), [x, start, *layer.parameters()])


def test_a_gated_recurrent_unit_with_open_reset_and_closed_update_gate_is_a_plain_network():
    gated, plain = (cls(3, 4, batch_first=True).double() for cls in (nn.GRU, nn.RNN))
    x = numbers(2, 30, 3)
    for gate_part, plain_part in zip(gated.parameters(), plain.parameters(), strict=True):
        plain_part.data = gate_part[8:].detach().clone()
    with torch.no_grad():
        gated.bias_ih_l0[:4] = 100.0
        gated.bias_ih_l0[4:8] = -100.0
        assert_close(gated(x)[0], plain(x)[0], **EXACT)
        gated.bias_ih_l0[4:8] = 100.0  # and with an open update gate nothing is ever forgotten
        start = torch.randn(1, 2, 4, dtype=torch.float64)
        assert_close(gated(x, start)[1], start, **EXACT)


def lstm_by_hand(x, h, c, weight, recurrent, bias, peephole):
    hs = []
    for t in range(x.shape[1]):
        i, f, g, o = (x[:, t] @ weight.T + h @ recurrent.T + bias).chunk(4, 1)
        i, f = (i + peephole[0] * c).sigmoid(), (f + peephole[1] * c).sigmoid()
        c = f * c + i * g.tanh()
        h = (o + peephole[2] * c).sigmoid() * c.tanh()
        hs.append(h)
    return torch.stack(hs, 1), h, c


def test_long_short_term_memory_is_its_three_gates_and_a_cell():
    layer, x, h, c = nn.LSTM(3, 4, batch_first=True).double(), numbers(2, 5, 3), numbers(2, 4), numbers(2, 4)
    weight, recurrent, bias, other = layer.parameters()
    expected = lstm_by_hand(x, h, c, weight, recurrent, bias + other, torch.zeros(3, 1).double())
    found, (_, cell) = layer(x, (h[None], c[None]))
    equal_with_gradients(torch.cat([found, cell[0, :, None]], 1), torch.cat([expected[0], expected[2][:, None]], 1),
                         [x, h, c, *layer.parameters()])  # fmt: skip


def test_long_short_term_memory_has_four_times_the_parameters_of_a_plain_network_and_a_gated_unit_three_times():
    plain, gated, memory = (sum(p.numel() for p in cls(5, 7).parameters()) for cls in (nn.RNN, nn.GRU, nn.LSTM))
    assert (gated, memory) == (3 * plain, 4 * plain)


def test_a_cell_with_gates_set_by_hand_adds_keeps_forgets_and_tells():
    """Three inputs: a number, +1 add it to the memory or -1 forget the memory, +1 tell the memory."""
    layer, small = nn.LSTM(3, 1, batch_first=True).double(), 1e-4  # so small that tanh leaves the numbers as they are
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        layer.weight_ih_l0[:, :] = torch.tensor([[0, 100, 0], [0, 100, 0], [small, 0, 0], [0, 0, 100]])
        layer.bias_ih_l0[:] = torch.tensor([-50.0, 50.0, 0.0, -50.0])
    x = torch.tensor([[[3, 1, 0], [4, 1, 0], [2, 0, 0], [1, 0, 1], [3, -1, 0], [6, 1, 0], [1, 0, 1]]]).double()
    told, _ = layer(x)
    cells = [layer(x[:, : t + 1])[1][1].item() / small for t in range(7)]
    assert_close(torch.tensor(cells), torch.tensor([3.0, 7.0, 7.0, 7.0, 0.0, 6.0, 6.0]), rtol=0, atol=1e-5)
    assert_close(told[0, :, 0] / small, torch.tensor([0.0, 0, 0, 7, 0, 0, 6]).double(), rtol=0, atol=1e-5)


def test_backpropagation_through_time_by_hand_is_autograd_s():
    layer, x = nn.RNN(3, 4, batch_first=True).double(), numbers(2, 6, 3)
    h, _ = layer(x)
    target = torch.randn_like(h)
    (h - target).square().sum().backward()
    recurrent, states = layer.weight_hh_l0.detach(), torch.cat([torch.zeros(2, 1, 4), h.detach()], 1)
    flow, to_recurrent = torch.zeros(2, 4, dtype=torch.float64), torch.zeros(4, 4, dtype=torch.float64)
    for t in reversed(range(6)):
        flow = (2 * (states[:, t + 1] - target[:, t]) + flow) * (1 - states[:, t + 1] ** 2)  # what reaches W x + U h + b
        to_recurrent += flow.T @ states[:, t]
        assert_close(x.grad[:, t], flow @ layer.weight_ih_l0.detach(), **EXACT)
        flow = flow @ recurrent
    assert_close(layer.weight_hh_l0.grad, to_recurrent, **EXACT)


# ours


def test_peepholes_let_the_gates_see_the_cell():
    layer, x, h, c = random("peephole"), numbers(2, 6, 3), numbers(2, 8), numbers(2, 8)
    expected = lstm_by_hand(x, h, c, layer.input.weight, layer.recurrent.weight, layer.input.bias, layer.peephole)
    found, (_, cell) = layer(x, (h, c))
    equal_with_gradients(found, expected[0], [x, h, c, *layer.parameters()])
    assert_close(cell, expected[2], **EXACT)


def test_without_peepholes_which_is_how_it_starts_it_is_torch_s():
    ours, theirs, x = PeepholeLSTM(3, 8).double(), nn.LSTM(3, 8, batch_first=True).double(), numbers(2, 6, 3)
    nn.init.zeros_(theirs.bias_hh_l0)
    theirs.weight_ih_l0, theirs.weight_hh_l0, theirs.bias_ih_l0 = ours.input.weight, ours.recurrent.weight, ours.input.bias
    assert_close(ours(x)[0], theirs(x)[0], **EXACT)


def test_a_jordan_network_hears_its_own_last_output():
    for name, activation in (("jordan", lambda z: z), ("jordan softmax", lambda z: softmax(z, -1))):
        layer, x = random(name), numbers(2, 6, 3)
        y = start = numbers(2, layer.output.out_features)
        scores = []
        for t in range(6):
            h = (x[:, t] @ layer.input.weight.T + layer.input.bias + y @ layer.recurrent.weight.T).tanh()
            scores.append(h @ layer.output.weight.T + layer.output.bias)
            y = activation(scores[-1])
        found, end = layer(x, start)
        equal_with_gradients(found, torch.stack(scores, 1), [x, start, *layer.parameters()])
        assert_close(end, y, **EXACT)


def test_a_jordan_network_is_told_what_to_remember():
    layer, x, start, target = random("jordan"), numbers(3, 6, 3), numbers(3, 2), numbers(3, 6, 2)
    mask = torch.arange(6) < torch.tensor([[6], [3], [0]])
    found, end = layer(x, start, target=target, mask=mask)
    for t in range(6):
        fed = start if t == 0 else target[:, t - 1]
        assert_close(found[:, t], layer(x[:, t, None], fed)[0][:, 0], **EXACT)
    assert torch.equal(end, torch.stack([target[0, 5], target[1, 2], start[2]]))
    own = layer(x)[0].detach()  # told its own answers it gives them again
    assert_close(layer(x, target=own)[0], own, **EXACT)


def test_clocks_of_their_own_move_the_modules_of_a_clockwork_network():
    layer, x = random("clockwork"), numbers(2, 26, 3)
    weight, bias, recurrent = layer.input.weight, layer.input.bias, layer.recurrent.weight
    start = h = numbers(2, 8)
    hs = []
    for t in range(26):
        new = list(h.unbind(1))
        for module, period in enumerate((1, 2, 4, 12)):
            if t % period:
                continue
            for unit in (2 * module, 2 * module + 1):
                slower = h[:, 2 * module :] @ recurrent[unit, 2 * module :]
                new[unit] = (x[:, t] @ weight[unit] + bias[unit] + slower).tanh()
        h = torch.stack(new, 1)
        hs.append(h)
    found, (end, clock) = layer(x, (start, 0))
    equal_with_gradients(found, torch.stack(hs, 1), [x, start, *layer.parameters()])
    assert clock == 26
    assert_close(end, h, **EXACT)
    moved = (found[0, 1:] != found[0, :-1]).any(0).reshape(4, 2), (found[0, 1:] != found[0, :-1]).sum(0).tolist()
    assert moved[1] == [25, 25, 12, 12, 6, 6, 2, 2]


def test_clocks_that_do_not_fit_are_refused():
    for periods in ((), (0, 1), (1, 2, 3), (2, 1), (1, 1)):
        with pytest.raises(ValueError, match="expected each to be a multiple of the one before"):
            ClockworkRNN(3, 6, periods)
    with pytest.raises(ValueError, match="hidden_size=7: expected a multiple of 2, the number of periods"):
        ClockworkRNN(3, 7, (1, 2))


def test_the_context_of_a_structurally_constrained_network_is_a_slow_average():
    layer, x, h, s = SCRN(3, 6, 4, alpha=0.7).double(), numbers(2, 40, 3), numbers(2, 6), numbers(2, 4)
    start, outputs = (h, s), []
    into_context, into_hidden = layer.input.weight.split([4, 3], 1)
    for t in range(40):
        s = 0.3 * x[:, t] @ layer.context.weight.T + 0.7 * s
        h = (s @ into_context.T + x[:, t] @ into_hidden.T + layer.input.bias + h @ layer.recurrent.weight.T).sigmoid()
        outputs.append(torch.cat([h, s], 1))
    equal_with_gradients(layer(x, start)[0], torch.stack(outputs, 1), [x, *start, *layer.parameters()])


@pytest.mark.parametrize("name", ["qrnn f", "qrnn fo", "qrnn ifo"])
def test_a_quasi_recurrent_layer_pools_what_its_convolution_says(name):
    layer, x = random(name), numbers(2, 40, 3)
    size, weight = layer.kernel_size, layer.convolution.weight
    window, c = numbers(2, size - 1, 3), numbers(2, 8)
    start, hs, whole = (window, c), [], torch.cat([window, x], 1)
    for t in range(40):
        said = layer.convolution.bias + sum(whole[:, t + k] @ weight[:, :, k].T for k in range(size))
        z, *gates = said.chunk(1 + len(layer.pooling), 1)
        gate = {letter: value.sigmoid() for letter, value in zip(layer.pooling, gates, strict=True)}
        c = gate["f"] * c + (gate["i"] if "i" in gate else 1 - gate["f"]) * z.tanh()
        hs.append(gate["o"] * c if "o" in gate else c)
    equal_with_gradients(layer(x, start)[0], torch.stack(hs, 1), [x, *start, *layer.parameters()])


def test_a_quasi_recurrent_layer_of_another_pooling_is_refused():
    with pytest.raises(ValueError, match="pooling='of': expected 'f', 'fo' or 'ifo'"):
        QRNN(3, 8, pooling="of")


def test_a_jordan_network_of_another_activation_is_refused():
    with pytest.raises(ValueError, match="activation='relu': expected one of identity, sigmoid, softmax"):
        Jordan(3, 8, 2, "relu")


def test_rectifiers_that_start_as_the_identity_keep_what_they_hold():
    layer = irnn(3, 100)
    start = torch.rand(1, 2, 100)
    assert torch.equal(layer(torch.zeros(2, 500, 3), start)[1], start)
    assert layer.weight_ih_l0.std().item() == pytest.approx(0.001, rel=0.2)


# what they learn


def recalled(layer: nn.Module, width: int, lr: float, steps: int, lag: int = 100) -> float:
    """Accuracy at naming, after a hundred empty places, which of four symbols stood at the first."""
    head = nn.Linear(width, 4)
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], lr=lr)
    for _ in range(steps):
        label = torch.randint(4, (16,))
        shown = nn.functional.pad(one_hot(label, 4).float()[:, None], (0, 0, 0, lag))
        score = head(layer(shown)[0][:, -1])
        optimizer.zero_grad()
        cross_entropy(score, label).backward()
        nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step()
    shown = nn.functional.pad(torch.eye(4)[:, None], (0, 0, 0, lag))
    return (head(layer(shown)[0][:, -1]).argmax(1) == torch.arange(4)).float().mean().item()


def remembering_lstm() -> nn.LSTM:
    """Gers, Schmidhuber, Cummins 2000: forget gates that start open."""
    layer = nn.LSTM(4, 32, batch_first=True)
    nn.init.constant_(layer.bias_ih_l0[32:64].data, 5.0)
    return layer


@pytest.mark.parametrize(
    ("make", "width", "lr", "steps"),
    [
        pytest.param(remembering_lstm, 32, 1e-3, 300, id="lstm"),
        pytest.param(lambda: irnn(4, 32), 32, 3e-4, 300, id="irnn"),
        pytest.param(lambda: ClockworkRNN(4, 32), 32, 1e-2, 100, id="clockwork"),
        pytest.param(lambda: S4D(4, 32), 4, 1e-2, 100, id="s4d"),
    ],
)
def test_a_symbol_is_recalled_over_a_lag_of_a_hundred_places(make, width, lr, steps):
    assert recalled(make(), width, lr, steps) == 1


def test_a_plain_network_does_not_recall_over_that_lag():
    assert recalled(nn.RNN(4, 32, batch_first=True), 32, 1e-3, 300) <= 0.5


class Elman(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.RNN(1, 16, batch_first=True), nn.Linear(16, 1)

    def forward(self, x, target=None):
        return self.head(self.hidden(x)[0]), None


def error_after_training(layer: nn.Module, answer) -> float:
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
    for _ in range(150):
        x = torch.randn(32, 20, 1).sign()
        target = answer(x)
        optimizer.zero_grad()
        mse_loss(layer(x, target=target)[0], target).backward()
        optimizer.step()
    x = torch.randn(256, 20, 1).sign()
    return mse_loss(layer(x)[0], answer(x)).item()


def parity(x):
    return x.cumprod(1)  # the last answer times the new sign


def test_a_jordan_network_learns_sooner_what_depends_on_its_output_and_an_elman_network_what_does_not():
    jordan, elman = error_after_training(Jordan(1, 16, 1), parity), error_after_training(Elman(), parity)
    assert jordan < 0.6
    assert elman > 0.8

    def delayed(x):
        return nn.functional.pad(x, (0, 0, 2, 0))[:, :-2]

    jordan, elman = error_after_training(Jordan(1, 16, 1), delayed), error_after_training(Elman(), delayed)
    assert elman < 0.2
    assert jordan > 0.7  # its memory has no place for the last two inputs; the variance is 0.9


def test_randomly_truncated_gradients_are_on_average_the_whole_one():
    u, xs, copies = torch.tensor(0.7, dtype=torch.float64, requires_grad=True), [0.5, -0.3, 0.8, 0.2], 40_000

    def last(cut):
        h = torch.zeros(copies, 1, dtype=torch.float64)
        weight = u.expand(copies, 1).clone()
        weight.retain_grad()
        for x in xs:
            h = (x + weight * cut(h)).tanh()
        h.sum().backward()
        return h.detach(), weight.grad

    (h, whole), (same, ours) = last(lambda h: h), last(lambda h: truncated(h, 0.6))
    torch.testing.assert_close(same, h)
    assert ours.std() > 0.05
    assert (ours.mean() - whole.mean()).abs() < 5 * ours.std() / copies**0.5
    with pytest.raises(ValueError, match="keep=0"):
        truncated(h, 0.0)

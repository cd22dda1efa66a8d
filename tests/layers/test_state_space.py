"""State spaces: recurrence, convolution and scan are one and the same, by their formulas."""

import cmath
import math

import pytest
import torch
from test_torch_layers import EXACT, equal_with_gradients, numbers
from torch import nn
from torch.nn.functional import conv1d, softplus
from torch.testing import assert_close

from thalweg.layers import state_space
from thalweg.layers.state_space import S4D, Mamba, selective_scan

CHOICES = [(start, way) for start in ("lin", "inv", "real") for way in ("zoh", "bilinear")]


def layer_of(initialisation: str, discretisation: str) -> S4D:
    return S4D(3, 8, initialisation=initialisation, discretisation=discretisation).double()


@pytest.mark.parametrize(("start", "way"), CHOICES)
def test_a_diagonal_state_space_is_its_recurrence_in_values_and_gradients(start, way):
    layer, x = layer_of(start, way), numbers(2, 23, 3)
    rate, step = -layer.log_decay.exp(), layer.log_step.exp()[:, None]
    c = layer.output[..., 0]
    if start != "real":
        rate, c = rate + 1j * layer.frequency, 2 * (layer.output[..., 0] + 1j * layer.output[..., 1])
    a = (step * rate).exp() if way == "zoh" else (1 + step * rate / 2) / (1 - step * rate / 2)
    b = (a - 1) / rate if way == "zoh" else step / (1 - step * rate / 2)
    h = begin = torch.randn(2, *a.shape, dtype=a.dtype, requires_grad=True)
    ys = []
    for t in range(23):
        h = a * h + b * x[:, t, :, None]
        ys.append((c * h).real.sum(-1) + layer.skip * x[:, t])
    found, end = layer(x, begin)
    assert_close(end, h, **EXACT)
    equal_with_gradients(found, torch.stack(ys, 1), [x, begin, *layer.parameters()])


@pytest.mark.parametrize(("start", "way"), CHOICES)
def test_from_nothing_a_diagonal_state_space_is_a_convolution_with_what_an_impulse_leaves_behind(start, way):
    layer, x = layer_of(start, way), numbers(2, 50, 3)
    kernel = layer.kernel(50)
    impulse = torch.zeros(1, 50, 3, dtype=torch.float64)
    impulse[:, 0] = 1
    assert_close(layer(impulse)[0][0].T - layer.skip[:, None] * impulse[0].T, kernel, **EXACT)
    convolved = conv1d(nn.functional.pad(x.mT, (49, 0)), kernel.flip(1)[:, None], groups=3).mT
    equal_with_gradients(layer(x)[0], convolved + layer.skip * x, [x, *layer.parameters()])


def test_both_ways_into_steps_follow_the_differential_equation():
    """h' = A h + x with x = 1: h(t) = (e^(A t) - 1) / A, by zoh exactly, by the bilinear rule with an error of second order."""
    errors = []
    for step in (0.02, 0.01):
        for way in ("zoh", "bilinear"):
            layer = layer_of("lin", way)
            layer.log_step.data[:] = math.log(step)
            state, rate = layer(torch.ones(1, round(1 / step), 3).double())[1][0, 0], -0.5 + 1j * math.pi
            error = abs(state[1].item() - (cmath.exp(rate) - 1) / rate)
            if way == "zoh":
                assert error < 1e-7  # pi is known to float32
            else:
                errors.append(error)
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)


def test_a_state_space_starts_with_the_memories_of_its_paper():
    lin, inv, real = (S4D(5, 8, initialisation=name) for name in ("lin", "inv", "real"))
    n = torch.arange(4.0)
    for layer in (lin, inv):
        assert_close(layer.log_decay.exp(), torch.full((5, 4), 0.5))
    assert_close(lin.frequency[2], math.pi * n)
    assert_close(inv.frequency[2], 8 / math.pi * (8 / (2 * n + 1) - 1))
    assert_close(real.log_decay.exp()[2], torch.arange(1.0, 9))
    steps = S4D(10_000).log_step.exp()
    assert 0.001 <= steps.min() < 0.0011
    assert 0.09 < steps.max() <= 0.1
    assert steps.median().item() == pytest.approx(0.01, rel=0.1)  # log-uniform


def test_over_many_places_in_single_precision_it_is_what_it_is_in_double():
    layer, x = S4D(4, 64), torch.randn(1, 2000, 4)
    y, state = layer(x)
    exact, end = layer.double()(x.double())
    assert_close(y.double(), exact, rtol=1e-3, atol=1e-3)
    assert_close(state.to(end.dtype), end, rtol=1e-3, atol=1e-3)


def test_names_and_sizes_that_are_none_are_refused():
    with pytest.raises(ValueError, match="initialisation='hippo'"):
        S4D(3, initialisation="hippo")
    with pytest.raises(ValueError, match="discretisation='euler'"):
        S4D(3, discretisation="euler")
    with pytest.raises(ValueError, match="state_size=7: expected an even number"):
        S4D(3, 7)
    assert S4D(3, 7, initialisation="real")(torch.randn(1, 4, 3))[0].shape == (1, 4, 3)


def selective_loop(x, delta, rate, entry, exit, h):
    ys = []
    for t in range(x.shape[1]):
        change = delta[:, t, :, None]
        h = (change * rate).exp() * h + change * entry[:, t, None] * x[:, t, :, None]
        ys.append((exit[:, t, None] * h).sum(-1))
    return torch.stack(ys, 1), h


def selective_inputs(time):
    x, delta, rate, entry, exit, h = (numbers(*shape) for shape in (
        (2, time, 3), (2, time, 3), (3, 4), (2, time, 4), (2, time, 4), (2, 3, 4)))  # fmt: skip
    return [x, softplus(delta).detach().requires_grad_(), (-rate.exp()).detach().requires_grad_(), entry, exit, h]


@pytest.mark.parametrize("time", [1, 7, 50])
def test_a_selective_scan_is_its_loop_in_values_and_gradients_also_over_several_segments(time, monkeypatch):
    monkeypatch.setattr(state_space, "SEGMENT", 20)
    leaves = selective_inputs(time)
    (ours, end), (loop, last) = selective_scan(*leaves), selective_loop(*leaves)
    assert_close(end, last, **EXACT)
    equal_with_gradients(torch.cat([ours, end.mT], 1), torch.cat([loop, last.mT], 1), leaves)


def test_a_selective_scan_ignores_where_delta_is_zero_and_starts_anew_where_it_is_large():
    x, delta, rate, entry, exit, h = selective_inputs(12)
    with torch.no_grad():
        delta[:, 5:9] = 0
        whole, end = selective_scan(x, delta, rate, entry, exit, h)
        kept = [0, 1, 2, 3, 4, 9, 10, 11]
        some, last = selective_scan(x[:, kept], delta[:, kept], rate, entry[:, kept], exit[:, kept], h)
        assert_close(whole[:, kept], some, **EXACT)
        assert_close(end, last, **EXACT)
        delta[:, 6] = 1e4
        assert_close(selective_scan(x, delta, rate, entry, exit, h)[1], selective_scan(x, delta, rate, entry, exit)[1], **EXACT)


def test_a_selective_scan_of_bfloat16_is_computed_in_float32():
    leaves = [leaf.detach().float() for leaf in selective_inputs(40)]
    leaves = [leaf.bfloat16() if i in (0, 1, 3, 4) else leaf for i, leaf in enumerate(leaves)]
    expected, _ = selective_scan(*(leaf.float() for leaf in leaves))
    for allowed in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=allowed):
            found, state = selective_scan(*leaves)
        assert (found.dtype, state.dtype) == (torch.bfloat16, torch.float32)
        assert torch.equal(found, expected.bfloat16())


def test_mamba_is_its_formula():
    layer, x = Mamba(3, 6, 4, kernel_size=3, rank=2).double(), numbers(2, 15, 3)
    u, gate = (x @ layer.input.weight.T).split(6, -1)
    v = torch.zeros(2, 15, 6, dtype=torch.float64) + layer.convolution.bias
    for back in range(3):
        v = v + nn.functional.pad(u, (0, 0, back, 0))[:, :15] * layer.convolution.weight[:, 0, 2 - back]
    v = v * v.sigmoid()
    rank, entry, exit = (v @ layer.selection.weight.T).split([2, 4, 4], -1)
    delta = (1 + (rank @ layer.delta.weight.T + layer.delta.bias).exp()).log()
    y, _ = selective_loop(v, delta, -layer.log_decay.exp(), entry, exit, torch.zeros(2, 6, 4).double())
    expected = ((y + layer.skip * v) * gate * gate.sigmoid()) @ layer.output.weight.T
    equal_with_gradients(layer(x)[0], expected, [x, *layer.parameters()])


def test_mamba_starts_with_steps_and_decays_of_its_paper():
    layer = Mamba(64, 10_000)
    assert layer.rank == 4
    assert_close(layer.log_decay.exp()[7], torch.arange(1.0, 17))
    steps = softplus(layer.delta.bias)
    assert 0.00099 < steps.min() < 0.0011
    assert 0.09 < steps.max() < 0.1001
    assert steps.median().item() == pytest.approx(0.01, rel=0.1)


class Copier(nn.Module):
    """Two state spaces with residual connections between an embedding and a head."""

    def __init__(self, mixer):
        super().__init__()
        self.embedding, self.head = nn.Embedding(6, 32), nn.Linear(32, 6)
        self.norms, self.mixers = nn.ModuleList(nn.LayerNorm(32) for _ in range(2)), nn.ModuleList(mixer() for _ in range(2))

    def forward(self, tokens):
        x = self.embedding(tokens)
        for norm, mixer in zip(self.norms, self.mixers, strict=True):
            x = x + mixer(norm(x))[0]
        return self.head(x)


def scattered(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Four symbols of four kinds at chance places among sixteen blanks; then they are to be told in order."""
    symbols = torch.randint(4, (batch, 4))
    places = torch.rand(batch, 20).argsort(1)[:, :4].sort(1).values
    return nn.functional.pad(torch.full((batch, 20), 4).scatter(1, places, symbols), (0, 4), value=5), symbols


def copied(model: nn.Module) -> float:
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(1000):
        tokens, symbols = scattered(32)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(tokens)[:, 20:].flatten(0, 1), symbols.flatten()).backward()
        optimizer.step()
    tokens, symbols = scattered(512)
    with torch.no_grad():
        return (model(tokens)[:, 20:].argmax(-1) == symbols).float().mean().item()


@pytest.mark.slow
def test_mamba_copies_what_stands_among_blanks_at_chance_places():
    assert copied(Copier(lambda: Mamba(32, 64, 8))) > 0.9


@pytest.mark.slow
def test_a_state_space_that_does_not_select_copies_less():
    assert copied(Copier(lambda: S4D(32, 16))) < 0.8

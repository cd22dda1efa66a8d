"""The layers of attention: many heads at once, and the two other ways to say how well a query fits a key."""

import pytest
import torch
from torch import nn
from torch.autograd import grad
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from thalweg.figures import heat_map
from thalweg.layers import attention as module
from thalweg.layers.attention import AdditiveAttention, BilinearAttention, KernelRegression, MovingWindow, MultiHeadAttention

EXACT = {"rtol": 0, "atol": 1e-10}


def numbers(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def equal_with_gradients(ours, naive, inputs):
    assert_close(ours, naive, **EXACT)
    direction = torch.randn_like(ours)
    for one, other in zip(grad(ours, inputs, direction), grad(naive, inputs, direction), strict=True):
        assert_close(one, other, **EXACT)


def twins(memory_dim=8, **more):
    """torch's layer and ours with its weights."""
    theirs = nn.MultiheadAttention(8, 4, batch_first=True, kdim=memory_dim, vdim=memory_dim).double()
    ours = MultiHeadAttention(8, 4, memory_dim=memory_dim, **more).double()
    nn.init.normal_(theirs.in_proj_bias)
    nn.init.normal_(theirs.out_proj.bias)
    packed = theirs.in_proj_weight
    weights = [theirs.q_proj_weight, theirs.k_proj_weight, theirs.v_proj_weight] if packed is None else packed.chunk(3)
    with torch.no_grad():
        for layer, weight, bias in zip(
            (ours.query, ours.key, ours.value, ours.output),
            (*weights, theirs.out_proj.weight),
            (*theirs.in_proj_bias.chunk(3), theirs.out_proj.bias),
            strict=True,
        ):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
    return theirs, ours


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("long", [0, 1024])  # with 0 torch's kernel answers, else a bias that learns needs matrices
def test_with_torchs_weights_it_is_torchs_layer(causal, long, monkeypatch):
    monkeypatch.setattr(module, "LONG", long)
    (theirs, ours), x = twins(causal=causal), numbers(3, 5, 8)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]).bool()
    future = torch.ones(5, 5, dtype=torch.bool).triu(1) if causal else None
    expected = theirs(x, x, x, key_padding_mask=~mask, attn_mask=future)[0]
    equal_with_gradients(ours(x, mask=mask), expected, [x])
    scores = numbers(4, 5, 5)
    hidden = scores if future is None else scores.masked_fill(future, -torch.inf)
    expected = theirs(x, x, x, attn_mask=hidden.repeat(3, 1, 1), need_weights=False)[0]
    equal_with_gradients(ours(x, bias=scores), expected, [x, scores])


def test_across_two_sequences_it_is_torchs_layer_and_the_answer_depends_on_both():
    (theirs, ours), x, memory = twins(memory_dim=6), numbers(3, 5, 8), numbers(3, 7, 6)
    mask = torch.arange(7) < torch.tensor([[7], [4], [1]])
    equal_with_gradients(ours(x, memory, mask), theirs(x, memory, memory, key_padding_mask=~mask)[0], [x, memory])
    reached = grad(ours(x, memory, mask).sum(), memory)[0].abs().sum(-1) > 0
    assert torch.equal(reached, mask)


def test_it_is_its_formula_with_a_head_at_a_time_and_keys_that_heads_share():
    for groups in (1, 2, 4):
        layer, x = MultiHeadAttention(12, 4, groups).double(), numbers(2, 5, 12)
        heads = []
        for head in range(4):
            rows, shared = slice(3 * head, 3 * head + 3), head // (4 // groups)
            held = slice(3 * shared, 3 * shared + 3)
            query = x @ layer.query.weight[rows].T + layer.query.bias[rows]
            key, value = (x @ part.weight[held].T + part.bias[held] for part in (layer.key, layer.value))
            heads.append((query @ key.mT / 3**0.5).softmax(-1) @ value)
        naive = torch.cat(heads, -1) @ layer.output.weight.T + layer.output.bias
        equal_with_gradients(layer(x), naive, [x, *layer.parameters()])
        assert layer.key.weight.shape == (3 * groups, 12)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_reading_through_the_cache_in_pieces_is_reading_at_once(groups):
    layer, x = MultiHeadAttention(12, 4, groups, causal=True).double(), numbers(2, 6, 12)
    mask = torch.tensor([[True] * 6, [False, False, True, True, True, True]])  # the second text begins later
    cache = layer.new_cache(2, 6)
    pieces = [layer(x[:, a:b], mask=mask[:, :b], cache=cache) for a, b in [(0, 3), (3, 4), (4, 6)]]
    assert_close(torch.cat(pieces, 1), layer(x, mask=mask), **EXACT)
    assert cache.key.shape == (2, groups, 6, 3)


def test_a_memory_is_read_once_for_all_steps():
    layer, x, memory = MultiHeadAttention(8, 2, memory_dim=6).double(), numbers(2, 4, 8), numbers(2, 5, 6)
    calls, cache = [], layer.new_cache(2, 9)  # more room than is needed
    layer.key.register_forward_hook(lambda *_: calls.append(1))
    pieces = [layer(x[:, t : t + 1], memory, cache=cache) for t in range(4)]
    assert len(calls) == 1
    assert_close(torch.cat(pieces, 1), layer(x, memory), **EXACT)


def test_padding_does_not_matter_and_who_sees_nothing_says_the_bias():
    layer, x = MultiHeadAttention(8, 2).double(), numbers(2, 5, 8)
    mask = torch.tensor([[True, True, True, False, False], [False] * 5])
    y = layer(x, mask=mask)
    assert_close(y[0, :3], layer(x[:1, :3])[0], **EXACT)
    assert_close(y[1], layer.output.bias.expand(5, 8), **EXACT)


def test_dropout_of_weights_rests_at_test_time():
    layer, x = MultiHeadAttention(8, 2, dropout=0.5), torch.randn(2, 5, 8)
    assert not torch.equal(layer(x), layer(x))
    plain = MultiHeadAttention(8, 2)
    plain.load_state_dict(layer.state_dict())
    assert_close(layer.eval()(x), plain(x))


def test_without_positions_self_attention_is_equivariant_to_the_order():
    layer, x, order = MultiHeadAttention(8, 2).double(), numbers(2, 6, 8), torch.randperm(6)
    assert_close(layer(x[:, order]), layer(x)[:, order], **EXACT)


def test_sizes_that_do_not_divide_are_refused():
    for more in ((7, 2), (8, 4, 3), (8, 4, 0)):
        with pytest.raises(ValueError, match="expected a multiple and a divisor of num_heads"):
            MultiHeadAttention(*more)
    with pytest.raises(ValueError, match="memory: a causal layer"):
        MultiHeadAttention(8, 2, causal=True)(torch.zeros(1, 2, 8), torch.zeros(1, 3, 8))


def fits(layer, q, k):
    """The score of a query and a key by the formula of the layer."""
    if isinstance(layer, AdditiveAttention):
        return (layer.score.weight[0] * torch.tanh(layer.query.weight @ q + layer.key.weight @ k)).sum()
    return q @ layer.key.weight @ k


@pytest.mark.parametrize("layer", [AdditiveAttention(4, 3, 7), BilinearAttention(4, 3)], ids=["additive", "bilinear"])
def test_learned_scores_are_their_formula_for_queries_and_keys_of_unequal_width(layer):
    layer, query, key, value = layer.double(), numbers(3, 2, 4), numbers(3, 5, 3), numbers(3, 5, 6)
    mask = torch.tensor([[True] * 5, [True, False, True, True, False], [False] * 5])
    naive = torch.zeros(3, 2, 6).double()
    for b in range(2):
        for t in range(2):
            seen = [s for s in range(5) if mask[b, s]]
            score = torch.stack([fits(layer, query[b, t], key[b, s]).exp() for s in seen])
            naive[b, t] = sum(e / score.sum() * value[b, s] for e, s in zip(score, seen, strict=True))
    equal_with_gradients(layer(query, key, value, mask), naive, [query, key, value, *layer.parameters()])
    weights = layer.weights(query, layer.key(key), mask)
    assert_close(weights.sum(-1), mask.any(1)[:, None].expand(3, 2).double(), **EXACT)
    assert_close(layer(query, key, value)[:1], layer(query, key, value, mask)[:1], **EXACT)  # no mask shows all


@pytest.mark.parametrize("make", [AdditiveAttention, BilinearAttention])
def test_learned_scores_learn_which_key_a_query_means(make):
    """Keys are codes in another alphabet than the queries; the value of the matching one must come back."""
    layer = make(8, 5, *([32] if make is AdditiveAttention else []))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    questions, codes = torch.randn(6, 8), torch.randn(6, 5)
    for _ in range(200):
        order, asked = torch.rand(64, 6).argsort(1), torch.randint(0, 6, (64,))
        value = nn.functional.one_hot(order, 6).float()
        answer = layer(questions[asked][:, None], codes[order], value)[:, 0]
        loss = nn.functional.nll_loss(answer.clamp(min=1e-6).log(), asked)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (answer.argmax(1) == asked).float().mean() == 1


def test_kernel_regression_is_its_formula_in_values_and_gradients():
    layer, query, key, value = KernelRegression(0.7).double(), numbers(2, 3, 4), numbers(2, 5, 4), numbers(2, 5, 6)
    mask = torch.rand(3, 5) < 0.7
    mask[:, 0] = True
    nearness = torch.stack([torch.stack([
        (-((layer.width * (query[:, t] - key[:, s])) ** 2).sum(-1) / 2).exp() * mask[t, s] for s in range(5)
    ], -1) for t in range(3)], 1)  # fmt: skip
    naive = nearness / nearness.sum(-1, keepdim=True) @ value
    equal_with_gradients(layer(query, key, value, mask), naive, [query, key, value, layer.width])


def curve():
    """D2L 10.2: fifty noisy values of 2 sin(x) + x^0.8 to learn from, the true curve to test on."""

    def f(x):
        return 2 * x.sin() + x**0.8

    key, query = 5 * torch.rand(1, 50, 1).sort(1).values, torch.linspace(0, 5, 50)[None, :, None]
    return key, f(key) + 0.5 * torch.randn(1, 50, 1), query, f(query)


def test_kernel_regression_is_closer_than_the_mean_smoother_than_the_data_and_looks_along_the_diagonal():
    key, value, query, truth = curve()
    layer = KernelRegression()
    answer, weights = layer(query, key, value), layer.weights(query, key)[0]
    assert (answer - truth).square().mean() < 0.6 * (value.mean() - truth).square().mean()
    assert answer.diff(dim=1).abs().sum() < 0.2 * value.diff(dim=1).abs().sum()
    nearest = (query[0] - key[0].T).abs().argmin(1)
    assert torch.equal(weights.argmax(1), nearest)
    assert torch.corrcoef(torch.stack([nearest.float(), torch.arange(50.0)]))[0, 1] > 0.98
    assert_close(weights.sum(1), torch.ones(50))
    drawn = heat_map(weights, "known questions", "questions").axes[0].images[0]
    assert_close(torch.as_tensor(drawn.get_array()).float(), weights)


def test_a_learned_width_fits_better_and_looks_more_sharply():
    key, value, query, truth = curve()
    layer, others = KernelRegression(), ~torch.eye(50, dtype=torch.bool)

    def left_out():
        return (layer(key, key, value, others) - value).square().mean()

    before, blurred = left_out().item(), layer.weights(query, key).square().sum(-1).mean()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    for _ in range(100):
        loss = left_out()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.8 * before
    assert layer.weights(query, key).square().sum(-1).mean() > 1.5 * blurred
    assert (layer(query, key, value) - truth).square().mean() < (KernelRegression()(query, key, value) - truth).square().mean()


def steps_in_a_row(y):
    """The longest chain of operations that led to y: what no number of processors can do at once."""
    depth = {None: 0}
    waiting = [y.grad_fn]
    while waiting:
        node = waiting[-1]
        before = [parent for parent, _ in node.next_functions]
        unknown = [parent for parent in before if parent not in depth]
        waiting.extend(unknown)
        if not unknown:
            depth[node] = 1 + max((depth[parent] for parent in before), default=0)
            waiting.pop()
    return depth[y.grad_fn]


class Recurrence(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.cell = nn.RNNCell(dim, dim)

    def forward(self, x):
        states = [self.cell(x[:, 0])]
        for t in range(1, x.shape[1]):
            states.append(self.cell(x[:, t], states[-1]))
        return torch.stack(states, 1)


class Window(nn.Conv1d):
    def forward(self, x):
        return super().forward(x.mT).mT


def test_what_self_attention_costs_beside_a_convolution_and_a_recurrence():
    """D2L 10.6: n^2 d operations against k n d^2 and n d^2; 1 step in a row against 1 and n; paths of 1 against n / k and n."""
    dim, kernel = 16, 3
    work, steps, reach = {}, {}, {}
    for n in (32, 64):
        for name, layer in {
            "attention": MultiHeadAttention(dim, 2, dropout=0.1),  # by matrices, whose operations torch counts
            "convolution": Window(dim, dim, kernel, padding=1),
            "recurrence": Recurrence(dim),
        }.items():
            x = torch.randn(1, n, dim, requires_grad=True)
            with FlopCounterMode(display=False) as counter:
                y = layer(x)
            projections = 4 * 2 * n * dim**2 if name == "attention" else 0
            work[name, n] = counter.get_total_flops() - projections
            steps[name, n] = steps_in_a_row(y)
            reach[name, n] = sum(grad(y[0, -1].sum(), x)[0].abs().sum(-1)[0] > 0).item()  # places that one layer connects
    for n in (32, 64):
        assert work["attention", n] == 2 * 2 * n**2 * dim
        assert work["convolution", n] == 2 * kernel * n * dim**2
        assert work["recurrence", n] == 2 * 2 * n * dim**2
        assert reach["attention", n] == n
        assert reach["convolution", n] == kernel // 2 + 1
    assert steps["attention", 64] == steps["attention", 32]
    assert steps["convolution", 64] == steps["convolution", 32]
    assert steps["recurrence", 64] - steps["recurrence", 32] >= 32


def test_a_moving_window_is_a_sum_of_bell_curves_that_only_go_on():
    layer = MovingWindow(5, windows=2).double()
    nn.init.normal_(layer.step.bias)
    query, before, mask = numbers(3, 2, 5), numbers(3, 2, 2), torch.arange(6) < torch.tensor([[6], [4], [0]])
    weights, kappa = layer(query, before, mask)
    rows, places = [], []
    for batch in range(3):
        for t in range(2):
            alpha, beta, delta = (layer.step.weight @ query[batch, t] + layer.step.bias).exp().chunk(3)
            place = before[batch, t] + delta
            places.append(place)
            rows += [sum(alpha[k] * torch.exp(-beta[k] * (place[k] - s) ** 2) for k in range(2)) * mask[batch, s]
                     for s in range(6)]  # fmt: skip
    assert (kappa > before).all()
    inputs = [query, before, layer.step.weight, layer.step.bias]
    joined, naive = (
        torch.cat([weights.flatten(), kappa.flatten()]),
        torch.cat([torch.stack(rows), torch.stack(places).flatten()]),
    )
    equal_with_gradients(joined, naive, inputs)

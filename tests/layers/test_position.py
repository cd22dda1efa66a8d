"""Codes of places and biases of distances against their formulas, and what each of them promises."""

import math

import pytest
import torch
from torch import nn
from torch.autograd import grad
from torch.testing import assert_close

from thalweg.build import unallocated
from thalweg.figures import heat_map
from thalweg.layers.attention import MultiHeadAttention, attention
from thalweg.layers.position import BucketedBias, RelativeKeys, WindowBias, alibi, buckets, distances, sinusoidal, spread

EXACT = {"rtol": 0, "atol": 1e-10}
LIKE = torch.zeros((), dtype=torch.float64)


def numbers(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def equal_with_gradients(ours, naive, inputs):
    assert_close(ours, naive, **EXACT)
    direction = torch.randn_like(ours)
    for one, other in zip(grad(ours, inputs, direction), grad(naive, inputs, direction), strict=True):
        assert_close(one, other, **EXACT)


@pytest.mark.parametrize("dim", [8, 7])
def test_sinusoidal_codes_are_their_formula(dim):
    codes = sinusoidal(3, 5, dim, LIKE)
    for t in range(5):
        for d in range(dim):
            even = math.sin((3 + t) / 1e4 ** (d / dim))
            odd = math.cos((3 + t) / 1e4 ** ((d - 1) / dim))
            assert codes[t, d].item() == pytest.approx(odd if d % 2 else even, abs=1e-12)
    assert sinusoidal(0, 4, dim, LIKE.bfloat16()).dtype == torch.bfloat16
    assert_close(sinusoidal(0, 9, dim, LIKE.float())[3:8], codes.float(), rtol=0, atol=1e-6)


def test_a_step_turns_sinusoidal_codes_by_the_same_map_everywhere():
    """p(t + k) = R_k p(t), R_k block diagonal of rotations, for all t.   D2L 10.6"""
    dim, k = 6, 5
    turn = torch.zeros(dim, dim, dtype=torch.float64)
    for i in range(0, dim, 2):
        angle = k / 1e4 ** (i / dim)
        turn[i : i + 2, i : i + 2] = torch.tensor(
            [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]], dtype=torch.float64
        )
    codes = sinusoidal(0, 100, dim, LIKE)
    assert_close(codes[k:], codes[:-k] @ turn.T, **EXACT)
    assert_close((codes[:-k] * codes[k:]).sum(1), (codes[0] @ codes[k]).expand(95), **EXACT)  # so products see distances


def test_sinusoidal_codes_are_drawn_as_a_map_of_stripes():
    """D2L 10.6: places down, columns across; each column slower than the one before."""
    codes = sinusoidal(0, 60, 32, LIKE)
    figure = heat_map(codes, "column", "place")
    image = figure.axes[0].images[0]
    assert_close(torch.as_tensor(image.get_array()), codes)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("column", "place")
    crossings = (codes[1:].sign() != codes[:-1].sign()).sum(0)[::2]
    assert (crossings.diff() <= 0).all()


class OrderReader(nn.Module):
    """Tells which of two marks came first; without places attention sees a set, so it cannot."""

    def __init__(self, time, places):
        super().__init__()
        self.embedding, self.attention, self.head = nn.Embedding(6, 16), MultiHeadAttention(16, 2), nn.Linear(16, 2)
        self.position = nn.Embedding(time, 16) if places else None

    def forward(self, tokens):
        x = self.embedding(tokens)
        if self.position is not None:
            x = x + self.position.weight
        return self.head(self.attention(x).max(1).values)


def marked(number, time=8):
    """Random tokens with the marks 4 and 5 at two places; 1 if the 4 comes first."""
    tokens = torch.randint(0, 4, (number, time))
    place = torch.rand(number, time).argsort(1)[:, :2]
    tokens.scatter_(1, place, torch.tensor([4, 5]).expand(number, 2))
    return tokens, (place[:, 0] < place[:, 1]).long()


def accuracy_of_order(places):
    torch.manual_seed(0)
    model = OrderReader(8, places)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(200):
        tokens, label = marked(64)
        loss = nn.functional.cross_entropy(model(tokens), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokens, label = marked(1000)
    return model, (model(tokens).argmax(1) == label).float().mean()


def test_the_order_of_tokens_is_learned_with_learned_places_and_not_without():
    model, accuracy = accuracy_of_order(places=False)
    assert accuracy < 0.56
    tokens, _ = marked(10)
    assert_close(model(tokens), model(tokens[:, torch.randperm(8)]))  # to it, a sentence is a bag of words
    model, accuracy = accuracy_of_order(places=True)
    assert accuracy > 0.95


def test_every_pair_gets_the_number_of_its_distance():
    for time, read in [(4, 4), (1, 5), (3, 7)]:
        line = numbers(2, time + read - 1)
        away = distances(time, read).tolist()
        naive = torch.stack([torch.stack([line[:, away.index(s - (read - time + t))] for s in range(read)], -1)
                             for t in range(time)], -2)  # fmt: skip
        equal_with_gradients(spread(line, read), naive, [line])


SLOPES = {  # as BLOOM's code in transformers has them, and for 8 heads the paper
    8: [2.0**-k for k in range(1, 9)],
    6: [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125],
    12: [*(2.0**-k for k in range(1, 9)), *(2.0 ** (-k - 0.5) for k in range(4))],
}


@pytest.mark.parametrize("heads", SLOPES)
def test_linear_biases_are_their_formula(heads):
    bias = alibi(heads, 3, 5, LIKE)
    for h in range(heads):
        for t in range(3):
            for s in range(5):
                assert bias[h, t, s].item() == pytest.approx(-SLOPES[heads][h] * abs(s - (t + 2)), abs=1e-12)


# distance -> bucket where it changes, from -400 on, as T5's code in transformers gives them
BUCKETS = {
    (False, 8, 20): {-400: 3, -6: 2, -1: 1, 0: 0, 1: 5, 2: 6, 7: 7},
    (False, 32, 128): {-400: 15, -90: 14, -63: 13, -45: 12, -31: 11, -22: 10, -15: 9, -11: 8, -7: 7, -6: 6, -5: 5, -4: 4,
                       -3: 3, -2: 2, -1: 1, 0: 0, 1: 17, 2: 18, 3: 19, 4: 20, 5: 21, 6: 22, 7: 23, 8: 24, 12: 25, 16: 26,
                       23: 27, 32: 28, 46: 29, 64: 30, 91: 31},
    (True, 10, 64): {-400: 9, -38: 8, -23: 7, -13: 6, -8: 5, -4: 4, -3: 3, -2: 2, -1: 1, 0: 0},
    (True, 32, 128): {-400: 31, -112: 30, -98: 29, -86: 28, -76: 27, -66: 26, -58: 25, -51: 24, -45: 23, -39: 22, -34: 21,
                      -30: 20, -26: 19, -23: 18, -20: 17, -18: 16, **{-n: n for n in range(16)}},
}  # fmt: skip


@pytest.mark.parametrize("case", BUCKETS)
def test_distances_fall_into_the_buckets_of_t5(case):
    causal, number, farthest = case
    bucket = None
    for distance in range(-400, 401):
        bucket = BUCKETS[case].get(distance, bucket)
        assert buckets(torch.tensor(distance), number, farthest, causal) == bucket


@pytest.mark.parametrize("causal", [False, True])
def test_a_bucketed_bias_looks_its_numbers_up(causal):
    layer = BucketedBias(3, 8, 20, causal).double()
    naive = torch.stack([torch.stack([
        layer.table.weight[buckets(torch.tensor(s - (t + 20)), 8, 20, causal)] for s in range(30)
    ]) for t in range(10)]).permute(2, 0, 1)  # fmt: skip
    equal_with_gradients(layer(10, 30), naive, [layer.table.weight])
    for wrong in ((6, 20), (8, 2), (0, 20)):
        with pytest.raises(ValueError, match=f"num_buckets={wrong[0]}, max_distance={wrong[1]}"):
            BucketedBias(3, *wrong)


def test_keys_that_look_different_from_each_distance_are_their_formula():
    layer, query, key, value = RelativeKeys(4, 2).double(), numbers(2, 3, 5, 4), numbers(2, 3, 7, 4), numbers(2, 3, 7, 4)
    score = torch.stack([torch.stack([
        (query[:, :, t] * (key[:, :, s] + layer.table.weight[min(max(s - (t + 2), -2), 2) + 2])).sum(-1) / 2 for s in range(7)
    ], -1) for t in range(5)], -2)  # fmt: skip
    ours = attention(query, key, value, bias=layer(query, 7))
    equal_with_gradients(ours, score.softmax(-1) @ value, [query, key, value, layer.table.weight])


def test_a_bias_of_a_window_is_looked_up_by_rows_and_columns():
    layer = WindowBias(2, 2, 3).double()
    naive = torch.stack([torch.stack([
        layer.table.weight[(i // 3 - j // 3 + 1) * 5 + (i % 3 - j % 3 + 2)] for j in range(6)
    ]) for i in range(6)]).permute(2, 0, 1)  # fmt: skip
    equal_with_gradients(layer(), naive, [layer.table.weight])
    assert layer.table.weight.shape == (15, 2)  # as many as there are offsets
    with unallocated():
        assert WindowBias(2, 2, 3).index.shape == (6, 6)


BUCKETED = BucketedBias(4, 8, 20).double()
BIASES = {
    "linear": lambda query, read: alibi(4, query.shape[2], read, query),
    "bucketed": lambda query, read: BUCKETED(query.shape[2], read),
    "relative keys": RelativeKeys(8, 3).double(),
}


@pytest.mark.parametrize("name", BIASES)
def test_a_bias_depends_on_the_distance_alone_and_goes_on_beyond_any_length(name):
    query = numbers(1, 4, 1, 8).expand(1, 4, 40, 8)
    bias = BIASES[name](query, 40).expand(1, 4, 40, 40)
    assert_close(bias[..., 1:, 1:], bias[..., :-1, :-1], **EXACT)
    assert not torch.allclose(bias[..., 1:], bias[..., :-1])
    short = BIASES[name](query[:, :, :15], 15)
    assert_close(bias[..., :15, :15], short.expand(1, 4, 15, 15), **EXACT)  # a longer text begins as a shorter one


@pytest.mark.parametrize("name", BIASES)
def test_read_token_by_token_through_a_cache_places_are_the_same(name):
    layer, x = MultiHeadAttention(32, 4, causal=True).double(), numbers(2, 6, 32)

    def read(x, cache=None, before=0):
        query = layer.query(x).unflatten(-1, (4, 8)).transpose(1, 2)
        return layer(x, bias=BIASES[name](query, before + x.shape[1]), cache=cache)

    cache = layer.new_cache(2, 6)
    pieces = [read(x[:, start:end], cache, start) for start, end in [(0, 2), (2, 3), (3, 6)]]
    assert_close(torch.cat(pieces, 1), read(x), **EXACT)


def test_with_linear_biases_the_end_of_a_long_text_is_read_as_if_it_were_all():
    """However long the text, a steep head's weight lies on the last places."""
    query, key, value = numbers(3, 1, 8, 256, 4)

    def end(start, bias):
        return attention(*(x[:, :, start:] for x in (query, key, value)), bias=bias, causal=True)[:, 0, -1]

    assert_close(end(0, alibi(8, 256, 256, query)), end(128, alibi(8, 128, 128, query)), **EXACT)
    assert not torch.allclose(end(0, None), end(128, None), atol=1e-3)

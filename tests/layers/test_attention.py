"""Attention, its cache, and rotary positions against their formulas."""

import math

import pytest
import torch

from thalweg.layers.attention import KeyValueCache, attention, head_count
from thalweg.layers.norms import RMSNorm, rms_norm
from thalweg.layers.position import rotate, rotation, slowed


@pytest.mark.parametrize(("embed_dim", "count"), [(384, 6), (128, 2), (64, 1), (32, 1), (200, 2), (300, 3), (2, 1)])
def test_a_width_parts_into_heads_of_an_even_width(embed_dim, count):
    assert head_count(embed_dim, 64) == count
    with pytest.raises(ValueError, match=r"embed_dim=\d+: expected an even number"):
        head_count(embed_dim + 1, 64)


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def close(one, other, bar=1e-10):
    return (one - other).abs().max() <= bar


def naive_attention(query, key, value):
    batch, heads, time, dim = query.shape
    read = key.shape[2]
    out = torch.zeros_like(query)
    for b in range(batch):
        for h in range(heads):
            for t in range(time):
                seen = read - time + t + 1
                scores = torch.stack([query[b, h, t] @ key[b, h, s] / math.sqrt(dim) for s in range(seen)])
                weight = scores.exp() / scores.exp().sum()
                out[b, h, t] = sum(weight[s] * value[b, h, s] for s in range(seen))
    return out


@pytest.mark.parametrize("learned", [False, True], ids=["torch's kernel", "matrices"])
@pytest.mark.parametrize(("time", "read"), [(5, 5), (1, 4), (3, 7), (1, 1)])
def test_attention_is_its_formula_in_values_and_gradients(time, read, learned):
    nothing = torch.zeros((), requires_grad=True) if learned else None  # torch's kernel has no gradient of a bias
    inputs = double(2, 3, time, 4), double(2, 3, read, 4), double(2, 3, read, 4)
    ours, formula = attention(*inputs, bias=nothing, causal=True), naive_attention(*inputs)
    assert close(ours, formula)
    weight = torch.randn_like(formula)
    for one, other in zip(torch.autograd.grad(ours, inputs, weight), torch.autograd.grad(formula, inputs, weight), strict=True):
        assert close(one, other)


def test_fewer_keys_than_queries_are_refused():
    with pytest.raises(ValueError, match=r"key: 2 places, expected at least the 3"):
        attention(torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4), causal=True)


def test_a_cache_gives_back_what_it_took_in_and_no_other_memory():
    key, value = torch.randn(2, 2, 3, 6, 4)
    cache = KeyValueCache(2, 3, 6, 4, key)
    for start, end in [(0, 3), (3, 4), (4, 6)]:
        keys, values = cache.append(key[:, :, start:end], value[:, :, start:end])
        assert torch.equal(keys, key[:, :, :end])
        assert torch.equal(values, value[:, :, :end])
        assert keys.data_ptr() == cache.key.data_ptr()
    with pytest.raises(ValueError, match=r"7 places to keep, made for time=6"):
        cache.append(key[:, :, :1], value[:, :, :1])


def naive_rotate(x, start, base):
    time, dim = x.shape[-2:]
    out = torch.zeros_like(x)
    for t in range(time):
        for i in range(dim // 2):
            angle = (start + t) * base ** (-2 * i / dim)
            one, other = x[..., t, i], x[..., t, i + dim // 2]
            out[..., t, i] = one * math.cos(angle) - other * math.sin(angle)
            out[..., t, i + dim // 2] = other * math.cos(angle) + one * math.sin(angle)
    return out


def test_rotary_positions_are_their_formula_in_values_and_gradients():
    x = double(2, 3, 5, 8)
    ours, formula = rotate(x, rotation(7, 5, 8, x, base=100.0)), naive_rotate(x, 7, 100.0)
    assert close(ours, formula)
    weight = torch.randn_like(x)
    assert close(torch.autograd.grad(ours, x, weight)[0], torch.autograd.grad(formula, x, weight)[0])


def test_scores_of_rotated_vectors_depend_on_their_distance_alone():
    query, key = double(1, 16), double(1, 16)

    def score(s, t):
        return rotate(query, rotation(s, 1, 16, query)) @ rotate(key, rotation(t, 1, 16, key)).T

    assert close(score(3, 1), score(40, 38))
    assert close(score(0, 9), score(100, 109))
    assert not close(score(3, 1), score(1, 3), 1e-3)


def test_rotation_keeps_lengths_and_leaves_the_first_place():
    x = double(2, 6, 8)
    turned = rotate(x, rotation(0, 6, 8, x))
    assert close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[:, 0], x[:, 0])


def test_an_odd_width_cannot_be_rotated():
    with pytest.raises(ValueError, match="dim=7"):
        rotation(0, 3, 7, torch.zeros(()))


def test_the_root_mean_square_norm_is_its_formula_in_values_and_gradients():
    x = double(2, 3, 5)
    naive = torch.stack([row / (sum(v * v for v in row) / 5 + 1e-3) ** 0.5 for row in x.reshape(-1, 5)]).view_as(x)
    ours = rms_norm(x, 1e-3)
    assert close(ours, naive)
    weight = torch.randn_like(x)
    assert close(torch.autograd.grad(ours, x, weight)[0], torch.autograd.grad(naive, x, weight)[0])
    assert close(ours, torch.nn.functional.rms_norm(x, (5,), eps=1e-3))


def test_a_norm_with_gains_is_its_formula_in_values_and_gradients_and_in_the_type_that_it_reads():
    norm, x = RMSNorm(5, 1e-3).double(), double(2, 3, 5)
    torch.nn.init.normal_(norm.weight)
    ours, naive = norm(x), norm.weight * rms_norm(x, 1e-3)
    assert close(ours, naive)
    weight = torch.randn_like(x)
    for one, other in zip(*(torch.autograd.grad(y, (x, norm.weight), weight) for y in (ours, naive)), strict=True):
        assert close(one, other)
    assert norm.float()(x.bfloat16()).dtype is torch.bfloat16


@pytest.mark.parametrize("masked", [False, True])
def test_one_query_a_head_that_shares_keys_reads_them_as_if_each_had_its_own(masked):
    query, key, value = double(2, 6, 1, 4), double(2, 3, 7, 4), double(2, 3, 7, 5)
    mask = None
    if masked:
        mask = torch.rand(2, 1, 1, 7) < 0.5
        mask[0] = False  # nothing to read: zeros
    ours = attention(query, key, value, mask, causal=True)
    own = attention(query, *(x.repeat_interleave(2, 1) for x in (key, value)), mask, causal=True)
    assert close(ours, own)
    assert not masked or not ours[0].any()
    weight = torch.randn_like(ours)
    inputs = query, key, value
    for one, other in zip(*(torch.autograd.grad(y, inputs, weight) for y in (ours, own)), strict=True):
        assert close(one, other)


def test_texts_that_start_at_places_of_their_own_are_turned_as_each_alone():
    x = double(3, 2, 4, 6)
    slower = [1.0, 2.0, 3.0]
    together = rotate(x, rotation(torch.tensor([0, 5, 11]), 4, 6, x, 50.0, slower))
    for row, start in enumerate((0, 5, 11)):
        assert close(together[row], rotate(x[row], rotation(start, 4, 6, x, 50.0, slower)))


def test_slower_turns_are_their_definition():
    """Frequencies by wave length, as Llama 3.1 was published with."""
    dim, base, factor, low, high, context = 16, 5000.0, 8.0, 1.0, 4.0, 512
    found = slowed(dim, base, factor, low, high, context)
    for pair, slower in enumerate(found):
        frequency = base ** (-2 * pair / dim)
        wave = 2 * math.pi / frequency
        if wave < context / high:
            wanted = frequency
        elif wave > context / low:
            wanted = frequency / factor
        else:
            smooth = (context / wave - low) / (high - low)
            wanted = (1 - smooth) * frequency / factor + smooth * frequency
        assert frequency / slower == pytest.approx(wanted, rel=1e-12)
    assert found[0] == 1
    assert found[-1] == factor
    assert any(1 < slower < factor for slower in found)

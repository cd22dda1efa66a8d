"""Attention inside of buckets and clusters: exactly what it says it reads, and most of what is worth reading."""

import pytest
import torch
from definitions import EXACT, equal_with_gradients, numbers
from torch.nn.functional import layer_norm, normalize
from torch.testing import assert_close

from thalweg.layers.attention import attention, attention_weights
from thalweg.layers.clustered_attention import OWN, RoutedAttention, hash_buckets, hashed_attention


def union_of_rounds(bucket, chunk, real, causal):
    """Who reads whom, by sorting in Python.   bucket: [batch head round time]"""
    batch, heads, rounds, time = bucket.shape
    mask = torch.zeros(batch, heads, time, time, dtype=torch.bool)
    for b in range(batch):
        for h in range(heads):
            for r in range(rounds):
                places = sorted((t for t in range(time) if real[b, t]), key=lambda t: (bucket[b, h, r, t].item(), t))
                for i, t in enumerate(places):
                    for j, s in enumerate(places):
                        near = i // chunk - j // chunk in (0, 1)
                        if near and bucket[b, h, r, t] == bucket[b, h, r, s] and (s <= t or not causal):
                            mask[b, h, t, s] = True
    return mask


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("time", "chunk", "rounds"), [(13, 4, 3), (12, 4, 1), (5, 8, 2)])
def test_hashed_attention_is_attention_over_the_union_of_its_rounds(time, chunk, rounds, causal):
    query, value, rotations = numbers(2, 2, time, 4), numbers(2, 2, time, 3), torch.randn(rounds, 4, 1).double()
    real = torch.ones(2, time, dtype=torch.bool)
    real[1, time // 2] = real[1, -1] = False
    own = OWN * torch.eye(time).double()
    for mask in (None, real):
        shown = torch.ones_like(real) if mask is None else mask
        union = union_of_rounds(hash_buckets(query, rotations), chunk, shown, causal)
        expected = attention(query, normalize(query, dim=-1), value, union, own)
        equal_with_gradients(hashed_attention(query, value, rotations, chunk, mask, causal), expected, [query, value])


def test_buckets_recover_most_of_the_largest_weights():
    """Vectors around 16 directions; of the four largest weights of each, how many lie in a bucket with it?"""
    directions = torch.randn(16, 32)
    x = directions[torch.randint(16, (1, 1, 128))] + 0.3 * torch.randn(1, 1, 128, 32)
    weights = attention_weights(x, normalize(x, dim=-1), ~torch.eye(128, dtype=torch.bool), causal=False)
    largest = weights.topk(4).indices
    found = {}
    for rounds in (1, 8):
        bucket = hash_buckets(x, torch.randn(rounds, 32, 8))[0, 0]
        same = (bucket[:, :, None] == bucket[:, None]).any(0)
        found[rounds] = same.gather(1, largest[0, 0]).float().mean().item(), same.float().mean().item()
    assert found[1][0] > 0.5
    assert found[8][0] > 0.9
    assert found[8][0] > 2 * found[8][1]  # of all pairs, far fewer are in a bucket
    assert found[1][1] < 0.2


def test_buckets_do_not_depend_on_length_and_opposites_never_share_one():
    x, rotations = torch.randn(1, 2, 50, 8), torch.randn(3, 8, 4)
    bucket = hash_buckets(x, rotations)
    assert torch.equal(hash_buckets(7 * x, rotations), bucket)
    assert torch.equal(hash_buckets(-x, rotations), (bucket + 4) % 8)


def naive_routing(layer, query, key, value, real, size):
    """Cluster by cluster, place by place."""
    query, key = (layer_norm(x, x.shape[-1:]) for x in (query, key))
    batch, heads, time, dim = query.shape
    answers = []
    for b in range(batch):
        for h in range(heads):
            found = [[] for _ in range(time)]
            for centre in normalize(layer.centre[h], dim=-1):
                key_of = {t: -(centre @ query[b, h, t]).item() if real[b, t] else 1e9 for t in range(time)}
                asks = sorted(range(time), key=key_of.get)[:size]
                key_of = {t: -(centre @ key[b, h, t]).item() if real[b, t] else 1e9 for t in range(time)}
                reads = [s for s in sorted(range(time), key=key_of.get)[:size] if real[b, s]]
                for t in asks:
                    seen = [s for s in reads if s <= t or not layer.causal]
                    score = torch.stack([query[b, h, t] @ key[b, h, s] for s in seen]) / dim**0.5 if seen else None
                    y = score.softmax(0) @ value[b, h, seen] if seen else torch.zeros_like(value[0, 0, 0])
                    found[t].append(y)
            answers.append(torch.stack([torch.stack(y).mean(0) if y else torch.zeros_like(value[0, 0, 0]) for y in found]))
    return torch.stack(answers).unflatten(0, (batch, heads))


@pytest.mark.parametrize("causal", [False, True])
def test_routed_attention_is_attention_cluster_by_cluster(causal):
    layer = RoutedAttention(2, 4, clusters=3, causal=causal).double().eval()
    inputs, real = [numbers(2, 2, 10, 4) for _ in range(3)], torch.arange(10) < torch.tensor([[10], [6]])
    equal_with_gradients(layer(*inputs), naive_routing(layer, *inputs, torch.ones_like(real), 4), inputs)
    ours, naive = layer(*inputs, real), naive_routing(layer, *inputs, real, 4)
    shown = real[:, None, :, None]
    equal_with_gradients(ours * shown, naive * shown, inputs)


def test_one_cluster_of_all_is_attention():
    layer, inputs = RoutedAttention(2, 4, clusters=1).double().eval(), [numbers(2, 2, 9, 4) for _ in range(3)]
    expected = attention(*(layer_norm(x, (4,)) for x in inputs[:2]), inputs[2])
    equal_with_gradients(layer(*inputs), expected, inputs)


def test_centres_follow_what_they_are_nearest_to_and_then_clusters_find_the_large_weights():
    directions = torch.randn(4, 16)
    x = directions[torch.arange(4).repeat(1, 1, 16)] + 0.1 * torch.randn(1, 1, 64, 16)
    layer = RoutedAttention(1, 16, clusters=4, decay=0.5)
    with torch.no_grad():
        layer.centre.copy_(directions + torch.randn(1, 4, 16))
    normed, value = layer_norm(x, (16,)), torch.eye(64)[None, None]
    expected = attention(normed, normed, value)
    for _ in range(10):
        read = layer(x, x, value)
    means = layer_norm(x, (16,)).unflatten(2, (16, 4)).mean(2)
    assert_close(layer.centre, means[0], rtol=0, atol=0.05)
    assert ((read > 0) & (expected > 0)).sum() == 64 * 16  # each reads its own kind, sixteen of sixty-four
    assert (expected * (read > 0)).sum(-1).mean() > 0.9
    before = layer.centre.clone()
    layer.eval()(x, x, value)
    assert_close(layer.centre, before, **EXACT)

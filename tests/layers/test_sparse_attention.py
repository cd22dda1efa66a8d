"""Sparse attention: patterns are what they say, and what is computed in blocks is attention under the pattern's mask."""

import pytest
import torch
from definitions import EXACT, equal_with_gradients, numbers
from torch.autograd.graph import saved_tensors_hooks
from torch.testing import assert_close

from thalweg.layers.attention import attention
from thalweg.layers.sparse_attention import (
    big_bird,
    blocks,
    global_tokens,
    local,
    longformer,
    pattern_mask,
    random_blocks,
    sparse_attention,
    strided,
    strided_attention,
)


def rows(mask):
    return ["".join(" x"[int(seen)] for seen in row) for row in mask]


def test_patterns_are_what_they_say():
    table = torch.tensor([[2], [0], [1]])
    drawn = pattern_mask([local(1), strided(3), global_tokens(1), blocks(table, 2)], 6)
    assert rows(drawn[0]) == ["xx    ", "xxx   ", " xxx  ", "  xxx ", "   xxx", "    xx"]
    assert rows(drawn[1]) == ["x  x  ", " x  x ", "  x  x"] * 2
    assert rows(drawn[2]) == ["xxxxxx"] + ["x     "] * 5
    assert rows(drawn[3]) == ["    xx"] * 2 + ["xx    "] * 2 + ["  xx  "] * 2
    together = pattern_mask([big_bird(2, 1, table)], 6)[0]
    assert torch.equal(together, pattern_mask([local(2)], 6)[0] | drawn[2] | drawn[3])
    assert torch.equal(pattern_mask([longformer(1, 1)], 6, causal=True)[0], (drawn[0] | drawn[2]).tril())


def steps_between(mask):
    """The most layers that it takes until every place knows of every other."""
    known, steps = mask.float(), 1
    while not (known > 0).all():
        known, steps = (known @ mask.float() > 0).float(), steps + 1
        assert steps < 1000
    return steps


def test_through_a_global_token_all_places_are_two_steps_apart():
    near, with_token = pattern_mask([local(2), longformer(2, 1)], 64)
    assert steps_between(near) == 32
    assert steps_between(with_token) == 2
    table = random_blocks(64, 2, 2, torch.Generator().manual_seed(0))
    assert steps_between(pattern_mask([big_bird(2, 0, table)], 64)[0]) < 8


def test_random_blocks_are_different_others_and_before_if_causal():
    table = random_blocks(50, 8, 3, torch.Generator().manual_seed(1))
    assert table.shape == (7, 3)
    assert all(len(set(row) | {own}) == 4 for own, row in enumerate(table.tolist()))
    past = random_blocks(50, 8, 3, torch.Generator().manual_seed(1), causal=True)
    assert (past[3:] < torch.arange(3, 7)[:, None]).all()
    with pytest.raises(ValueError, match="count=7: expected fewer than the 7 blocks"):
        random_blocks(50, 8, 7)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("tokens", [0, 3])
@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize(("time", "window"), [(23, 4), (24, 4), (9, 1), (5, 8)])
def test_in_blocks_it_is_attention_under_the_mask(time, window, count, tokens, causal):
    inputs = [numbers(2, 3, time, 5) for _ in range(3)]
    count = min(count, (time - 1) // window)  # one block has no others
    table = random_blocks(time, window, count, torch.Generator().manual_seed(0)) if count else None
    pattern = big_bird(window, tokens, table) if count else longformer(window, tokens)
    dense = pattern_mask([pattern], time, causal)
    real = torch.ones(2, time, dtype=torch.bool)
    real[1, time // 2 :] = False
    real[1, 1] = False
    equal_with_gradients(sparse_attention(*inputs, window, tokens, table, causal=causal), attention(*inputs, dense), inputs)
    ours = sparse_attention(*inputs, window, tokens, table, real, causal)
    equal_with_gradients(ours, attention(*inputs, dense & real[:, None, None]), inputs)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("time", "stride"), [(12, 4), (13, 4), (3, 5)])
def test_every_so_many_th_place_is_a_text_of_its_own(time, stride, causal):
    inputs, dense = [numbers(2, 3, time, 5) for _ in range(3)], pattern_mask([strided(stride)], time, causal)
    real = torch.arange(time) < torch.tensor([[time], [time // 2]])
    equal_with_gradients(strided_attention(*inputs, stride, causal=causal), attention(*inputs, dense), inputs)
    ours = strided_attention(*inputs, stride, real, causal)
    equal_with_gradients(ours, attention(*inputs, dense & real[:, None, None]), inputs)


def test_every_head_may_have_a_pattern_of_its_own():
    inputs = [numbers(2, 3, 20, 5) for _ in range(3)]
    y = attention(*inputs, pattern_mask([local(3), strided(4), longformer(2, 2)], 20))
    for head, alone in enumerate((
        sparse_attention(*(x[:, :1] for x in inputs), 3),
        strided_attention(*(x[:, 1:2] for x in inputs), 4),
        sparse_attention(*(x[:, 2:] for x in inputs), 2, 2),
    )):  # fmt: skip
        assert_close(y[:, head : head + 1], alone, **EXACT)


def kept(run):
    """Bytes that the backward pass waits for."""
    held = {}

    def note(x):
        held[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with saved_tensors_hooks(note, lambda x: x):
        run()
    return sum(held.values())


def test_memory_grows_as_the_text_and_not_as_its_square():
    sparse, dense = [], []
    for time in (256, 512, 1024):
        inputs = [torch.randn(1, 1, time, 8, requires_grad=True) for _ in range(3)]
        sparse.append(kept(lambda inputs=inputs: sparse_attention(*inputs, 16, 2, random_blocks(inputs[0].shape[2], 16, 1))))
        masked = pattern_mask([local(16)], time)
        dense.append(kept(lambda inputs=inputs, masked=masked: attention(*inputs, masked, torch.zeros((), requires_grad=True))))
    assert sparse[2] / sparse[1] == pytest.approx(2, rel=0.05)
    assert dense[2] / dense[1] > 3.5


def test_what_cannot_be_read_is_refused():
    inputs = torch.zeros(3, 1, 1, 6, 2)
    with pytest.raises(ValueError, match="window=0"):
        sparse_attention(*inputs, 0)
    with pytest.raises(ValueError, match="chosen: 2 rows: expected at least 1, and 3 for 6 places"):
        sparse_attention(*inputs, 2, chosen=torch.zeros(2, 1, dtype=torch.long))

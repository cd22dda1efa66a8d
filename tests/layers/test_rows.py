"""Tokens that move within their rows, against lists."""

import torch

from thalweg.layers.rows import compact, interleaved, repeated

PAD = 0


def test_what_is_kept_moves_together_in_its_order():
    tokens, keep = torch.randint(3, 9, (20, 7)), torch.rand(20, 7) < 0.5
    found = compact(tokens, keep, PAD)
    for row, whole, kept in zip(found, tokens, keep, strict=True):
        assert [token for token in row.tolist() if token != PAD] == whole[kept].tolist()
        assert not row[int(kept.sum()) :].any()
    assert found.shape[1] == keep.sum(1).max()


def test_tokens_are_repeated_in_their_order():
    tokens, times = torch.randint(3, 9, (20, 5)), torch.randint(4, (20, 5))
    times[0] = 0
    found, mask = repeated(tokens, times, PAD)
    for row, real, whole, count in zip(found.tolist(), mask, tokens.tolist(), times.tolist(), strict=True):
        expected = [token for token, n in zip(whole, count, strict=True) for _ in range(n)]
        assert row == expected + [PAD] * (len(row) - len(expected))
        assert real.tolist() == [place < len(expected) for place in range(len(row))]
    assert found.shape[1] == times.sum(1).max()


def test_what_stands_between_tokens_is_put_there():
    assert interleaved(torch.tensor([[1, 2, 3]]), torch.tensor([[7, 8]])).tolist() == [[1, 7, 2, 8, 3]]
    assert interleaved(torch.tensor([[5]]), torch.empty(1, 0, dtype=torch.long)).tolist() == [[5]]

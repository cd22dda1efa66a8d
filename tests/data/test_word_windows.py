"""Words and those around them, thinned out; and how often words stand together.   D2L 14.3, 14.5"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from thalweg.data.word_windows import WordWindows, cooccurrence, kept_share

COUNTS = [6000, 3000, 900, 90, 10]
TOKENS = torch.multinomial(torch.tensor(COUNTS).float(), 10_000, replacement=True, generator=torch.Generator().manual_seed(0))


def test_frequent_words_fall_and_rare_ones_stay():
    share = kept_share(COUNTS, 0.01)
    assert_close(share, torch.tensor([min(1, (0.01 / (count / 10_000)) ** 0.5) for count in COUNTS], dtype=torch.float64))
    assert share[3:].tolist() == [1, 1]
    stream = WordWindows(TOKENS, COUNTS, batch_size=1000, threshold=0.01)
    kept = torch.bincount(torch.cat([batch["tokens"] for batch in stream]), minlength=5)
    whole = torch.bincount(TOKENS, minlength=5)
    assert kept[3:].tolist() == whole[3:].tolist()
    assert_close(kept[:3] / whole[:3], share[:3].float(), rtol=0.12, atol=0)
    assert kept_share(COUNTS, 0).tolist() == [1] * 5
    with pytest.raises(ValueError, match="threshold=-1"):
        kept_share(COUNTS, -1)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 6), st.integers(1, 20))
def test_a_pass_has_every_kept_word_once_in_order_with_its_neighbours(length, window, batch_size):
    tokens = TOKENS[:length]
    stream = WordWindows(tokens, COUNTS, window, batch_size, threshold=0)
    words = torch.cat([batch["tokens"] for batch in stream]).tolist()
    context = torch.cat([batch["context"] for batch in stream])
    assert words == tokens.tolist()
    assert context.shape == (length, 2 * window)
    for place, row in enumerate(context.tolist()):
        seen = [offset for offset, word in zip([*range(-window, 0), *range(1, window + 1)], row, strict=True) if word >= 0]
        reach = max(map(abs, seen), default=1)
        inside = [offset for offset in range(-reach, reach + 1) if offset and 0 <= place + offset < length]
        if seen:
            assert seen == inside
        assert all(word == words[place + offset] for offset, word in
                   zip([*range(-window, 0), *range(1, window + 1)], row, strict=True) if word >= 0)  # fmt: skip


def test_near_words_count_more_and_a_batch_is_a_function_of_its_number():
    stream = WordWindows(TOKENS, COUNTS, 4, 3000, threshold=0.01)
    context = torch.cat([batch["context"] for batch in stream])
    assert_close((context >= 0).float().mean(0), torch.tensor([1, 2, 3, 4, 4, 3, 2, 1]) / 4, rtol=0, atol=0.03)
    again = WordWindows(TOKENS, COUNTS, 4, 3000, threshold=0.01)
    again.batch(9)
    assert all(torch.equal(stream.batch(2)[name], again.batch(2)[name]) for name in ("tokens", "context"))
    assert not torch.equal(stream.batch(0)["tokens"][:500], stream.batch(len(stream))["tokens"][:500])
    with pytest.raises(ValueError, match="window=0"):
        WordWindows(TOKENS, COUNTS, 0)


def test_pairs_are_counted_by_one_over_their_distance():
    tokens, naive = TOKENS[:50], torch.zeros(6, 6)
    for i, one in enumerate(tokens.tolist()):
        for j, other in enumerate(tokens.tolist()):
            if 0 < abs(i - j) <= 3:
                naive[one, other] += 1 / abs(i - j)
    cells, times = cooccurrence(tokens, 6, window=3)
    assert_close(torch.zeros(6, 6).index_put((cells[:, 0], cells[:, 1]), times), naive)
    assert len(cells) == (naive > 0).sum()
    assert cooccurrence(tokens[:2], 6, window=9)[1].tolist() == [1.0] * (2 if tokens[0] != tokens[1] else 1)
    with pytest.raises(ValueError, match="a text of 1, window=3"):
        cooccurrence(tokens[:1], 6, window=3)

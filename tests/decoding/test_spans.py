"""The best span is found without looking at all of them one by one."""

import pytest
import torch

from thalweg.decoding.spans import best_spans


def test_the_best_span_is_the_best_of_all_that_are_allowed():
    start, end = torch.randn(2, 5, 9)
    allowed = torch.rand(5, 9) < 0.7
    allowed[:, 4] = True
    found, best = best_spans(start, end, allowed, 3)
    for row in range(5):
        spans = {(i, j): float(start[row, i] + end[row, j]) for i in range(9) for j in range(i, min(9, i + 3))
                 if allowed[row, i] and allowed[row, j]}  # fmt: skip
        assert tuple(found[row].tolist()) == max(spans, key=spans.get)
        assert float(best[row]) == pytest.approx(max(spans.values()))

"""Run lengths of masks: the counts by their definition, the letters as COCO's own library writes them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from parity import noise

from thalweg.data.run_lengths import counts, decode, encode


def drawn(name, height, width, side):
    """Squares of `side` pixels, in and out at random, fixed by the name."""
    coarse = noise(name, height // side * (width // side)).reshape(height // side, width // side) > 0
    return coarse.repeat_interleave(side, 0).repeat_interleave(side, 1)


def bar():
    mask = torch.zeros(300, 500, dtype=torch.bool)
    mask[20:270, 100:102] = mask[3, 0] = True
    return mask


# pycocotools 2.0.11, mask.encode
@pytest.mark.parametrize(
    ("mask", "letters"),
    [
        (drawn("noise", 7, 9, 1), "0180J121MO1O0110NO001011N120O0"),
        (
            drawn("blocks", 40, 50, 10),
            "0::d000000000000000000V<:`C00000000000000000d00\\O0000000000000000:F000000000000000000F",
        ),
        (bar(), "31PZm0i7bgRO0dbd3"),
        (torch.ones(2, 3, dtype=torch.bool), "06"),
        (torch.zeros(2, 3, dtype=torch.bool), "6"),
    ],
)  # fmt: skip
def test_the_letters_are_those_of_cocos_library(mask, letters):
    assert encode(mask) == {"size": list(mask.shape), "counts": letters}
    assert torch.equal(decode({"size": list(mask.shape), "counts": letters}), mask)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**31))
def test_what_is_written_is_read_and_its_runs_are_counted_down_the_columns(height, width, share, seed):
    mask = torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) < share
    written = encode(mask)
    assert torch.equal(decode(written), mask)
    runs, now = [0], False
    for column in range(width):
        for row in range(height):
            if bool(mask[row, column]) != now:
                runs.append(0)
                now = not now
            runs[-1] += 1
    assert counts(written).tolist() == runs
    assert torch.equal(decode({"size": [height, width], "counts": runs}), mask)


@pytest.mark.parametrize(
    ("size", "given", "words"),
    [
        ([2, 3], "5", "expected runs of 2x3 pixels together, given 5"),
        ([2, 3], "", "expected runs of 2x3 pixels"),
        ([2, 3], [7, -1], "expected runs of 2x3 pixels"),
        ([2, 3], [2**62, 2**62, 2**62, 2**62, 6], "expected runs of 2x3 pixels"),
        ([2, 3], [[6]], "expected runs of 2x3 pixels"),
        ([2, 3], "0V", "expected COCO's letters"),  # it promises more
        ([2, 3], "0 6", "expected COCO's letters"),
        ([2, 3], "0é6", "expected COCO's letters"),
        ([2, 3], "P" * 20 + "0", "numbers of 7 letters at most"),
        ([200_000, 200_000], [40_000_000_000], "at most 89,478,485 pixels"),
    ],
)
def test_what_are_no_run_lengths_is_refused(size, given, words):
    with pytest.raises(ValueError, match=words):
        decode({"size": size, "counts": given})

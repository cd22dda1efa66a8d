"""Self-attention by offsets: its formula, and the heads with which it is a convolution."""

from math import sqrt

import pytest
import torch
from definitions import EXACT, equal_with_gradients, numbers
from torch import nn
from torch.testing import assert_close

from thalweg.layers.offset_attention import OffsetAttention, as_attention


@pytest.mark.parametrize("content", [True, False])
def test_a_pixel_reads_by_what_it_asks_and_by_how_far_from_its_centre_another_is(content):
    layer = OffsetAttention(3, 4, num_heads=2, dim=5, value_dim=2, content=content, padding=1).double()
    nn.init.normal_(layer.sharpness, 0.5, 0.1)
    x = numbers(2, 3, 2, 3)
    rows = []
    for image in x:
        around = {(r, c): image[:, r, c] if r in (0, 1) and c in (0, 1, 2) else torch.zeros(3, dtype=torch.float64)
                  for r in range(-1, 3) for c in range(-1, 4)}  # fmt: skip
        for r in range(2):
            for c in range(3):
                heads = []
                for h in range(2):
                    scores, values = [], []
                    for (row, column), there in around.items():
                        apart = torch.stack([row - r - layer.centre[h, 0], column - c - layer.centre[h, 1]])
                        score = -(layer.sharpness[h] ** 2) * (apart**2).sum()
                        if content:
                            score = score + layer.query(image[:, r, c])[5 * h : 5 * h + 5] @ layer.key(there)[
                                5 * h : 5 * h + 5
                            ] / sqrt(5)
                        scores.append(score)
                        values.append(layer.value(there)[2 * h : 2 * h + 2])
                    heads.append(torch.stack(scores).softmax(0) @ torch.stack(values))
                rows.append(layer.output(torch.cat(heads)))
    naive = torch.stack(rows).view(2, 2, 3, 4).movedim(3, 1)
    equal_with_gradients(layer(x), naive, [x, *layer.parameters()])


@pytest.mark.parametrize(("kernel", "dilation"), [((3, 3), 1), ((1, 5), 1), ((3, 3), 2)])
def test_nine_heads_that_look_at_one_neighbour_each_are_a_convolution(kernel, dilation):
    convolution = nn.Conv2d(3, 4, kernel, padding="same", dilation=dilation).double()
    image, layer = numbers(2, 3, 5, 7), as_attention(convolution)
    equal_with_gradients(layer(image), convolution(image), [image])
    direction = torch.randn(2, 4, 5, 7, dtype=torch.float64)
    (weight,) = torch.autograd.grad(convolution(image), [convolution.weight], direction)
    (output,) = torch.autograd.grad(layer(image), [layer.output.weight], direction)
    assert_close(output.unflatten(1, (*kernel, 3)).movedim(3, 1), weight, **EXACT)


def test_what_no_row_of_heads_can_do_is_refused():
    for arguments in ({"kernel_size": 2}, {"kernel_size": 3}, {"kernel_size": 3, "padding": 1, "stride": 2},
                      {"kernel_size": 3, "padding": 1, "groups": 2}):  # fmt: skip
        with pytest.raises(ValueError, match="expected odd sides, stride 1, one group"):
            as_attention(nn.Conv2d(4, 4, **arguments))
    assert isinstance(as_attention(nn.Conv2d(4, 4, 3, padding=1)), OffsetAttention)

"""What every definition test says: a layer equals its formula, written out with loops, in values and in gradients."""

import torch
from torch import Tensor
from torch.autograd import grad
from torch.testing import assert_close

EXACT = {"rtol": 0, "atol": 1e-10}


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def equal_with_gradients(ours: Tensor, naive: Tensor, inputs: list[Tensor]) -> None:
    assert_close(ours, naive, **EXACT)
    direction = torch.randn_like(ours)
    for one, other in zip(grad(ours, inputs, direction), grad(naive, inputs, direction), strict=True):
        assert_close(one, other, **EXACT)

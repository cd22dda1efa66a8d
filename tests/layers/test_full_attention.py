"""Attention of every query to every key, in each of the ways that it is computed."""

import math

import pytest
import torch

from thalweg.layers import attention as module
from thalweg.layers.attention import attention


def naive(query, key, value):
    """Query by query: the values, weighted by softmax(query key / sqrt(dim))."""
    answers = []
    for q in query:
        share = torch.stack([(q @ k) / math.sqrt(len(q)) for k in key]).softmax(0)
        answers.append(sum(s * v for s, v in zip(share, value, strict=True)))
    return torch.stack(answers)


def some(*times, dtype=torch.float64):
    return [torch.randn(2, 3, time, 4, dtype=torch.float64).to(dtype).requires_grad_() for time in times]


def test_values_and_gradients_are_those_of_the_definition():
    inputs = some(5, 7, 7)
    ours = attention(*inputs)
    theirs = torch.stack(
        [torch.stack([naive(*heads) for heads in zip(*one, strict=True)]) for one in zip(*inputs, strict=True)]
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(ours)
    for our, their in zip(*(torch.autograd.grad(value, inputs, weights) for value in (ours, theirs)), strict=True):
        torch.testing.assert_close(our, their, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("long", [0, 1024])
def test_both_ways_agree_in_bfloat16(long, monkeypatch):
    """With long=0 torch's kernel answers, else the matrices of the formula."""
    monkeypatch.setattr(module, "LONG", long)
    inputs = some(5, 7, 7, dtype=torch.bfloat16)
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    ours, theirs = attention(*inputs), attention(*exact)
    torch.testing.assert_close(ours.double(), theirs, rtol=0.05, atol=0.05)
    weights = torch.randn_like(theirs)
    ours, theirs = torch.autograd.grad(ours, inputs, weights.bfloat16()), torch.autograd.grad(theirs, exact, weights)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our.double(), their, rtol=0.05, atol=0.05)

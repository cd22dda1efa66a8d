"""Reversible layers: the inverse, the gradient by inverses, and what is kept."""

import pytest
import torch
from definitions import equal_with_gradients, numbers
from torch import Tensor, nn
from torch.autograd import grad, gradcheck
from torch.autograd.graph import saved_tensors_hooks
from torch.testing import assert_close

from thalweg.layers.reversible import Reversible, ReversibleBlock


def part(dim: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(dim, 3 * dim), nn.Tanh(), nn.Linear(3 * dim, dim))


def layers(depth: int, dim: int = 4) -> Reversible:
    return Reversible(ReversibleBlock(part(dim), part(dim)) for _ in range(depth))


def stored(model: Reversible, x: Tensor) -> Tensor:
    """The same, by autograd that keeps everything."""
    first, second = x.chunk(2, 1)
    for block in model.blocks:
        first, second = block(first, second)
    return torch.cat([first, second], 1)


def kept(function, x: Tensor) -> int:
    """Bytes of distinct memory that the backward pass will read."""
    memory = {}

    def keep(tensor: Tensor) -> Tensor:
        memory[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        y = function(x)
    assert y.requires_grad
    return sum(memory.values())


def test_what_went_in_is_computed_from_what_came_out():
    model, x = layers(20), torch.randn(64, 8)
    y = model(x)
    assert (y - x).abs().mean() > 0.5
    assert_close(model.inverse(y), x, rtol=0, atol=1e-5)


def test_values_and_gradients_are_those_of_autograd():
    model, x = layers(3).double(), numbers(5, 8)
    equal_with_gradients(model(x), stored(model, x), [x, *model.parameters()])
    assert gradcheck(layers(2, 1).double(), numbers(2, 2))


def test_convolutions_are_reversible_too():
    convolutions = [ReversibleBlock(nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)) for _ in range(2)]
    model, x = Reversible(convolutions).double(), numbers(2, 4, 5, 5)
    equal_with_gradients(model(x), stored(model, x), [x, *model.parameters()])
    assert_close(model.inverse(model(x)), x, rtol=0, atol=1e-10)


def test_the_axis_of_the_halves_is_chosen():
    model = Reversible([ReversibleBlock(part(), part())], dim=-1).double()
    x = numbers(2, 3, 8)
    first, second = model.blocks[0](x[..., :4], x[..., 4:])
    equal_with_gradients(model(x), torch.cat([first, second], -1), [x, *model.parameters()])


def test_memory_is_flat_in_depth():
    x = torch.randn(100, 32, requires_grad=True)
    shallow, deep = layers(2, 16), layers(32, 16)
    assert kept(deep, x) == kept(shallow, x) > 0
    assert kept(lambda x: stored(deep, x), x) > 10 * kept(lambda x: stored(shallow, x), x)


def test_a_module_in_two_places_gets_the_sum_of_its_gradients_and_a_frozen_one_none():
    shared, other = part(), part().requires_grad_(False)
    model = Reversible([ReversibleBlock(shared, other), ReversibleBlock(other, shared)]).double()
    x = numbers(3, 8)
    equal_with_gradients(model(x), stored(model, x), [x, *shared.parameters()])
    model(x).sum().backward()
    assert all(parameter.grad is None for parameter in other.parameters())


def test_what_runs_again_is_as_exact_as_it_was():
    model, x = layers(6, 16), torch.randn(32, 32, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = model(x), stored(model, x)
    assert torch.equal(ours, theirs)
    direction = torch.randn_like(ours)
    one, other = grad(ours, x, direction)[0], grad(theirs, x, direction)[0]
    assert ((one - other).norm() / other.norm()) < 1e-2  # the backward pass of products in bf16 rounds by itself
    assert_close(model.inverse(model(x)), x, rtol=0, atol=1e-5)


def test_parts_that_are_random_are_refused():
    with pytest.raises(ValueError, match=r"blocks: 0\.f\.1 is Dropout\(p=0\.1.*same when they run again"):
        Reversible([ReversibleBlock(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)), part(2))])
    Reversible([ReversibleBlock(nn.Dropout(0.0), part(2))])


def test_an_odd_number_of_channels_is_refused():
    with pytest.raises(ValueError, match=r"x: \(2, 7\), expected an even extent on axis 1"):
        layers(1)(torch.zeros(2, 7))

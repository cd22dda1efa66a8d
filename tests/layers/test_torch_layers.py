"""Linear layers, embeddings and skips, held to what the books say of them.   LBDL 4.2, 4.7, 4.9"""

import torch
from definitions import EXACT, equal_with_gradients, numbers
from torch import nn
from torch.autograd import grad
from torch.nn import functional
from torch.testing import assert_close


def test_a_linear_layer_is_an_affine_map_of_the_last_axis_whatever_stands_before_it():
    layer, x = nn.Linear(5, 3).double(), numbers(2, 3, 4, 5)
    equal_with_gradients(layer(x), torch.einsum("abcd,od->abco", x, layer.weight) + layer.bias, [x, *layer.parameters()])
    assert layer.weight.shape == (3, 5)


def test_flattening_keeps_the_batch_and_the_order():
    x = torch.arange(24).reshape(2, 3, 2, 2)
    assert torch.equal(nn.Flatten()(x), torch.arange(24).reshape(2, 12))


def test_an_embedding_is_a_one_hot_vector_times_a_matrix_and_only_rows_read_learn():
    layer, tokens = nn.Embedding(10, 4).double(), torch.tensor([[1, 3], [3, 7]])
    one_hot = functional.one_hot(tokens, 10).double()
    equal_with_gradients(layer(tokens), one_hot @ layer.weight, [layer.weight])
    layer(tokens).sum().backward()
    assert layer.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [1, 3, 7]


def test_a_skip_carries_the_gradient_past_a_branch_that_is_zero():
    branch, x = nn.Linear(4, 4).double(), numbers(2, 4)
    nn.init.zeros_(branch.weight)
    assert not grad(branch(x).sum(), x)[0].any()
    assert_close(grad((x + branch(x)).sum(), x)[0], torch.ones(2, 4).double(), **EXACT)
    assert grad(torch.cat([x, branch(x)], -1).sum(), x)[0].any()


def residual_run(skip: bool, depth: int = 100) -> float:
    """Loss after training a perceptron of a hundred layers to tell the sign of a sum."""
    torch.manual_seed(0)
    layers = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16)) for _ in range(depth // 2))
    head = nn.Linear(16, 2)
    for layer in layers:
        nn.init.normal_(layer[2].weight, std=0.02)
    optimizer = torch.optim.AdamW([*layers.parameters(), *head.parameters()], lr=1e-3)
    x = torch.randn(256, 16)
    label = (x.sum(1) > 0).long()
    for _ in range(60):
        h = x
        for layer in layers:
            h = h + layer(h) if skip else layer(h)
        loss = functional.cross_entropy(head(h), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def test_a_hundred_layers_learn_with_residual_connections_and_not_without():
    assert residual_run(skip=True) < 0.15
    assert residual_run(skip=False) > 0.6

"""Probabilities over large vocabularies, and the embeddings that stand at the other end of them.   LBDL 4.9, D2L 14.2"""

import heapq
import math

import pytest
import torch
from torch import nn
from torch.autograd import grad
from torch.testing import assert_close

from thalweg.build import build, load, save
from thalweg.layers.softmax import HierarchicalSoftmax, huffman, sampled_softmax
from thalweg.models.language.rotary_gpt import RotaryGPT
from thalweg.models.language.sampled import Sampled

EXACT = {"rtol": 0, "atol": 1e-10}


def numbers(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


COUNTS = [50, 3, 20, 20, 1, 0, 7]


def test_the_tree_has_the_fewest_turns_on_average_and_every_word_its_own_way():
    paths, turns = huffman(COUNTS)
    waiting, cost = list(COUNTS), 0  # the cost of Huffman's tree is the sum of all joined counts
    heapq.heapify(waiting)
    while len(waiting) > 1:
        joined = heapq.heappop(waiting) + heapq.heappop(waiting)
        cost += joined
        heapq.heappush(waiting, joined)
    assert sum(count * len(path) for count, path in zip(COUNTS, paths, strict=True)) == cost
    assert sum(2.0 ** -len(path) for path in paths) == 1
    ways = {tuple(zip(path, turn, strict=True)) for path, turn in zip(paths, turns, strict=True)}
    assert len(ways) == len(COUNTS)
    assert {path[0] for path in paths} == {0}
    assert {node for path in paths for node in path} == set(range(len(COUNTS) - 1))
    followed = {}  # what follows a turn at a node is the same for all words
    for path, turn in zip(paths, turns, strict=True):
        for node, its, after in zip(path, turn, [*path[1:], "leaf"], strict=True):
            assert followed.setdefault((node, its), after) == after


def test_words_as_frequent_as_powers_of_two_get_the_probability_of_their_count_at_once():
    layer = HierarchicalSoftmax(3, [8, 4, 2, 1, 1])
    assert_close(layer.log_prob(torch.randn(2, 3)).exp(), torch.tensor([8, 4, 2, 1, 1]).expand(2, 5) / 16)


def random_tree(counts=COUNTS, dim=4):
    layer = HierarchicalSoftmax(dim, counts).double()
    nn.init.normal_(layer.nodes.weight)
    return layer


def test_log_probabilities_are_the_sum_over_the_way_in_values_and_gradients():
    layer, x, target = random_tree(), numbers(3, 7, 4), torch.arange(7).expand(3, 7)
    paths, turns = huffman(COUNTS)
    naive = torch.stack([torch.stack([
        sum((1 / (1 + (-turn * x[b, w] @ layer.nodes.weight[node]).exp())).log()
            for node, turn in zip(paths[w], turns[w], strict=True)) for w in range(7)]) for b in range(3)])  # fmt: skip
    ours, inputs = layer(x, target), [x, layer.nodes.weight]
    assert_close(ours, naive, **EXACT)
    direction = torch.randn_like(ours)
    for one, other in zip(grad(ours, inputs, direction), grad(naive, inputs, direction), strict=True):
        assert_close(one, other, **EXACT)
    assert_close(layer.log_prob(x).diagonal(dim1=1, dim2=2), ours, **EXACT)


@pytest.mark.parametrize("counts", [[1, 1], [5, 1, 1], COUNTS, [100 // (rank + 1) for rank in range(200)]])
def test_probabilities_of_all_words_sum_to_one(counts):
    layer, x = random_tree(counts), numbers(5, 4)
    assert_close(layer.log_prob(3 * x).exp().sum(-1), torch.ones(5).double(), **EXACT)


def test_the_loss_is_a_sum_and_a_count_that_leave_out_what_is_ignored():
    layer, x, target = random_tree(), numbers(2, 3, 4), torch.tensor([[0, -100, 4], [-100, 6, 6]])
    total, count = layer.loss(x, target)
    assert count == 4
    real = target != -100
    assert_close(total, -layer.log_prob(x)[real].gather(-1, target[real][:, None]).sum(), **EXACT)
    assert not grad(total, x)[0][~real].any()
    total, count = layer.loss(x, torch.full((2, 3), -100))
    assert (total.item(), count.item()) == (0, 0)
    for wrong in (7, -1):
        with pytest.raises(IndexError):
            layer.loss(x, torch.full((2, 3), wrong))


def test_extreme_scores_stay_finite_and_half_precision_is_close():
    layer = HierarchicalSoftmax(2, COUNTS)
    nn.init.constant_(layer.nodes.weight, 1.0)
    assert_close(layer.log_prob(torch.full((2,), 1000.0)).exp().sum(), torch.tensor(1.0))
    assert layer.log_prob(torch.full((2,), 1000.0)).isfinite().all()
    exact, x = random_tree(), numbers(5, 4)
    assert_close(exact.bfloat16().log_prob(x.bfloat16()).double(), exact.double().log_prob(x), rtol=0.05, atol=0.05)


def test_the_cost_of_a_word_grows_as_the_logarithm_of_their_number():
    for words in (16, 256, 4096):
        assert HierarchicalSoftmax(2, [1] * words).path.shape == (words, math.log2(words))
    layer = HierarchicalSoftmax(2, [1] * 4096, sparse=True)
    layer.loss(torch.randn(1, 2), torch.tensor([7]))[0].backward()
    assert layer.nodes.weight.grad.coalesce().indices().shape[1] == 12  # the nodes on the way, of 4095


def test_counts_that_make_no_tree_are_refused():
    for counts in ([3], [], [2, -1]):
        with pytest.raises(ValueError, match=f"counts: {len(counts)} of them"):
            HierarchicalSoftmax(4, counts)


def test_the_tree_comes_back_from_a_folder(tmp_path):
    layer = build(HierarchicalSoftmax, in_features=4, counts=COUNTS)
    nn.init.normal_(layer.nodes.weight)
    save(layer, tmp_path)
    x = torch.randn(3, 4)
    assert torch.equal(load(tmp_path).log_prob(x), layer.log_prob(x))


def test_adaptive_softmax_is_its_formula_and_sums_to_one():
    """p(w) = softmax(head)_w for the frequent; p(cluster) softmax(tail)_w for the rest, each tail four times narrower."""
    layer, x = nn.AdaptiveLogSoftmaxWithLoss(16, 30, [5, 12], div_value=4.0).double(), numbers(40, 16)
    head = (x @ layer.head.weight.T).softmax(-1)
    clusters = [head[:, :5]]
    for number, (down, out) in enumerate(layer.tail):
        assert down.weight.shape[0] == 16 // 4 ** (number + 1)
        clusters.append(head[:, 5 + number, None] * (x @ down.weight.T @ out.weight.T).softmax(-1))
    naive = torch.cat(clusters, -1).log()
    assert naive.shape == (40, 30)
    target = torch.arange(40) % 30
    inputs = [x, *layer.parameters()]
    assert_close(layer.log_prob(x), naive, **EXACT)
    assert_close(layer.log_prob(x).exp().sum(-1), torch.ones(40).double(), **EXACT)
    chosen = naive.gather(1, target[:, None])[:, 0]
    assert_close(layer(x, target).output, chosen, **EXACT)
    assert_close(layer(x, target).loss, -chosen.mean(), **EXACT)
    for one, other in zip(grad(layer(x, target).loss, inputs), grad(-chosen.mean(), inputs), strict=True):
        assert_close(one, other, **EXACT)


def test_an_embedding_can_send_back_the_rows_alone_that_were_read():
    tokens = torch.tensor([[1, 3], [3, 7]])
    dense, sparse = nn.Embedding(1000, 4), nn.Embedding(1000, 4, sparse=True)
    for layer in (dense, sparse):
        (layer(tokens) * torch.arange(16.0).view(2, 2, 4)).sum().backward()
    held = sparse.weight.grad.coalesce()
    assert held.indices().tolist() == [[1, 3, 7]]
    assert_close(held.to_dense(), dense.weight.grad)  # a row read twice has the sum


def test_the_row_of_padding_is_zero_and_never_learns():
    layer = nn.Embedding(10, 4, padding_idx=2)
    assert not layer.weight[2].any()
    layer(torch.tensor([2, 5, 2])).sum().backward()
    assert layer.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [5]


def test_a_tied_embedding_is_one_matrix_that_learns_from_both_its_uses():
    tied, apart = (RotaryGPT(20, 8, 1, 2, tied=tied).double() for tied in (True, False))
    apart.load_state_dict({**tied.state_dict(), "head.weight": tied.embedding.weight})
    assert sum(p.numel() for p in apart.parameters()) - sum(p.numel() for p in tied.parameters()) == 20 * 8
    tokens = torch.randint(0, 20, (2, 6))
    assert_close(tied(tokens), apart(tokens), **EXACT)
    for model in (tied, apart):
        model(tokens).log_softmax(-1)[..., 3].sum().backward()
    assert_close(tied.embedding.weight.grad, apart.embedding.weight.grad + apart.head.weight.grad, **EXACT)


def test_a_sampled_softmax_is_that_of_the_target_and_of_what_was_drawn_by_its_chance():
    x, weight = numbers(2, 4), numbers(6, 4)
    chance = torch.tensor([1, 0.2, 0.1, 0.1, 0.1, 0.3], dtype=torch.float64)
    drawn, target = [0, 1, 5], [1, 3]
    rows = []
    for place in range(2):
        score = [float(x[place] @ weight[word]) - math.log(chance[word]) for word in range(6)]
        others = [math.exp(score[word]) for word in drawn if word != target[place]]
        rows.append(-score[target[place]] + math.log(math.exp(score[target[place]]) + sum(others)))
    found = sampled_softmax(x, weight, torch.tensor(target), torch.tensor(drawn), chance)
    assert_close(found, torch.tensor(rows, dtype=torch.float64), rtol=0, atol=1e-6)  # the logits are float32
    (slope,) = grad(found.sum(), weight)
    assert slope.any(1).tolist() == [True, True, False, True, False, True]
    whole = sampled_softmax(x, weight, torch.tensor(target), torch.arange(6), torch.ones(6, dtype=torch.float64))
    assert_close(whole, nn.functional.cross_entropy(x @ weight.T, torch.tensor(target), reduction="none"), rtol=0, atol=1e-6)


def test_what_is_learned_from_drawn_words_are_the_probabilities_of_all():
    torch.manual_seed(0)
    true = torch.tensor([[0.1, 0.3, 0.2, 0.2, 0.1, 0.1], [0.6, 0.05, 0.05, 0.1, 0.1, 0.1]])
    model = Sampled(RotaryGPT(vocab_size=6, embed_dim=16, num_layers=1, num_heads=1, tied=True), [50, 20, 10, 10, 5, 5], 3)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    tokens = torch.arange(2)[:, None]
    for _ in range(500):
        target = torch.multinomial(true, 200, replacement=True)
        optimizer.zero_grad()
        model.surprise(tokens.expand(-1, 200).reshape(-1, 1), target.view(-1, 1)).mean().backward()
        optimizer.step()
    model.eval()
    assert_close(model(tokens)[:, 0].softmax(-1), true, rtol=0, atol=0.05)
    assert_close(model.surprise(tokens, tokens).flatten(), -model(tokens)[:, 0].log_softmax(-1).diag())


def test_words_to_be_drawn_are_counted_and_all_are_there():
    network = RotaryGPT(vocab_size=3, embed_dim=8, num_layers=1, num_heads=1)
    with pytest.raises(ValueError, match="counts: 3 of them from 0 on, samples=2: expected 3 counts of at least 1"):
        Sampled(network, [1, 0, 2], 2)

"""Decomposable attention against its formula, a pair at a time, word by word."""

import torch
from definitions import EXACT, equal_with_gradients
from torch.testing import assert_close

from thalweg.models.language.decomposable_attention import DecomposableAttention

SOURCE, TARGET = torch.tensor([[4, 2, 7, 1], [5, 6, 0, 0]]), torch.tensor([[8, 3, 0], [4, 5, 1]])
READ, TIME = (4, 2), (2, 3)
PAIRS = (SOURCE, torch.arange(4) < torch.tensor(READ)[:, None], TARGET, torch.arange(3) < torch.tensor(TIME)[:, None])


def model() -> DecomposableAttention:
    made = DecomposableAttention(9, embed_dim=4, hidden_dim=5).double().eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def test_it_is_its_formula():
    made, naive, looked = model(), [], []
    for source, m, target, n in zip(SOURCE, READ, TARGET, TIME, strict=True):
        a, b = ([made.project.weight @ made.embedding.weight[token] for token in tokens]
                for tokens in (source[:m], target[:n]))  # fmt: skip
        e = [[made.attend(x) @ made.attend(y) for y in b] for x in a]
        beta = [sum(share * y for share, y in zip(torch.stack(row).softmax(0), b, strict=True)) for row in e]
        columns = [torch.stack([row[j] for row in e]).softmax(0) for j in range(n)]
        alpha = [sum(share * x for share, x in zip(column, a, strict=True)) for column in columns]
        v = sum(made.compare(torch.cat(pair)) for pair in zip(a, beta, strict=True))
        w = sum(made.compare(torch.cat(pair)) for pair in zip(b, alpha, strict=True))
        naive.append(made.head(made.aggregate(torch.cat([v, w]))))
        looked.append(torch.stack(columns))
    equal_with_gradients(made(*PAIRS), torch.stack(naive), [*made.parameters()])
    for found, expected, m, n in zip(made.alignment(*PAIRS), looked, READ, TIME, strict=True):
        assert_close(found[:n, :m], expected, **EXACT)
        assert not found[:, m:].any()


def test_padding_and_the_order_of_words_change_nothing():
    made = model()
    longer = [torch.cat([part, torch.zeros_like(part[:, :2])], 1) for part in PAIRS]
    assert_close(made(*longer), made(*PAIRS), **EXACT)
    turned = [part[1:].flip(1) for part in (SOURCE[:, :2], PAIRS[1][:, :2], TARGET, PAIRS[3])]
    assert_close(made(*turned), made(*PAIRS)[1:], **EXACT)


def test_attend_sees_each_word_once_so_that_its_cost_is_linear():
    made, seen = model(), []
    made.attend.register_forward_hook(lambda module, read, output: seen.append(read[0].shape[:2].numel()))
    made(*PAIRS)
    assert sum(seen) == SOURCE.numel() + TARGET.numel()


def test_it_has_the_382_thousand_parameters_of_the_paper_beside_its_embedding():
    made = DecomposableAttention(9, embed_dim=300)
    assert sum(p.numel() for p in made.parameters()) - made.embedding.weight.numel() == 381_803

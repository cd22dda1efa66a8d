"""IBM model 1 against its sums in loops."""

import pytest
import torch

from thalweg.data.alignment import fertilities, ibm_model_1


def naive(source, target, iterations):
    table = dict.fromkeys(((x, y) for xs, ys in zip(source, target, strict=True) for x in xs for y in ys), 1.0)
    for _ in range(iterations):
        counts = dict.fromkeys(table, 0.0)
        for xs, ys in zip(source, target, strict=True):
            for y in ys:
                total = sum(table[x, y] for x in xs)
                for x in xs:
                    counts[x, y] += table[x, y] / total
        given = {x: sum(count for (other, _), count in counts.items() if other == x) for x, _ in counts}
        table = {(x, y): count / given[x] for (x, y), count in counts.items()}
    best = []
    for xs, ys in zip(source, target, strict=True):
        best.append([max(range(len(xs)), key=lambda s: (round(table[xs[s], y], 12), -s)) for y in ys])
    return best


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_words_come_from_where_the_sums_say(iterations):
    draw = torch.Generator().manual_seed(iterations)
    sizes = torch.randint(1, 5, (2, 40), generator=draw).tolist()
    sides = [[torch.randint(3, 9, (size,), generator=draw) for size in side] for side in sizes]
    found = ibm_model_1(*sides, iterations=iterations)
    assert [row.tolist() for row in found] == naive(*([row.tolist() for row in side] for side in sides), iterations)


def test_a_word_that_always_comes_with_another_comes_from_it():
    source = [torch.tensor(row) for row in ([1, 2], [2, 3], [1, 3], [3])]
    target = [torch.tensor(row) for row in ([11, 12, 22], [12, 22, 13], [13, 11], [13])]
    aligned = ibm_model_1(source, target)
    assert [row.tolist() for row in aligned] == [[0, 1, 1], [0, 0, 1], [1, 0], [0]]


def test_the_table_is_of_what_is_to_be_learned_alone():
    draw = torch.Generator().manual_seed(0)
    source, target = ([torch.randint(3, 9, (4,), generator=draw) for _ in range(40)] for _ in range(2))
    found = ibm_model_1(source, target, learned=30)
    assert [row.tolist() for row in found[:30]] == [row.tolist() for row in ibm_model_1(source[:30], target[:30])]
    assert [row.tolist() for row in found] != [row.tolist() for row in ibm_model_1(source, target)]


def test_fertilities_sum_to_the_length_of_the_target():
    aligned, mask = torch.randint(4, (20, 6)), torch.arange(6) < torch.randint(1, 7, (20, 1))
    counts = fertilities(aligned, mask, 4)
    assert torch.equal(counts.sum(1), mask.sum(1))
    for row, real, count in zip(aligned, mask, counts, strict=True):
        assert count.tolist() == [row[real].tolist().count(place) for place in range(4)]


@pytest.mark.parametrize("target", [[], [[]]])
def test_what_does_not_pair_is_refused(target):
    with pytest.raises(ValueError, match="1 sources"):
        ibm_model_1([torch.tensor([1])], [torch.tensor(row, dtype=torch.long) for row in target])

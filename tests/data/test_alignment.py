"""IBM model 1 against its sums in loops."""

import random

import pytest
import torch

from thalweg.data.alignment import alignment_error, fertilities, ibm_model_1


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


def test_the_error_of_an_alignment_is_its_formula():
    assert alignment_error({(0, 0), (1, 1)}, {(0, 0), (1, 1)}) == 0
    assert alignment_error({(0, 0), (1, 2)}, {(0, 0), (1, 1)}) == pytest.approx(1 - (1 + 1) / 4)
    assert alignment_error({(0, 0), (1, 2), (2, 2)}, {(0, 0)}, {(1, 2)}) == pytest.approx(1 - (1 + 2) / 4)
    with pytest.raises(ValueError, match="expected a link"):
        alignment_error([], [])


def test_counting_finds_which_word_became_which_where_adjectives_change_sides():
    """Toy French: an adjective stands behind its noun, "ne ... pas" is one English word, and verbs keep their place."""
    draw = random.Random(0)
    words = {"cat": "chat", "dog": "chien", "house": "maison", "black": "noir", "small": "petit", "old": "vieux",
             "sees": "voit", "hears": "entend", "the": "le"}  # fmt: skip
    source, target, gold = [], [], []
    for _ in range(300):
        said, written, links = [], [], set()
        for part in (1, 2):
            noun, adjective = draw.choice(["cat", "dog", "house"]), draw.choice(["black", "small", "old"])
            start = len(said)
            said += ["the", adjective, noun] + (["not", draw.choice(["sees", "hears"])] if part == 1 else [])
            order = [start, start + 2, start + 1] + ([start + 3, start + 4, start + 3] if part == 1 else [])
            written += [words.get(said[place], "ne") for place in order]
            links |= {(place, len(links) + number) for number, place in enumerate(order)}
        written[written.index("ne", written.index("ne") + 1)] = "pas"
        source.append(said)
        target.append(written)
        gold.append(links)
    number = {word: place for place, word in enumerate(sorted({word for side in source + target for word in side}))}
    sides = ([torch.tensor([number[word] for word in sentence]) for sentence in side] for side in (source, target))
    found = [{(int(place), written) for written, place in enumerate(row)} for row in ibm_model_1(*sides)]
    straight = [{(min(place, len(said) - 1), place) for place in range(len(written))}
                for said, written in zip(source, target, strict=True)]  # fmt: skip

    def error(links):
        return sum(alignment_error(one, true) for one, true in zip(links, gold, strict=True)) / len(gold)

    assert error(found) < 0.2  # "the" is there twice in each sentence, and model 1 knows no places
    assert error(straight) > 0.5

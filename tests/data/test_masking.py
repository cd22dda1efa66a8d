"""What is hidden of a text: each scheme is its definition, whatever is drawn."""

from collections import Counter
from itertools import groupby

import pytest
import torch
from torch import Generator

from thalweg.data.labelled import wnut17
from thalweg.data.masking import borders, choose_units, corrupt, permutation_sight, sight, span_lengths, span_units, units
from thalweg.data.streams import generator

YES = torch.tensor([[0, 1, 0, 1, 1, 0, 1, 0, 0], [0, 1, 1, 1, 0, 0, 0, 0, 0]], dtype=torch.bool)  # where a word begins
FREE = torch.tensor([[0, 1, 1, 1, 0, 1, 1, 1, 0], [0, 1, 1, 1, 0, 0, 0, 0, 0]], dtype=torch.bool)


def many(rows=200, time=60, seed=0):
    """Texts of one to four pieces a word, of different lengths, between two special tokens."""
    random = Generator().manual_seed(seed)
    starts = torch.rand(rows, time, generator=random) < 0.6
    length = torch.randint(12, time, (rows, 1), generator=random)
    place = torch.arange(time)
    return starts, (place > 0) & (place < length - 1)


def test_a_unit_is_named_by_its_first_place_and_ends_where_a_text_does():
    assert units(YES, FREE).tolist() == [[-1, 1, 1, 3, -1, 5, 6, 6, -1], [-1, 1, 2, 3, -1, -1, -1, -1, -1]]
    everywhere = units(torch.ones_like(YES), FREE)
    assert everywhere.tolist() == torch.arange(9).expand(2, 9).where(FREE, -1).tolist()


@pytest.mark.parametrize("kind", ["token", "word", "span"])
def test_units_are_drawn_whole_until_the_share_is_reached(kind):
    starts, free = many()
    random = generator(3)
    unit = units(torch.ones_like(starts) if kind == "token" else starts, free)
    if kind == "span":
        unit = span_units(starts, free, random)
    chosen = choose_units(unit, 0.15, random)
    assert not chosen[~free].any()
    for row in range(len(unit)):
        size, hidden = Counter(unit[row][free[row]].tolist()), Counter(unit[row][chosen[row]].tolist())
        assert all(size[name] == count for name, count in hidden.items())  # whole
        wanted = max(1, round(0.15 * int(free[row].sum())))
        assert wanted <= int(chosen[row].sum()) < wanted + max(size.values())
        if kind == "token":
            assert int(chosen[row].sum()) == wanted


def test_every_token_is_drawn_equally_often():
    free = torch.ones(4000, 10, dtype=torch.bool)
    chosen = choose_units(units(free, free), 0.3, generator(1))
    assert (chosen.float().mean(0) - 0.3).abs().max() < 0.04


def test_the_lengths_of_spans_are_those_of_a_clipped_geometric_distribution():
    lengths = span_lengths(200_000, generator(0))
    expected = torch.tensor([0.2 * 0.8 ** (n - 1) / (1 - 0.8**10) for n in range(1, 11)])
    assert (torch.bincount(lengths)[1:] / 200_000 - expected).abs().max() < 0.005
    assert float(lengths.float().mean()) == pytest.approx(3.8, abs=0.02)


def test_spans_lie_side_by_side_in_whole_words_and_have_the_lengths_that_are_drawn():
    starts, free = many(2000, 80, 1)
    unit = span_units(starts, free, generator(2))
    word = units(starts, free)
    lengths = Counter()
    for row in range(len(unit)):
        words = {}
        for one, own in zip(unit[row][free[row]].tolist(), word[row][free[row]].tolist(), strict=True):
            words.setdefault(one, set()).add(own)
        assert sum(len(held) for held in words.values()) == len(set(word[row][free[row]].tolist()))  # no word is cut
        lengths.update(len(held) for held in list(words.values())[:3])  # the last may be cut by the end of its text
    total = sum(lengths.values())
    assert max(lengths) == 10
    assert lengths[1] / total == pytest.approx(0.2 / (1 - 0.8**10), abs=0.03)
    assert sum(n * count for n, count in lengths.items()) / total == pytest.approx(3.8, abs=0.25)


def test_of_a_hundred_hidden_tokens_eighty_are_masks_ten_are_others_and_ten_are_themselves():
    tokens = torch.full((50, 1000), 7)
    chosen = torch.rand(50, 1000, generator=generator(5)) < 0.5
    read = corrupt(tokens, chosen, generator(0), mask_token=4, vocab_size=1000)
    assert torch.equal(read[~chosen], tokens[~chosen])
    hidden = read[chosen]
    shares = [float((hidden == 4).float().mean()), float((hidden == 7).float().mean())]
    assert shares == pytest.approx([0.8, 0.1], abs=0.01)
    assert torch.equal(read, corrupt(tokens, chosen, generator(0), mask_token=4, vocab_size=1000))
    unit = torch.arange(1000).div(5, rounding_mode="floor").mul(5).expand(50, 1000)
    alike = corrupt(tokens, torch.ones_like(chosen), generator(0), mask_token=2000, vocab_size=1000, unit=unit)
    assert all(len({token == 2000 for token in span}) == 1 for span in alike.view(-1, 5).tolist())


def test_the_borders_of_a_span_are_the_tokens_beside_it():
    hidden = torch.tensor([[0, 1, 1, 0, 1, 1, 1, 0]], dtype=torch.bool)
    left, right, number = (part[hidden].tolist() for part in borders(hidden))
    assert (left, right, number) == ([0, 0, 3, 3, 3], [3, 3, 7, 7, 7], [0, 1, 0, 1, 2])


def test_names_are_hidden_whole_on_real_labels(data_folder):
    """Whole names of persons, places and things, as people have marked them in messages."""
    sentences = [one for one in wnut17().train if any(label[0] == "I" for label in one.labels)][:100]
    checked = 0
    for number, one in enumerate(sentences):
        starts = torch.tensor([[label[0] != "I" for label in one.labels]])
        chosen = choose_units(units(starts, torch.ones_like(starts)), 0.3, generator(number))[0].tolist()
        for _, group in groupby(zip(starts[0].cumsum(0).tolist(), chosen, one.labels, strict=True), key=lambda x: x[0]):
            name = [hidden for _, hidden, label in group if label != "O"]
            checked += len(name) > 1
            assert len(set(name)) <= 1
    assert checked >= 100


def test_one_body_reads_in_three_ways():
    mask = torch.tensor([[1, 1, 1, 1, 0]], dtype=torch.bool)
    segment = torch.tensor([[0, 0, 1, 1, 0]])
    assert sight("both", mask, segment)[0].int().tolist() == [[1, 1, 1, 1, 0]] * 5
    assert sight("before", mask, segment)[0].int().tolist() == torch.ones(5, 5).tril().mul(mask).int().tolist()
    two = sight("sequence-to-sequence", mask, segment)[0].int().tolist()
    assert two[:4] == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]


def test_who_foretells_a_token_reads_what_is_not_hidden_and_whose_turn_was_before():
    order = torch.tensor([[-1, 0, 2, -1, 1, -1]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 0]], dtype=torch.bool)
    seen = permutation_sight(order, mask)[0]
    for reader in (1, 2, 4):
        for read in range(6):
            before = order[0, read] < order[0, reader]  # -1 is before all
            assert bool(seen[reader, read]) is (bool(before) and bool(mask[0, read]))
    assert seen[0].tolist() == seen[3].tolist() == [True, False, False, True, False, False]

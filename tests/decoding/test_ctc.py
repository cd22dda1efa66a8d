"""Reading without being told where symbols stand: every path counted, one by one."""

from itertools import groupby, pairwise, product

import pytest
import torch
from torch.nn.functional import ctc_loss

from thalweg.decoding.ctc import best_path, labelling, prefix_beam_search


def said(path):
    return tuple(symbol for symbol, _ in groupby(path) if symbol)


def shorn(tokens):
    return tuple(token for token in tokens.tolist() if token)


def enumerated(chances):
    """Every labelling and its probability: the sum over all paths that say it.   chances: [time symbol]"""
    found = {}
    for path in product(range(chances.shape[1]), repeat=len(chances)):
        found[said(path)] = found.get(said(path), 0) + float(chances[range(len(path)), path].prod())
    return found


def some_logits(batch=3, time=5, symbols=3, scale=1.5):
    return scale * torch.randn(batch, time, symbols, dtype=torch.float64)


def test_a_path_says_its_symbols_without_repeats_and_blanks():
    assert labelling(torch.tensor([[1, 0, 1, 2, 2, 0], [0, 0, 0, 0, 0, 0], [3, 3, 0, 3, 1, 1]])).tolist() == [
        [1, 1, 2, 0, 0, 0], [0, 0, 0, 0, 0, 0], [3, 3, 1, 0, 0, 0]]  # fmt: skip
    paths = torch.tensor([*product(range(3), repeat=5)])
    assert [shorn(row) for row in labelling(paths)] == [said(path) for path in paths.tolist()]


def test_the_best_path_is_the_most_probable_of_all():
    logits = some_logits()
    for row, found in zip(logits, best_path(logits), strict=True):
        paths = product(range(3), repeat=5)
        assert shorn(found) == said(max(paths, key=lambda path: sum(float(row[t, s]) for t, s in enumerate(path))))


def test_with_a_beam_wide_enough_probabilities_are_the_sums_over_all_paths():
    logits = some_logits()
    tokens, score = prefix_beam_search(logits, beam=80)
    for row, found, chance in zip(logits.softmax(-1), tokens, score.exp(), strict=True):
        expected = enumerated(row)
        held = {shorn(each): float(p) for each, p in zip(found, chance, strict=True) if p > 0}
        assert held.keys() == expected.keys()
        assert held == pytest.approx(expected, rel=1e-10)
        assert chance.sum().item() == pytest.approx(1)
        assert (chance.diff() <= 0).all()


def test_the_score_is_what_torchs_loss_says_of_the_labelling():
    logits = some_logits(time=6, symbols=3)
    tokens, score = prefix_beam_search(logits, beam=127)  # all labellings of up to six symbols
    best = [each[each > 0] for each in tokens[:, 0]]
    lengths = torch.tensor([len(each) for each in best])
    loss = ctc_loss(logits.log_softmax(-1).transpose(0, 1), torch.cat(best), torch.full((3,), 6), lengths, reduction="none")
    torch.testing.assert_close(-loss, score[:, 0], rtol=1e-10, atol=1e-10)


def test_many_paths_to_one_labelling_outweigh_the_best_path():
    logits = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log()  # blank blank 0.36, but "a" 0.64 in three ways
    assert best_path(logits).tolist() == [[0, 0]]
    tokens, score = prefix_beam_search(logits, beam=2)
    assert tokens[0, 0].tolist() == [1, 0]
    assert score.exp()[0].tolist() == pytest.approx([0.64, 0.36])


def test_a_narrow_beam_finds_no_more_than_there_is_and_a_wider_one_no_less():
    logits = some_logits(batch=8, time=9, symbols=5, scale=1.0)
    exact, previous = prefix_beam_search(logits, beam=200)[1][:, 0], torch.tensor(-torch.inf)
    for beam in (1, 4, 16, 100):
        found = prefix_beam_search(logits, beam=beam)[1][:, 0]
        assert (found <= exact + 1e-12).all()
        assert found.sum() >= previous
        previous = found.sum()
    torch.testing.assert_close(found, exact, rtol=0.02, atol=0)


def test_places_that_are_not_real_say_nothing():
    logits = some_logits(batch=2, time=6)
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    alone = logits[1:, :4]
    assert shorn(best_path(logits, mask)[1]) == shorn(best_path(alone)[0])
    (tokens, score), (one, its_score) = prefix_beam_search(logits, mask, beam=8), prefix_beam_search(alone, beam=8)
    assert [shorn(row) for row in tokens[1]] == [shorn(row) for row in one[0]]
    torch.testing.assert_close(score[1], its_score[0])


def bigrams(symbols):
    """log p of each symbol after each, and the model that says so; 0 stands before the first."""
    table = torch.randn(symbols, symbols, dtype=torch.float64).log_softmax(-1)

    def language(tokens, length):
        last = tokens.gather(1, (length - 1).clamp(min=0)[:, None])[:, 0]
        return table[torch.where(length > 0, last, 0)]

    return table, language


def test_a_language_model_adds_what_it_says_of_every_symbol():
    logits, (table, language) = some_logits(), bigrams(3)
    tokens, score = prefix_beam_search(logits, beam=80, language=language, weight=0.7, bonus=0.3)
    for row, found, scored in zip(logits.softmax(-1), tokens, score, strict=True):
        expected = {
            text: torch.tensor(chance).log() + sum(0.7 * float(table[one, other]) + 0.3 for one, other in pairwise((0, *text)))
            for text, chance in enumerated(row).items()
        }
        held = {shorn(each): float(value) for each, value in zip(found, scored, strict=True) if value > -torch.inf}
        assert held == pytest.approx({text: float(value) for text, value in expected.items()}, rel=1e-6)
        assert shorn(found[0]) == max(expected, key=expected.get)


def test_what_a_language_model_says_of_places_that_are_not_real_does_not_count():
    logits, (_, language) = some_logits(batch=2, time=6), bigrams(3)
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    (tokens, score), (one, its_score) = (
        prefix_beam_search(*given, beam=8, language=language, bonus=1.0) for given in ((logits, mask), (logits[1:, :4], None))
    )
    assert [shorn(row) for row in tokens[1]] == [shorn(row) for row in one[0]]
    torch.testing.assert_close(score[1], its_score[0])


def test_a_beam_of_nothing_is_refused():
    with pytest.raises(ValueError, match="beam=0: expected at least 1"):
        prefix_beam_search(some_logits(), beam=0)

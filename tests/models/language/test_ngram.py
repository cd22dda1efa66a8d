"""N-gram models against their formulas, word by word, and on real text."""

from collections import Counter, defaultdict

import pytest
import torch
from torch.testing import assert_close

from thalweg.data.sources import penn_treebank
from thalweg.models.language.ngram import SMOOTHINGS, NGram

TEXT = torch.tensor([0, 1, 2, 0, 1, 3, 0, 1, 2, 2, 4, 1, 2, 0])
V, D = 6, 0.75


def naive(smoothing: str, order: int, history: tuple[int, ...], word: int) -> float:
    """The formula, by counting in lists."""
    text = TEXT.tolist()

    def grams(n: int) -> list[tuple[int, ...]]:
        return [tuple(text[place : place + n]) for place in range(len(text) - n + 1)]

    def share(history: tuple[int, ...], word: int) -> float:
        n = len(history) + 1
        if n == 0:
            return 1 / V
        counts = Counter(grams(n))
        if smoothing == "kneser-ney" and n < order:
            before = defaultdict(set)
            for first, *others in grams(n + 1):
                before[tuple(others)].add(first)
            counts = Counter({gram: len(firsts) for gram, firsts in before.items()})
        after = {gram[-1]: times for gram, times in counts.items() if gram[:-1] == history}
        total = sum(after.values())
        if smoothing == "laplace":
            return (after.get(word, 0) + 1) / (total + V)

        def shorter(word: int) -> float:
            return share(history[1:], word) if history else 1 / V

        if not total:
            return shorter(word)
        rest = D * len(after) / total
        if smoothing == "backoff" and n > 1:
            if word in after:
                return (after[word] - D) / total
            return rest * shorter(word) / sum(shorter(other) for other in range(V) if other not in after)
        return max(after.get(word, 0) - D, 0) / total + rest * shorter(word)

    return share(history, word)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_each_smoothing_is_its_formula_and_sums_to_one(smoothing, order):
    model = NGram(order, V, smoothing).fit(TEXT)
    for history in [(0, 1), (1, 2), (2, 2), (5, 5), (4, 0)]:
        context = history[len(history) - order + 1 :]
        windows = torch.tensor([[*context, word] for word in range(V)])
        found = model.probability(windows)
        assert_close(found, torch.tensor([naive(smoothing, order, context, word) for word in range(V)], dtype=torch.float64))
        assert_close(found.sum(), torch.ones((), dtype=torch.float64))
        assert (found > 0).all()


def test_the_first_words_of_a_text_have_fewer_before_them():
    model = NGram(3, V).fit(TEXT)
    surprise = model.surprise(TEXT)
    assert len(surprise) == len(TEXT)
    assert_close(surprise[1], -model.probability(TEXT[None, :2]).log()[0])
    assert_close(surprise[7], -model.probability(TEXT[None, 5:8]).log()[0])


def test_a_text_goes_on_as_it_was_seen_to():
    model = NGram(3, 5, discount=1e-6).fit(torch.tensor([0, 1, 2, 3, 4] * 50))
    assert model.generate(torch.tensor([0, 1]), 6).tolist() == [0, 1, 2, 3, 4, 0, 1, 2]


def test_what_cannot_be_counted_is_refused_by_name():
    with pytest.raises(ValueError, match="smoothing='katz'"):
        NGram(2, 5, "katz")
    with pytest.raises(ValueError, match="order=5, vocab_size=10000"):
        NGram(5, 10_000)


def test_longer_contexts_help_on_real_text_and_kneser_ney_more_than_the_others(data_folder):
    train, valid, test = penn_treebank()
    words = {word: number for number, word in enumerate(sorted(set(train)))}
    known, held_out = (torch.tensor([words[word] for word in part]) for part in (train, test))
    assert len(words) == 10_000
    assert len(valid) == 70_390 + 3_370
    found = {
        (smoothing, order): NGram(order, len(words), smoothing).fit(known).surprise(held_out).mean().exp().item()
        for smoothing, order in [("kneser-ney", 1), ("kneser-ney", 2), ("kneser-ney", 3), ("backoff", 3), ("laplace", 3)]
    }
    assert found["kneser-ney", 1] > 600 > 200 > found["kneser-ney", 2] > 160 > found["kneser-ney", 3] > 130
    assert found["kneser-ney", 3] < found["backoff", 3] < found["laplace", 3]


def test_a_sensible_sentence_is_more_probable_than_its_words_in_another_order(data_folder):
    train, _, _ = penn_treebank()
    words = {word: number for number, word in enumerate(sorted(set(train)))}
    model = NGram(3, len(words)).fit(torch.tensor([words[word] for word in train[:150_000]]))

    def surprise(sentence):
        return float(model.surprise(torch.tensor([words[word] for word in f"<eos> {sentence} <eos>".split()])).sum())

    assert surprise("the company said it will sell the unit") + 10 < surprise("unit the will said sell it company the")
    assert surprise("he said prices fell") < surprise("he bread prices fell")

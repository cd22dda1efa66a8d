"""Sentences of several languages: nothing that is read says which one it is, and a label is that of the English partner."""

import pytest
import torch

from thalweg.data.languages import PEOPLE, Multilingual, meanings, people, photographed
from thalweg.data.wordpieces import WordPieces, learn_wordpieces

MEANINGS = [(f"one {word} {'so ' * (number % 5)}here", f"eins {word} {'sehr ' * (number % 3)}dort") for number, word in
            enumerate(["alpha", "beta", "gamma", "delta", "omega", "sigma", "kappa", "theta"] * 6)]  # fmt: skip
PIECES = WordPieces(learn_wordpieces([side for pair in MEANINGS for side in pair], 80), marks=True)


def sentences(batch):
    return [PIECES.decode(row[real].tolist()) for row, real in zip(batch["original"], batch["mask"], strict=True)]


@pytest.mark.parametrize("together", [False, True])
def test_every_sentence_is_met_once_by_itself_or_beside_its_translation(together):
    found = []
    for batch in Multilingual(MEANINGS, PIECES, 6, together=together, shuffle=True):
        told = list(zip(sentences(batch), batch["language"].tolist(), strict=True))
        assert not batch["segment"].any()
        if together:
            assert all((one[0], other[0]) in {(a.strip(), b.strip()) for a, b in MEANINGS}
                       for one, other in zip(told[::2], told[1::2], strict=True))  # fmt: skip
        found += told
    assert sorted(found) == sorted((sentence, number) for pair in MEANINGS for number, sentence in enumerate(pair))


def test_tokens_are_hidden_anew_in_each_pass_and_no_mark_is():
    stream = Multilingual(MEANINGS, PIECES, 8, share=0.3, shuffle=True)
    batch, again = stream.batch(0), stream.batch(0)
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert torch.equal(batch["tokens"][~batch["hidden"]], batch["original"][~batch["hidden"]])
    assert batch["hidden"].any(1).all()
    marks = ~batch["mask"] | (batch["original"] == PIECES.cls) | (batch["original"] == PIECES.sep)
    assert not batch["hidden"][marks].any()
    seen = {}
    for number in range(3 * len(stream)):
        batch = stream.batch(number)
        for sentence, hidden in zip(sentences(batch), batch["hidden"], strict=True):
            seen.setdefault(sentence, set()).add(tuple(hidden.nonzero().flatten().tolist()))
    assert max(map(len, seen.values())) > 1


@pytest.mark.parametrize(("english", "who"), [
    ("A man and a woman talk.", None), ("Two girls run.", "women"), ("The Guy, in blue", "men"), ("A dog runs.", "neither"),
    ("A mannequin is boyish", "neither")])  # fmt: skip
def test_of_whom_a_description_speaks_is_told_by_its_english_words(english, who):
    found = people(english)
    assert (None if found is None else PEOPLE[found]) == who


@pytest.mark.usefixtures("data_folder")
def test_labels_of_other_languages_are_those_of_the_english_partner_and_no_description_is_in_two_parts():
    texts, (_, languages) = photographed()
    assert max(languages) == 2
    first = [one.judgement for one, number in zip(texts.test, languages, strict=True) if number == 0]
    for other in (1, 2):
        assert [one.judgement for one, number in zip(texts.test, languages, strict=True) if number == other] == first
    assert [people(one.first) for one, number in zip(texts.test, languages, strict=True) if number == 0] == first
    train, _, test = meanings("multi30k")
    assert not {one[0] for one in train} & {one[0] for one in test}
    assert {one.first for one in texts.train} <= {one[0] for one in train}
    assert len(texts.test) == 3 * len(first) > 2700

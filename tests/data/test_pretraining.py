"""Pairs of sentences to pre-train on: what they are made of, and that every draw is a function of seed and number."""

from itertools import pairwise

import pytest
import torch

from thalweg.data.pretraining import Pretraining, names, sentences, wikitext2_words
from thalweg.data.wordpieces import WordPieces, learn_wordpieces

PARAGRAPHS = [" . ".join(f"word{a}{b} is Old New York again{a}" for b in range(5)) + " ." for a in range(30)]
PIECES = WordPieces(learn_wordpieces(PARAGRAPHS, 140), marks=True)


def stream(**how):
    torch.manual_seed(1)
    return Pretraining(PARAGRAPHS, PIECES, 16, context=40, shuffle=True, **how)


def halves(row, batch):
    """The two texts of a row, by what they were."""
    text = batch["original"][row][batch["mask"][row]].tolist()
    cut = text.index(PIECES.sep)
    return PIECES.decode(text[1:cut]), PIECES.decode(text[cut + 1 : -1])


FOLLOWS = {}
for one in (sentences(paragraph) for paragraph in PARAGRAPHS):
    lower = [PIECES.decode(PIECES.tokenizer.encode(text, add_special_tokens=False).ids[:18]) for text in one]
    FOLLOWS |= dict(pairwise(lower))


@pytest.mark.parametrize("objective", ["mlm", "nsp", "sop"])
def test_the_second_sentence_follows_the_first_where_the_label_says_so(objective):
    labels = []
    for batch in stream(objective=objective):
        for row, label in enumerate(batch["label"].tolist()):
            first, second = halves(row, batch)
            if label:
                assert FOLLOWS[first] == second
            elif objective == "sop":
                assert FOLLOWS[second] == first
            labels.append(label)
    share = sum(labels) / len(labels)
    assert share == 1 if objective == "mlm" else 0.3 < share < 0.7


@pytest.mark.parametrize("masking", ["token", "whole-word", "entity", "span"])
def test_only_hidden_tokens_are_read_otherwise_and_no_mark_is_hidden(masking):
    batch = stream(masking=masking).batch(0)
    assert torch.equal(batch["tokens"][~batch["hidden"]], batch["original"][~batch["hidden"]])
    assert batch["hidden"].any(1).all()
    assert not batch["hidden"][~batch["mask"]].any()
    marks = (batch["original"] == PIECES.cls) | (batch["original"] == PIECES.sep)
    assert not batch["hidden"][marks].any()
    assert batch["segment"].max() == 1
    inside = PIECES.goes_on()[batch["original"][:, 1:]]
    assert inside.sum() > 20
    if masking != "token":
        assert torch.equal(batch["hidden"][:, 1:][inside], batch["hidden"][:, :-1][inside])


def test_every_pass_hides_others_and_the_same_number_gives_the_same_batch():
    one, other = stream(), stream()
    torch.rand(7)  # what others draw does not count
    for name, tensor in one.batch(3).items():
        assert torch.equal(tensor, other.batch(3)[name])
    passes = []
    for start in (0, len(one)):
        batches = [one.batch(start + number) for number in range(len(one))]
        passes.append({halves(row, batch): batch["hidden"][row].nonzero().flatten().tolist()
                       for batch in batches for row in range(len(batch["tokens"]))})  # fmt: skip
    first, second = passes
    assert first.keys() == second.keys()
    assert sum(first[pair] == second[pair] for pair in first) < 0.2 * len(first)


def test_words_in_capitals_side_by_side_are_one_name():
    assert names(["He", "saw", "New", "York", "and", "Rome"]) == [True, True, True, False, True, True]
    batch = stream(masking="entity", share=0.3).batch(0)
    text = [PIECES.pieces(row.tolist()) for row in batch["original"]]
    places = [(row, place) for row, words in enumerate(text) for place in range(len(words) - 2)
              if words[place : place + 3] == ["old", "new", "york"]]  # fmt: skip
    together = [batch["hidden"][row, place : place + 3].tolist() for row, place in places]
    assert together
    assert {len(set(name)) for name in together} == {1}
    assert any(name[0] for name in together)


def test_unilm_reads_in_each_of_three_ways():
    kinds = {int(batch["sees"][0].sum()) for batch in (stream(objective="unilm").batch(number) for number in range(12))}
    assert len(kinds) >= 3


@pytest.mark.parametrize("wrong", [{"objective": "nlp"}, {"masking": "letters"}])
def test_another_objective_or_masking_is_refused(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name}='{value}': expected one of"):
        stream(**wrong)


def test_paragraphs_of_a_single_sentence_are_refused():
    with pytest.raises(ValueError, match="none has two sentences"):
        Pretraining(["one sentence alone ."], PIECES, 2)


def test_the_words_of_wikitext_are_those_that_perplexities_count(data_folder):
    parts = wikitext2_words()
    assert [len(part) for part in parts] == [2_088_628, 217_646, 245_569]
    assert len(set(parts[0])) == 33_278

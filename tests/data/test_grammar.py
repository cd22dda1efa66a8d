"""Trees as sequences: the words and the phrases in them, and how many of these are right."""

import pytest

from thalweg.data.grammar import leaves, trees
from thalweg.metrics import BracketF1, brackets

TREE = "( s ( np the old dog ) ( vp ( vp sees ( np a cat ) ) ( pp with ( np a stick ) ) ) )"


def test_a_tree_has_its_words_and_its_phrases():
    assert " ".join(leaves(TREE)) == "the old dog sees a cat with a stick"
    assert brackets(TREE) == {("s", 0, 9): 1, ("np", 0, 3): 1, ("vp", 3, 9): 1, ("vp", 3, 6): 1, ("np", 4, 6): 1,
                              ("pp", 6, 9): 1, ("np", 7, 9): 1}  # fmt: skip
    assert brackets(") ( s ( np a") == {}
    assert brackets("( np ( np a ) )") == {("np", 0, 1): 2}


def test_bracket_f1_is_what_is_right_by_what_is_written_and_there():
    metric = BracketF1()
    metric.update([TREE, "( s ( np a ) )"], [TREE, "( s ( np a ) ( vp runs ) )"])
    assert metric.compute() == pytest.approx(2 * (7 + 1) / (14 + 5))


def test_sentences_are_different_and_every_tree_is_of_its_sentence():
    corpus = trees(800, held_out=50)
    parts = (corpus.train, corpus.valid, corpus.test)
    assert [len(part) for part in parts[1:]] == [50, 50]
    sentences = [{sentence for sentence, _ in part} for part in parts]
    assert not sentences[0] & sentences[1] | sentences[0] & sentences[2] | sentences[1] & sentences[2]
    for sentence, tree in corpus.train:
        assert leaves(tree) == sentence.split()
        assert tree.count("(") == tree.count(")") == brackets(tree).total()

"""Sentences with labels: files of CoNLL's form, and real ones."""

import pytest
import torch

from thalweg.data.labelled import (
    LETTERS,
    LabelledSentences,
    Letters,
    Sentence,
    english_web_treebank,
    read_conll,
    wnut17,
)
from thalweg.metrics import SpanF1, spans

CONLLU = """# text = don't go
1-2\tdon't\t_\t_
1\tdo\tdo\tAUX
2\tn't\tnot\tPART
3\tgo\tgo\tVERB
3.1\tgone\tgo\tVERB

1\tYes\tyes\tINTJ
2\t\t\t
"""


def test_a_file_of_conllu_is_words_and_labels_and_what_is_neither_is_counted():
    sentences, left_out = read_conll(CONLLU.split("\n"), word=1, label=3)
    assert sentences == [Sentence(("do", "n't", "go"), ("AUX", "PART", "VERB")), Sentence(("Yes",), ("INTJ",))]
    assert left_out == {"without a word and a label": 1}


def test_a_hash_may_be_a_word():
    assert read_conll(["#\tO", "#tag\tB-x", "\t", "a\tO"], 0, 1)[0] == [Sentence(("#", "#tag"), ("O", "B-x")),
                                                                          Sentence(("a",), ("O",))]  # fmt: skip


def test_words_and_letters_that_are_not_known_have_a_token_of_their_own():
    reader = Letters("go do", "dgo")
    tokens, letters = reader.encode(["Go", "dog", "doxo" * 9])
    assert tokens.tolist() == [4, 3, 3]
    assert letters[0].tolist() == [1, 4] + [0] * (LETTERS - 2)
    assert letters[2].tolist() == [2, 4, 1, 4] * 4


def test_batches_are_padded_and_masked():
    sentences = [Sentence(("go", "do"), ("V", "V")), Sentence(("x",), ("N",))]
    batch = LabelledSentences(sentences, Letters("go do", "dgo"), ("N", "V"), 2).fetch(torch.tensor([0, 1]))
    assert batch["tokens"].tolist() == [[4, 5], [3, 0]]
    assert batch["label"].tolist() == [[1, 1], [0, 0]]
    assert batch["mask"].tolist() == [[True, True], [True, False]]
    assert batch["letters"].shape == (2, 2, LETTERS)


def test_names_begin_and_end_where_conlleval_says():
    assert spans(["O", "B-x", "I-x", "B-x", "I-y", "O", "I-x"]) == {(1, 3, "x"), (3, 4, "x"), (4, 5, "y"), (6, 7, "x")}
    metric = SpanF1(("O", "B-x", "I-x"))
    said, label = torch.tensor([[1, 2, 0, 1], [0, 1, 2, 2]]), torch.tensor([[1, 2, 0, 0], [0, 1, 0, 0]])
    metric.update(said, label, torch.tensor([[True] * 4, [True, True, False, False]]))
    assert metric.compute() == pytest.approx(2 * 2 / (3 + 2))


def test_the_real_sentences_are_as_many_as_published(data_folder):
    treebank = english_web_treebank()
    assert [len(part) for part in treebank[:3]] == [12544, 2001, 2077]
    assert sum(len(sentence.words) for sentence in treebank.train) == 204577
    assert len(treebank.classes) == 17
    names = wnut17()
    assert [len(part) for part in names[:3]] == [3394, 1009, 1287]
    assert sum(len(sentence.words) for sentence in names.test) == 23394
    assert len(names.classes) == 13

"""Sentences with labels: files of CoNLL's form, and real ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from thalweg.data.labelled import (
    LETTERS,
    LabelledSentences,
    Letters,
    Sentence,
    by_lexicon,
    english_web_treebank,
    own_sentences,
    read_conll,
    wnut17,
)
from thalweg.metrics import SpanF1, of_names, spans

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
    assert list(map(len, left_out.values())) == [1]


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
    assert spans(["B-x", "I-x", "E-x", "S-x", "O", "S-y", "B-y", "L-y", "U-y"]) == {
        (0, 3, "x"), (3, 4, "x"), (5, 6, "y"), (6, 8, "y"), (8, 9, "y")}  # fmt: skip
    assert of_names(["O", "S-x"])
    assert not of_names(["O", "PER", "Bare-x", "X-y"])
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


def test_the_lexicon_gives_each_word_the_label_that_it_most_often_has():
    train = [Sentence(("Can", "can", "can", "rust"), ("AUX", "AUX", "NOUN", "VERB")), Sentence(("they",), ("AUX",))]
    assert by_lexicon(train, [Sentence(("the", "CAN", "rust"), ("", "", ""))]) == [("AUX", "AUX", "VERB")]


def test_recorded_taggers_know_more_than_the_lexicon(data_folder):
    results = Path(__file__).parents[2] / "results"

    def recorded(recipe, metric):
        return max(row["metrics"][metric]["value"] for row in json.loads((results / f"{recipe}.json").read_text()))

    treebank, names = english_web_treebank(), wnut17()
    tags = by_lexicon(treebank.train, treebank.test)
    right = [one == other for said, true in zip(tags, treebank.test, strict=True)
             for one, other in zip(said, true.labels, strict=True)]  # fmt: skip
    assert sum(right) / len(right) == pytest.approx(0.8616, abs=1e-4)
    assert recorded("tagger-ewt", "test/accuracy") > 0.94
    found, there = (
        [spans(labels) for labels in side] for side in (by_lexicon(names.train, names.test), [one.labels for one in names.test])
    )
    shared = sum(len(one & other) for one, other in zip(found, there, strict=True))
    f1 = 2 * shared / sum(map(len, found + there))
    assert f1 == pytest.approx(0.0900, abs=1e-4)
    assert recorded("names-wnut17", "test/f1") > f1 + 0.02


@pytest.mark.parametrize("form", ["a.conllu", "blanks.txt", "utf-16.tsv"])
def test_a_persons_own_sentences_are_read_in_each_form(tmp_path, form):
    lines = []
    for number in range(40):
        for place, (word, label) in enumerate([("the", "DET"), (f"word{number}", "NOUN"), ("runs", "VERB")], 1):
            lines.append(f"{place}\t{word}\t_\t{label}" + 6 * "\t_" if form == "a.conllu" else
                         f"{word} x {label}" if form == "blanks.txt" else f"{word}\t{label}")  # fmt: skip
        lines.append("")
    content = "\n".join([*lines[:4], *lines, "alone", ""]).encode("utf-16" if form == "utf-16.tsv" else "utf-8")
    (tmp_path / form).write_bytes(content + (b"" if form == "utf-16.tsv" else b"caf\xe9\tx\tNOUN\n"))
    found = own_sentences(tmp_path / form)
    assert [len(part) for part in (found.train, found.valid, found.test)] == [28, 6, 6]
    assert found.classes == ("DET", "NOUN", "VERB")
    assert len({*found.train, *found.valid, *found.test}) == 40
    expected = {"without a word and a label (line 165)": 1, "repeated sentences": 1}
    assert found.left_out == ({} if form == "utf-16.tsv" else {"not in UTF-8 (line 166)": 1}) | expected


@pytest.mark.parametrize(
    "comments", ["# id 7\tdomain=en\n", "# newdoc\n# sent_id = 3\n", "#begin document (x); part 0\n", "#\n"]
)
def test_a_comment_is_no_word_and_a_word_may_hold_a_blank(tmp_path, comments):
    lines = [f"{comments}# _ _ O\n" if comments == "#\n" else comments for _ in range(30)]
    text = "".join(f"{line}#tag{number} _ _ B-x\nNew\u00a0York _ _ B-y\na\u2028b\t_\t_\tO\nThe Hague\t_\t_\tB-y\n\n"
                   for number, line in enumerate(lines))  # fmt: skip
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    found = own_sentences(tmp_path / "a.txt")
    assert found.classes == ("B-x", "B-y", "O")
    assert {one.words[1:] for one in found.train} == {("New", "a\u2028b", "The Hague")}
    assert all(one.words[0].startswith("#tag") for one in found.train)
    ambiguous = [reason for reason in found.left_out if reason.startswith("taken for comments")]
    assert len(ambiguous) == (comments in ("# newdoc\n# sent_id = 3\n", "#\n"))


def test_sentences_of_the_same_words_lie_in_the_order_of_the_file(tmp_path):
    text = "".join(f"word{number % 15} {label}\n\n" for number in range(30) for label in ("A", "B"))
    (tmp_path / "a.txt").write_text(text)
    code = ("import sys; from pathlib import Path; from thalweg.data.labelled import own_sentences; "
            "print(own_sentences(Path(sys.argv[1])).train)")  # fmt: skip
    said = {subprocess.run([sys.executable, "-c", code, tmp_path / "a.txt"], env=os.environ | {"PYTHONHASHSEED": seed},
                           capture_output=True, text=True, check=True).stdout for seed in "12"}  # fmt: skip
    assert len(said) == 1


def test_sentences_that_cannot_be_learned_from_are_refused(tmp_path):
    (tmp_path / "few.conllu").write_text("a\tX\n\nb\tX\n")
    with pytest.raises(ValueError, match="2 different sentences with 1 labels, expected at least 20 and 2"):
        own_sentences(tmp_path / "few.conllu")
    with pytest.raises(ValueError, match=r"data=.*: a folder, expected a file"):
        own_sentences(tmp_path)

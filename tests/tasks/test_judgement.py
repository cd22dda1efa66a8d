"""Texts and pairs are judged by a class or a number: losses, answers, and what is learned of real judgements."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from thalweg.build import build, load, save
from thalweg.data.classified import sst2
from thalweg.data.inference import snli
from thalweg.data.judged import Judged, apart, by_number, disordered, judged_texts, parted, snli_agreement, word_order
from thalweg.data.streams import generator
from thalweg.data.wordpieces import WordPieces, learn_wordpieces
from thalweg.models.language.bert import BERT
from thalweg.models.language.fine_tuned import OfText
from thalweg.recipes.encoders import sst2_encoder
from thalweg.tasks.judgement import AcrossLanguages, Score, TextJudgement
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import adamw

GOOD, BAD = ["good", "fine", "great"], ["bad", "poor", "awful"]
TEXTS = [Judged(f"a {word} {thing}", None, float(word in GOOD)) for word in GOOD + BAD for thing in ("film", "book", "song")]
PAIRS = [Judged(f"a {one} film", f"a {other} film", float(one in GOOD and other in GOOD))
         for one in GOOD + BAD for other in GOOD + BAD]  # fmt: skip
TOKENIZER = learn_wordpieces([one.first for one in TEXTS], 100)
PIECES = WordPieces(TOKENIZER)


def task(make=TextJudgement, outputs=2, **arguments):
    encoder = build(BERT, vocab_size=len(PIECES), context=20, embed_dim=32, num_layers=1, num_heads=2)
    given = {"classes": ["bad", "good"]} if make is TextJudgement else {}
    return build(
        make, model=build(OfText, backbone=encoder, num_outputs=outputs), tokenizer=TOKENIZER, longest=20, **given, **arguments
    )


def trained(task, texts, steps, **how):
    stream = judged_texts(texts, PIECES, 20, 9, shuffle=True, **how)
    training = Training(Experiment(task=task, train=stream, steps=steps, optimizer=adamw(3e-3)), precision="fp32")
    for _ in training:
        pass
    return dict(evaluate(training, stream))


def test_a_loss_is_a_sum_over_texts_and_its_metrics_are_what_they_say():
    judge = task().eval()
    (batch,) = judged_texts(TEXTS, PIECES, 20, 18)
    logits = judge.model(batch["tokens"], batch["mask"], batch["segment"])
    total, count = judge.loss(batch)
    torch.testing.assert_close(total, cross_entropy(logits, batch["label"], reduction="sum"))
    assert count == 18
    judge.evaluate(batch)
    assert float(judge.metrics["accuracy"].compute()) == pytest.approx(
        float((logits.argmax(1) == batch["label"]).float().mean())
    )


def test_each_language_is_measured_by_its_own_texts():
    judge = task(AcrossLanguages, classes=["bad", "good"], languages=["en", "fr"], frequent=1).eval()
    (batch,) = judged_texts(TEXTS, PIECES, 20, 18)
    batch["language"] = (torch.arange(18) % 3 == 0).long()
    judge.evaluate(batch)
    right = judge.said(batch).argmax(1) == batch["label"]
    for number, name in enumerate(("en", "fr")):
        expected = float(right[batch["language"] == number].float().mean())
        assert float(judge.metrics[f"accuracy_{name}"].compute()) == pytest.approx(expected)
    assert float(judge.metrics["majority_accuracy"].compute()) == pytest.approx(0.5)


def test_a_small_encoder_learns_which_words_are_good_and_answers_for_typed_texts(tmp_path):
    judge = task()
    assert trained(judge, TEXTS, 60)["accuracy"] == 1
    judge.eval()
    said = judge.predict({"text": ["a great film", "an awful || film"]}, top_k=1)
    assert said["label"] == [["good"], ["bad"]]
    save(judge, tmp_path)
    torch.testing.assert_close(
        load(tmp_path).predict({"text": ["a great film"]}, top_k=1)["probability"][0], said["probability"][0]
    )
    with pytest.raises(ValueError, match="top_k=0"):
        judge.predict({"text": ["x"]}, top_k=0)
    judge.evaluate(next(iter(judged_texts(TEXTS, PIECES, 20, 9))))
    assert judge.figures({}).keys() == {"confusion"}


def test_pairs_are_judged_by_both_texts():
    judge = task(pairs=True)
    assert trained(judge, PAIRS, 100)["accuracy"] > 0.95  # of one text alone 0.75
    judge.eval()
    assert judge.predict({"text": ["a good film || a great film", "a good film\ta bad film"]}, top_k=1)["label"] == [
        ["good"],
        ["bad"],
    ]
    with pytest.raises(ValueError, match="'a good film': expected two texts"):
        judge.predict({"text": ["a good film"]})


def test_a_score_is_learned_by_squares_and_measured_by_ranks():
    score = task(Score, 1, pairs=False)
    found = trained(score, TEXTS, 60, score=True)
    assert found["spearman"] > 0.8
    (batch,) = judged_texts(TEXTS, PIECES, 20, 18, score=True)
    score.eval()
    said = score.said(batch)
    torch.testing.assert_close(score.loss(batch)[0], (said - batch["target"]).square().sum())
    assert score.predict({"text": ["a great film"]})["score"].shape == (1,)


def test_the_overlap_of_a_pair_is_that_of_its_different_words():
    score = task(Score, outputs=1).eval()
    said = [("a good film", "a bad film"), ("a good good book", "great song"), ("a film", "a film")]
    batch = score.pieces.batch([one for one, _ in said], [other for _, other in said])
    torch.testing.assert_close(score.overlap(batch), torch.tensor([2 / 4, 0.0, 1.0]))
    batch["target"] = torch.tensor([[0.4], [0.1], [0.9]])
    score.evaluate(batch)
    assert float(score.metrics["overlap_spearman"].compute()) == pytest.approx(1, abs=1e-4)
    assert "overlap_spearman" not in task(Score, outputs=1, pairs=False).metrics


def test_two_words_change_places_and_the_last_stays():
    random, words = generator(1), ["the", "dog", "saw", "the", "cat", "."]
    for _ in range(20):
        changed = disordered(words, random)
        assert sorted(changed) == sorted(words)
        assert changed[-1] == "."
        assert sum(one != other for one, other in zip(words, changed, strict=True)) == 2
    with pytest.raises(ValueError, match="expected two different ones before the last"):
        disordered(["no", "no", "."], random)


@pytest.mark.usefixtures("data_folder")
def test_half_of_the_sentences_are_in_disorder_and_no_sentence_is_there_twice():
    texts = word_order()
    assert 0.48 < sum(one.judgement for one in texts.train) / len(texts.train) < 0.52
    train, test = ({" ".join(sorted(one.first.split())) for one in part} for part in (texts.train, texts.test))
    assert len(train) == len(texts.train)
    assert not train & test


def test_two_texts_are_told_by_a_tab_or_by_two_bars():
    assert parted("one\ttwo") == ("one", "two")
    assert parted("one || two || three") == ("one", "two || three")
    assert parted("one") == ("one", None)


def test_what_has_the_same_first_text_is_in_the_same_part():
    part, rest = apart(PAIRS, 0.34)
    assert {one.first for one in part}.isdisjoint(one.first for one in rest)
    assert len(part) == 12
    assert len(rest) == 24


def test_the_real_judgements_are_those_published(data_folder):
    texts = sst2()
    assert [len(part) for part in (texts.train, texts.valid, texts.test)] == [6920, 872, 1821]
    pairs = by_number(snli())
    assert len(pairs.train) + len(pairs.valid) == 9842
    assert len(pairs.test) == 9824
    assert pairs.train[0].second
    assert {one.judgement for one in pairs.train} == {0, 1, 2}
    scores = snli_agreement()
    every = [one.judgement for part in (scores.train, scores.valid, scores.test) for one in part]
    assert len(every) == 2566
    assert min(every) == 0
    assert max(every) == 1
    assert 0.3 in [round(value, 2) for value in every]


def test_fewer_labels_than_asked_for_are_refused(data_folder):
    with pytest.raises(ValueError, match="labelled=7000: expected 1 to 6920"):
        sst2_encoder(labelled=7000)

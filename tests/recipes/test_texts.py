"""A person's own texts become a classifier, with what was found and chosen told; reviews start from word vectors."""

import json
import random

import pytest
import torch

from thalweg.build import load, save
from thalweg.recipes.labelling import names_wnut17, tagger
from thalweg.recipes.texts import sentiment, text_classifier
from thalweg.training import Training, evaluate

TOPICS = {"体育": "球队 赢得 比赛 进球 教练", "weather": "rain sun wind cloud storm", "food": "bread soup rice tea apple"}


def topics(path, count):
    """Lines of JSON about three things, in two languages; and two lines that are none."""
    draw, rows = random.Random(0), []
    for number in range(count):
        label = [*TOPICS][number % 3]
        rows.append(json.dumps({"text": " ".join([f"{number}", *draw.choices(TOPICS[label].split(), k=4)]), "label": label}))
    path.write_text("\n".join(["{", *rows, '{"text": "no label"}']), encoding="utf-8")
    return path


def test_own_texts_are_learned_and_told_apart_in_any_language(tmp_path):
    experiment = text_classifier(data=topics(tmp_path / "topics.jsonl", 300), epochs=4)
    assert experiment.notes["texts"].startswith("train 210, valid 45, test 45, of 3 classes; 70 to 70 of each")
    assert experiment.notes["left out or doubtful"] == ("1 not JSON, left out: line 1; "
                                                        "1 without a text and a class, left out: line 302")  # fmt: skip
    assert experiment.notes["training"].startswith("TextCNN of ")
    assert "4 epochs of 27 batches of 8, AdamW at 0.001" in experiment.notes["training"]
    training = Training(experiment, precision="fp32")
    for _ in training:
        pass
    assert dict(evaluate(training, experiment.test))["accuracy"] > 0.95
    save(training.evaluated, tmp_path / "model")
    predicted = load(tmp_path / "model").predict({"text": ["赢得 比赛", "a storm of wind"]}, top_k=1)
    assert predicted["label"] == [["体育"], ["weather"]]


@pytest.mark.parametrize("model", ["birnn", "transformer", "counts"])
def test_own_texts_are_read_by_any_of_the_models(tmp_path, model):
    experiment = text_classifier(data=topics(tmp_path / "topics.jsonl", 60), model=model, longest=20)
    assert torch.isfinite(experiment.task.loss(experiment.train.batch(0))[0])


def pairs(path):
    """A table of pairs, of which the second is what counts; one pair has none."""
    rows = [f"{number} is it {one}?,{'yes it is' if number % 2 else 'not at all'} {number},{'true' if number % 2 else 'false'}"
            for number, one in enumerate(("rain", "sun", "wind", "snow", "hail") * 40)]  # fmt: skip
    path.write_text("\n".join(["premise,hypothesis,label", *rows, "is it rain?,,true"]))
    return path


def test_own_pairs_of_texts_are_judged_by_an_encoder_and_by_one_that_has_learned_before(tmp_path):
    data = pairs(tmp_path / "pairs.csv")
    with pytest.raises(ValueError, match="pairs of texts, which model=textcnn does not read; expected model=encoder"):
        text_classifier(data=data)
    with pytest.raises(ValueError, match="pretrained=bert: expected model=encoder beside it, not textcnn"):
        text_classifier(data=data, pretrained="bert")
    experiment = text_classifier(data=data, model="encoder", epochs=4)
    assert experiment.notes["left out or doubtful"] == "1 without a text and a class, left out: line 202"
    training = Training(experiment, precision="fp32")
    for _ in training:
        pass
    assert dict(evaluate(training, experiment.test))["accuracy"] > 0.95
    save(training.evaluated, tmp_path / "run" / "model")
    learned = load(tmp_path / "run" / "model")
    asked = [f"is it rain? || {answer}" for answer in ("yes it is", "not at all")]
    assert learned.predict({"text": asked}, top_k=1)["label"] == [["true"], ["false"]]
    again = text_classifier(data=data, model="encoder", pretrained=str(tmp_path / "run"))
    for one, other in zip(*(task.model.reading.backbone.parameters() for task in (again.task, learned)), strict=True):
        torch.testing.assert_close(one, other)
    experiment = tagger(data=sentences(tmp_path / "own.conll"), pretrained=str(tmp_path / "run"))
    assert torch.isfinite(experiment.task.loss(experiment.train.batch(0))[0])


def test_reviews_start_from_the_vectors_of_a_file(tmp_path, data_folder):
    words = ["the", "film", "zyzzyva", "good"]
    vectors = torch.randn(4, 8)
    lines = [" ".join([word, *(f"{x:.6f}" for x in row)]) for word, row in zip(words, vectors.tolist(), strict=True)]
    (tmp_path / "vectors.txt").write_text("\n".join(lines))
    sentiment(model="transformer", vectors=tmp_path / "vectors.txt")
    experiment = sentiment(vectors=tmp_path / "vectors.txt")
    task = experiment.task
    for word, row in zip(words, vectors, strict=True):
        if word != "zyzzyva":
            for part in (task.model.embedding, task.model.static_embedding):
                torch.testing.assert_close(part.weight[task.reader.number[word]], row, rtol=0, atol=1e-5)
    assert "3 of 7,1" in experiment.notes["words"]
    assert not task.model.static_embedding.weight.requires_grad
    with pytest.raises(ValueError, match=r"vectors=.*: counts of words have none"):
        sentiment(model="counts", vectors=tmp_path / "vectors.txt")


def sentences(path):
    """Words that are labelled by their last letter, a line each; and one without a label."""
    draw, lines = random.Random(0), ["alone"]
    for _ in range(300):
        for _ in range(draw.randint(2, 5)):
            word = draw.choice(["cat", "dog"]) + draw.choice(["s", ""])
            lines.append(f"{word}\t{'PLURAL' if word.endswith('s') else 'ONE'}")
        lines.append("")
    path.write_text("\n".join(lines))
    return path


def test_own_sentences_are_labelled(tmp_path):
    experiment = tagger(data=sentences(tmp_path / "own.conll"), epochs=1, batch_size=8, context="window")
    assert experiment.notes["sentences"].endswith("of 2 labels")
    assert experiment.notes["left out"].startswith("1 without a word and a label (line 1), ")
    assert experiment.notes["the label that each word most often has"] == "is right for 100.00 % of validation words"
    training = Training(experiment, precision="fp32")
    for _ in training:
        pass
    assert dict(evaluate(training, experiment.test))["accuracy"] > 0.95
    assert training.task.eval().predict({"text": ["dogs cat"]})["text"] == ["dogs/PLURAL cat/ONE"]


def test_words_that_hold_blanks_or_are_reserved_are_labelled(tmp_path):
    lines = [f"New York\tPLACE\n<unk>\tO\nin\tO\nword{number}\tO\n" for number in range(30)]
    (tmp_path / "own.tsv").write_text("\n".join(lines))
    experiment = tagger(data=tmp_path / "own.tsv", epochs=12, batch_size=8)
    assert experiment.monitor == "accuracy"
    for _ in (training := Training(experiment, precision="fp32")):
        pass
    assert dict(evaluate(training, experiment.test))["accuracy"] == 1


def test_a_tagger_starts_from_vectors_and_knows_their_words_too(tmp_path, data_folder):
    words = ["the", "london", "qwxzj"]
    vectors = torch.randn(3, 6)
    lines = [" ".join([word, *(f"{x:.6f}" for x in row)]) for word, row in zip(words, vectors.tolist(), strict=True)]
    (tmp_path / "vectors.txt").write_text("\n".join(lines))
    task = names_wnut17(vectors=tmp_path / "vectors.txt").task
    for word, row in zip(words, vectors, strict=True):
        held = task.model.embedding.weight[task.reader.words.number[word]]
        assert torch.allclose(held, row, atol=1e-5)

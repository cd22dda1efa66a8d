"""Texts and what they are about: what order tells, what is shown, and what comes back from a folder."""

import random
from functools import partial

import pytest
import torch

from thalweg import figures
from thalweg.build import build, load, save
from thalweg.data.pairs import UNK
from thalweg.data.streams import Padded, padded
from thalweg.models.language.birnn import BiRNN
from thalweg.models.language.textcnn import TextCNN
from thalweg.models.language.word_counts import WordCounts
from thalweg.tasks.text_classification import TextClassification
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import adamw

WORDS = "good bad not very film plot actor is the and"


def reviews(count: int, seed: int) -> tuple[list[str], list[int]]:
    """One thing is good and another bad, in this or that order, "not" before one of them; only order tells."""
    draw, texts, labels = random.Random(seed), [], []
    for _ in range(count):
        first, last = draw.sample(["good", "bad"], 2)
        negated = draw.choice([(0, 1), (1, 0)])
        things, says = draw.sample(["film", "plot", "actor"], 2), []
        for thing, no, word in zip(things, negated, (first, last), strict=True):
            says.append(f"{draw.choice(['the', 'a'])} {thing} is {'not ' * no}{draw.choice(['very ', ''])}{word}")
        texts.append(" and ".join(says))
        labels.append(int((first == "good") ^ (negated[0] == 1)))  # good and not bad, or bad and not good
    return texts, labels


def learned(model, steps: int = 100) -> tuple[TextClassification, float]:
    torch.manual_seed(0)
    task = build(TextClassification, model=model(), classes=["bad", "good"], words=WORDS)
    train, test = (Padded({"tokens": task.encode(texts)}, {"label": torch.tensor(label)}, 32, shuffle=not seed)
                   for seed, (texts, label) in enumerate((reviews(500, 1), reviews(100, 2))))  # fmt: skip
    training = Training(Experiment(task=task, train=train, steps=steps, optimizer=adamw(5e-3)), device="cpu", precision="fp32")
    for _ in training:
        pass
    return task.eval(), float(dict(evaluate(training, test))["accuracy"])


def test_readers_of_order_hear_what_is_negated_and_counts_of_words_do_not():
    size = {"vocab_size": 14, "num_classes": 2}
    _, counted = learned(lambda: build(WordCounts, **size))
    assert counted < 0.65
    reads = {TextCNN: {"num_channels": 16, "kernel_sizes": (2, 3)},  # a window of "not very good"
             BiRNN: {"hidden_dim": 16, "num_layers": 1, "dropout": 0.1}}  # a state that remembers  # fmt: skip
    for make, arguments in reads.items():
        assert learned(partial(build, make, **size, embed_dim=16, **arguments))[1] > 0.97


def task(**arguments) -> TextClassification:
    torch.manual_seed(0)
    model = build(TextCNN, vocab_size=14, num_classes=2, embed_dim=8, num_channels=4)
    return build(TextClassification, model=model, classes=["bad", "good"], words=WORDS, **arguments).eval()


def test_it_names_the_class_of_a_text_and_comes_back_from_its_folder(tmp_path):
    made, texts = task(), ["Not a good film!", "bad", ""]
    said = made.predict({"text": texts})
    assert [sorted(row) for row in said["label"]] == [["bad", "good"]] * 3
    torch.testing.assert_close(said["probability"].sum(1), torch.ones(3))
    for row, text in enumerate(texts):  # padding by others changes nothing
        torch.testing.assert_close(made.predict({"text": [text]})["probability"][0], said["probability"][row])
    save(made, tmp_path / "model")
    assert torch.equal(load(tmp_path / "model").predict({"text": texts})["probability"], said["probability"])
    with pytest.raises(ValueError, match="top_k=0"):
        made.predict({"text": texts}, top_k=0)
    with pytest.raises(ValueError, match="words, tokenizer: expected one of them"):
        task(tokenizer="{}")


def test_in_training_words_are_hidden_and_of_a_long_text_the_beginning_is_read():
    made = task(unknown=0.5, longest=5)
    assert [len(tokens) for tokens in made.encode(["good " * 9, "good"])] == [5, 2]
    seen = []
    made.model.embedding.register_forward_hook(lambda module, read, output: seen.append(read[0]))
    batch = {"tokens": torch.full((40, 30), 5), "mask": torch.ones(40, 30, dtype=torch.bool)}
    made.logits(batch)
    made.train().logits(batch)
    assert (seen[0] == 5).all()
    assert 0.4 < (seen[1] == UNK).double().mean() < 0.6
    assert set(seen[1].unique().tolist()) == {UNK, 5}


def test_figures_show_texts_with_what_is_said_of_them(monkeypatch):
    made = task()
    batch = {**padded({"tokens": made.encode(["a good film", "not good"])}), "label": torch.tensor([0, 1])}
    made.evaluate(batch)
    shown, drawn = [], figures.texts
    monkeypatch.setattr("thalweg.figures.texts", lambda rows: shown.append(rows) or drawn(rows))
    assert set(made.figures(batch)) == {"confusion", "read", "most wrong"}
    said = made.predict({"text": ["a good film", "not good"]}, top_k=1)
    rows = zip(shown[0], said["label"], said["probability"], ("bad", "good"), strict=True)
    for (_, words, colour), label, chance, true in rows:
        right = label[0] == true
        assert words == f"{label[0]} {float(chance[0]):.2f}" + ("" if right else f", true: {true}")
        assert colour == ("seagreen" if right else "firebrick")
    assert [text for text, _, _ in shown[0]] == ["<unk> good film", "not good"]
    assert sorted(shown[1]) == sorted(shown[0])

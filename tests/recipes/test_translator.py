"""A person's own file of pairs becomes a translator, with what was found and chosen told."""

import random

import pytest

from thalweg.build import load, save
from thalweg.recipes.translation import translator
from thalweg.training import Training, evaluate

NUMBERS = ("one eins", "two zwei", "three drei", "four vier", "five fünf", "six sechs", "seven sieben", "eight acht")


def pairs(path, count):
    """Numbers in English, and in German the other way round; and two lines that are none."""
    draw = random.Random(0)
    said = [[draw.choice(NUMBERS).split() for _ in range(draw.randint(2, 4))] for _ in range(count)]
    lines = ["{}.\t{}.".format(" ".join(one for one, _ in words).capitalize(), " ".join(other for _, other in words[::-1]))
             for words in said]  # fmt: skip
    path.write_text("\n".join(["no tab", *lines, "\tnothing"]), encoding="utf-8")
    return path


def test_what_was_found_and_chosen_is_told(tmp_path):
    experiment = translator(data=pairs(tmp_path / "pairs.tsv", 400))
    assert experiment.notes["pairs"] == "train 270, valid 15, test 15"
    assert "2 without a source and a target (lines 1, 402)" in experiment.notes["left out"]
    assert experiment.notes["training"].startswith("Transformer of ")
    assert ", 60 epochs of 34 batches of 8, AdamW at 0.002" in experiment.notes["training"]
    assert experiment.notes["sacrebleu"] == "nrefs:1|case:mixed|eff:no|tok:13a|smooth:none"
    narrow = translator(data=tmp_path / "pairs.tsv", model="seq2seq", embed_dim=32, epochs=2, batch_size=5, vocab_size=300)
    assert narrow.notes["training"].startswith("AttentionSeq2Seq of ")
    assert narrow.task.model.embedding.weight.shape == (300, 32)
    with pytest.raises(ValueError, match=r"data=.*none\.tsv: expected a file of lines"):
        translator(data=tmp_path / "none.tsv")


def test_numbers_are_translated_and_turned_round(tmp_path):
    experiment = translator(data=pairs(tmp_path / "pairs.tsv", 1500), model="seq2seq", embed_dim=64, epochs=8, batch_size=32,
                            lr=5e-3)  # fmt: skip
    training = Training(experiment, precision="fp32")
    for _ in training:
        pass
    assert dict(evaluate(training, experiment.test))["sacrebleu"] > 80
    save(training.evaluated, tmp_path / "model")
    asked = {"text": ["Three one six."]}
    predicted = load(tmp_path / "model").predict(asked, show_alignment=True)
    assert predicted["text"] == ["sechs eins drei."]
    looked, (source, target) = predicted["alignment"][0], predicted["pieces"][0]
    assert "".join(source) == "Three one six.<eos>"
    assert "".join(target) == "sechs eins drei.<eos>"
    assert looked.shape == (len(target), len(source))

"""A person's own texts become a language model, with what was found and chosen told."""

import math
import random

import pytest
import torch
from fastapi.testclient import TestClient

from thalweg.build import load, save
from thalweg.cli import main
from thalweg.recipes.language import language_model
from thalweg.serving.application import application
from thalweg.training import Training, evaluate


def tales(path, count):
    """Documents in which a river of a colour flows into a sea of the same; and one that no one can read."""
    path.mkdir()
    draw = random.Random(0)
    for number in range(count):
        colour = draw.choice(["红色", "blue", "green", "white"])
        (path / f"{number}.md").write_text(f"{number}: The {colour} river flows into the {colour} sea.", encoding="utf-8")
    (path / "bad.txt").write_bytes(b"\xff")
    return path


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tales")
    torch.manual_seed(0)
    experiment = language_model(data=tales(folder / "texts", 200), epochs=25, embed_dim=64, num_layers=2, vocab_size=320,
                                context=32, batch_size=8)  # fmt: skip
    training = Training(experiment, precision="fp32")
    for _ in training:
        pass
    save(training.evaluated, folder / "model")
    return experiment, dict(evaluate(training, experiment.test)), folder / "model"


def test_own_texts_are_learned_and_what_was_found_is_told(learned):
    experiment, measured, _ = learned
    assert experiment.notes["documents"] == "train 160, valid 20, test 20"
    assert experiment.notes["sub-words"].startswith("320, learned from your texts; ")
    assert "25 epochs of " in experiment.notes["training"]
    assert experiment.notes["left out"].startswith("1 files that cannot be read, left out: bad.txt (expected text in UTF-8")
    test = experiment.test.tokens
    size = experiment.task.characters.sizes()[test].sum()
    assert math.isclose(measured["bits_per_byte"], measured["loss"] * (len(test) - 1) / math.log(2) / size, rel_tol=1e-4)
    assert math.isclose(measured["perplexity"], math.exp(measured["loss"]), rel_tol=1e-4)
    # what cannot be known of a document is its number and one of four colours, 10 bits of some 48 bytes
    assert 0.18 < measured["bits_per_byte"] < 0.4


def test_it_goes_on_with_a_text_and_ends_where_documents_end(learned, capsys):
    _, _, model = learned
    asked = "7: The blue river"
    said = load(model).predict({"text": [asked, "8: The 红色 river flows"]}, temperature=0, length=60)["text"]
    assert said == ["7: The blue river flows into the blue sea.", "8: The 红色 river flows into the 红色 sea."]
    assert "river flows into the" in load(model).predict({"text": [""]}, length=60)["text"][0]  # a document from its begin
    main(["generate", str(model), asked, "--temperature", "0"])
    assert capsys.readouterr().out == " flows into the blue sea.\n"
    main(["predict", str(model), asked, "--temperature", "0"])
    assert capsys.readouterr().out == said[0] + "\n"
    with TestClient(application(load(model), recipe="language-model")) as client:
        answer = client.post("/generate", json={"text": asked, "temperature": 0, "length": 60}).json()
    assert answer["text"] == said[0]


def test_the_figures_are_drawn_even_of_texts_that_end_at_once(learned):
    experiment, *_ = learned
    task = experiment.task
    assert {*task.figures(experiment.valid.batch(0))} == {"real text", "own text"}
    assert task.encode("").tolist() == [2, 2]


def test_what_is_too_short_or_asked_in_vain_is_one_line(tmp_path):
    (tmp_path / "a.txt").write_text("a b c")
    with pytest.raises(ValueError, match=r"data=.*a\.txt: .* tokens to train on, .* expected at least 16, 8 and 8"):
        language_model(data=tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text("the river and the valley " * 100)
    assert language_model(data=tmp_path / "b.txt").task.context < 256
    with pytest.raises(ValueError, match="context=5000: expected 2 to"):
        language_model(data=tmp_path / "b.txt", context=5000)

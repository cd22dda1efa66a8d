"""News and their headlines: what programs have left in the texts is taken out, and no story is in two parts."""

import pytest

from thalweg.data.headlines import headlines, lead, plain, story
from thalweg.data.sources import MissingData


def test_signs_and_tags_are_read_as_they_were_meant():
    assert plain(r"a second\team &lt;b&gt;of&lt;/b&gt; the  #36;10 million X #39;Prize#39; AT&amp;T quot;oftquot;") == (
        "a second team of the $10 million X 'Prize' AT&T \"oft\""
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("AP - It's barely dawn.", "It's barely dawn."),
        ("SPACE.com - TORONTO, Canada -- A second team.", "A second team."),
        ("LONDON (Reuters) - They met.", "They met."),
        ("The win - their third - was narrow.", "The win - their third - was narrow."),
        ("Nothing before it.", "Nothing before it."),
    ],
)
def test_who_tells_it_and_from_where_is_left_out(text, told):
    assert story(text, "Title Here (AP)") == (told, "Title Here")


def test_the_first_sentence_does_not_end_within_an_abbreviation():
    text = "The U.S. Treasury spoke to Mr. Smith on Monday. It was late."
    assert lead(text) == "The U.S. Treasury spoke to Mr. Smith on Monday."
    assert lead("Nothing ends") == "Nothing ends"


def test_no_story_is_in_two_parts(data_folder):
    corpus = headlines()
    parts = [{text for text, _ in part} for part in (corpus.train, corpus.valid, corpus.test)]
    assert sum(map(len, (corpus.train, corpus.valid, corpus.test))) + sum(corpus.left_out.values()) == 7600
    assert [len(part) for part in parts[1:]] == [500, 500]
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]


def test_without_the_file_one_line_says_where_it_is_from(monkeypatch, tmp_path):
    monkeypatch.setenv("THALWEG_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingData, match=r"test\.csv\.gz is neither in THALWEG_DATA nor in the cache"):
        headlines()

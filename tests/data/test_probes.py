"""Questions for language models: the sets that come with the package, examples that give nothing away, lines that are wrong."""

import json
from collections import Counter

import pytest

from thalweg.data.pairs import multi30k
from thalweg.data.probes import CLOZE, Probe, probes, prompted, shown

ASKED = [Probe(f"{n} and {n} is", [str(2 * n), "none"], 0) for n in range(6)]


@pytest.mark.parametrize(("name", "count", "answers"), [("facts", 40, 4), ("questions", 30, 4), ("agreement", 24, 2)])
def test_the_sets_are_whole_and_the_place_of_the_right_answer_tells_nothing(name, count, answers):
    found = probes(name)
    assert len(found) == len({one.question for one in found}) == count
    assert {len(set(one.answers)) for one in found} == {answers}
    assert max(Counter(one.right for one in found).values()) < 0.7 * count
    assert name in CLOZE


def test_reviews_are_as_many_of_each_kind(data_folder):
    found = probes("sst2")
    assert Counter(one.right for one in found) == {0: 100, 1: 100}
    assert found[0].question.startswith("Review: ")
    assert {*map(tuple, (one.answers for one in found))} == {("negative", "positive")}


def test_of_four_translations_of_like_length_one_is_right(data_folder):
    found, parts = probes("translation"), dict(multi30k("en", "fr", words=False).valid)
    assert len(found) == len({one.question for one in found}) == 100
    for one in found:
        english = one.question.removeprefix("English: ").removesuffix("\nFrench:")
        assert parts[english] == one.answers[one.right]
        assert len({*one.answers}) == 4
        assert max(map(len, one.answers)) < 1.5 * min(map(len, one.answers))


def test_news_are_to_be_said_in_a_headline(data_folder):
    found = probes("headlines")
    assert len(found) == 502  # two of the 500 stories were told twice
    assert found[0].question.startswith("News: ")
    assert found[0].question.endswith("\nHeadline:")
    assert {len(one.answers) for one in found} == {1}


def test_examples_are_other_questions_with_their_right_answers():
    assert prompted(ASKED, 2, 0, 0) == "2 and 2 is"
    for number in range(6):
        *examples, asked = prompted(ASKED, number, 5, 0).split("\n\n")
        assert asked == ASKED[number].question
        assert {*examples} == {f"{n} and {n} is {2 * n}" for n in range(6) if n != number}
    drawn = {prompted(ASKED, 0, 2, seed) for seed in range(30)}
    assert len(drawn) > 5
    assert prompted(ASKED, 0, 2, 1) == prompted(ASKED, 0, 2, 1)
    for shots in (-1, 6):
        with pytest.raises(ValueError, match=f"shots={shots}: expected 0 to 5"):
            prompted(ASKED, 0, shots, 0)


def test_a_blank_stands_before_an_answer_where_none_is():
    assert shown("Paris is in", "France") == "Paris is in France"
    assert shown("Q: who?\n", "I") == "Q: who?\nI"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"question": " ", "answers": ["a", "b"], "right": 0}, 'line 2: expected a text as "question"'),
        ({"question": "q", "answers": [], "right": 0}, 'line 2: expected different texts as "answers"'),
        ({"question": "q", "answers": ["a", "a"], "right": 0}, "line 2: expected different"),
        ({"question": "q", "answers": ["a", 3], "right": 0}, "line 2: expected different"),
        ({"question": "q", "answers": ["a"], "right": 0}, "some questions have one answer, to be written, and others several"),
        ({"question": "q", "answers": ["a", "b"], "right": 2}, 'line 2: expected 0 to 1 as "right", and not 2'),
        ({"question": "q", "answers": ["a", "b"], "right": True}, 'line 2: expected 0 to 1 as "right"'),
        (["q"], "1 not an object, left out: line 2"),
    ],
)
def test_a_line_that_is_no_question_is_named(tmp_path, line, said):
    good = {"question": "q", "answers": ["a", "b"], "right": 1}
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, (good, line))))
    with pytest.raises(ValueError, match=said):
        probes(str(tmp_path / "a.jsonl"))
    (tmp_path / "a.jsonl").write_text(json.dumps(good))
    assert probes(str(tmp_path / "a.jsonl")) == [Probe("q", ["a", "b"], 1)]


def test_without_a_question_one_line_says_so(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"a\.jsonl: expected a question a line; it holds none"):
        probes(str(tmp_path / "a.jsonl"))
    with pytest.raises(
        ValueError, match="nowhere: no such file, and none of facts, questions, agreement, sst2, translation, head"
    ):
        probes("nowhere")

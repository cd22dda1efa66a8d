"""Answers cut out of texts: the best span, what counts as right, texts that are too long, and data that are wrong."""

import json

import pytest
import torch

from thalweg.build import build, load, save
from thalweg.data.folders import Faults
from thalweg.data.questions import Question, apart, located, own_questions, question_batches, read_squad, windows, xquad
from thalweg.data.wordpieces import WordPieces, learn_wordpieces
from thalweg.metrics import AnswerF1, ExactAnswer
from thalweg.models.language.bert import BERT
from thalweg.models.language.fine_tuned import OfTokens
from thalweg.recipes.encoders import question_answerer
from thalweg.tasks.extraction import Extraction
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import adamw

PLACES = ["Paris", "Rome", "Oslo", "Lima", "Cairo", "Berlin"]
PEOPLE = ["Ann", "Bob", "Eve", "Tom"]


def question(one, place, other, elsewhere, asked):
    context = f"{one} lives in {place} and {other} lives in {elsewhere} ."
    answer = place if asked == one else elsewhere
    return Question(f"where does {asked} live ?", context, answer, context.index(answer))


QUESTIONS = [question(one, place, other, elsewhere, asked) for one in PEOPLE for other in PEOPLE if one != other
             for place in PLACES for elsewhere in PLACES if place != elsewhere for asked in (one, other)]  # fmt: skip
TOKENIZER = learn_wordpieces([text for one in QUESTIONS for text in one[:2]], 120)
PIECES = WordPieces(TOKENIZER)


def task(context=40):
    encoder = build(BERT, vocab_size=len(PIECES), context=context, embed_dim=64, num_layers=2, num_heads=2)
    return build(Extraction, model=build(OfTokens, backbone=encoder, num_outputs=2), tokenizer=TOKENIZER, longest=context)


def test_the_loss_is_the_mean_of_that_of_start_and_end_over_the_places_of_the_text():
    extraction = task().double().eval()
    batch = next(iter(question_batches(QUESTIONS[:6], PIECES, 40, 6)))
    batch["start"][5] = batch["end"][5] = -1
    logits = extraction.model(batch["tokens"], batch["mask"], batch["segment"])
    total = 0.0
    for row in range(5):
        text = batch["tokens"][row].tolist()
        places = range(text.index(PIECES.sep) + 1, len(text) - text[::-1].index(PIECES.sep) - 1)
        for side, name in enumerate(("start", "end")):
            x = logits[row, :, side]
            total += (torch.stack([x[place] for place in places]).exp().sum().log() - x[batch[name][row]]) / 2
    ours, count = extraction.loss(batch)
    assert int(count) == 5
    torch.testing.assert_close(ours, total, check_dtype=False, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("said", "right", "exact", "f1"),
    [("The Eiffel Tower!", "eiffel tower", 1, 1), ("tower", "eiffel tower", 0, 2 / 3), ("a", "the", 1, 1), ("x", None, 0, 0),
     ("in Paris in May", "May in Paris", 0, 6 / 7), ("Rome", "Paris", 0, 0)],
)  # fmt: skip
def test_an_answer_is_as_right_as_squad_says(said, right, exact, f1):
    for metric, value in ((ExactAnswer(), exact), (AnswerF1(), f1)):
        metric.update([said], [right])
        assert float(metric.compute()) == pytest.approx(value)


def test_a_long_text_is_read_in_windows_that_hold_every_short_answer():
    context = " ".join(f"{one} lives in {place} ." for one in PEOPLE for place in PLACES)
    cut = windows("where ?", context, PIECES, 30)
    assert len(cut) > 3
    assert all(len(window.tokens) <= 30 for window in cut)
    for place in range(0, len(context) - 14, 5):
        start = place if context[place - 1] == " " or not place else context.index(" ", place) + 1
        end = context.index(" ", start)
        held = [located(window, start, end) for window in cut]
        assert any(held)
        for window, span in zip(cut, held, strict=True):
            if span:
                assert context[window.characters[span[0]][0] : window.characters[span[1]][1]] == context[start:end]
                assert PIECES.decode(window.tokens[span[0] : span[1] + 1].tolist()) == context[start:end].lower()


@pytest.mark.slow
def test_a_small_encoder_learns_where_somebody_lives(tmp_path):
    torch.manual_seed(0)
    parts, extraction = apart(QUESTIONS, Faults()), task()
    stream = question_batches(parts.train, PIECES, 40, 32, shuffle=True)
    training = Training(Experiment(task=extraction, train=stream, steps=500, optimizer=adamw(2e-3)), precision="fp32")
    for _ in training:
        pass
    assert dict(evaluate(training, question_batches(parts.test, PIECES, 40, 50)))["exact"] > 0.9
    save(extraction, tmp_path)
    said = load(tmp_path).predict({"text": ["where does Eve live ? || Eve lives in Oslo and Tom lives in Rome ."]})
    assert (said["text"], said["start"], said["end"]) == (["Oslo"], [13], [17])
    assert 0.5 < said["probability"][0] <= 1


def test_a_text_without_a_question_is_refused():
    with pytest.raises(ValueError, match="expected a question and a text"):
        task().predict({"text": ["where ?"]})
    found = task().eval().predict({"text": ["where does Bob live ? || " + " ".join(one.context for one in QUESTIONS[:9])]})
    assert found["text"][0]


@pytest.mark.parametrize("count", [5, 6, 7, 11, 40])
def test_every_part_has_a_text_however_few_there_are(count):
    questions = [Question("who ?", f"Ann {number} .", "Ann", 0) for number in range(count)]
    parts = apart(questions, Faults())
    assert (len(parts.test), len(parts.valid)) == (count // 5, max(1, count // 10))
    assert sorted([*parts.train, *parts.valid, *parts.test]) == sorted(questions)


def squad(*paragraphs):
    return json.dumps({"data": [{"paragraphs": list(paragraphs)}]})


def asked(text="where ?", answer="Rome", start=10):
    return {"question": text, "answers": [{"text": answer, "answer_start": start}]}


def test_what_is_wrong_with_a_file_is_left_out_counted_and_told():
    faults = Faults()
    content = squad(
        {"context": "Ann is in Rome .", "qas": [asked(), asked(start=3), asked(text=" "), {"question": "why ?", "answers": []},
                                                 "why ?", asked(answer=None), asked(start=-4)]},
        {"context": "", "qas": [asked()]},
        {"context": "Bob ."},
        7,
    )  # fmt: skip
    assert read_squad(content, faults) == [Question("where ?", "Ann is in Rome .", "Rome", 10)]
    wide = squad({"context": "Ann is in Rome .", "qas": [asked(answer=" Rome ", start=9)]})
    assert read_squad(wide, Faults()) == [Question("where ?", "Ann is in Rome .", "Rome", 10)]
    assert {fault: len(places) for fault, places in faults.items()} == {
        "questions whose answer does not stand where it says, left out": 2,
        "questions without a text, left out": 2,
        "questions without an answer, left out": 2,
        "paragraphs without a context, left out": 2,
        "without a list of qas, left out": 1,
    }
    assert faults["questions whose answer does not stand where it says, left out"][0] == "article 1, paragraph 1, question 2"


@pytest.mark.parametrize("content", ["{", "[]", '{"data": 3}', '{"version": "1.1"}'])
def test_what_is_no_such_file_is_refused(content, tmp_path):
    (tmp_path / "squad.json").write_text(content)
    with pytest.raises(ValueError, match=r"squad\.json: expected an object with a list"):
        own_questions(tmp_path / "squad.json")


def test_a_persons_own_questions_are_taken_and_told(tmp_path):
    rows = [{"context": one.context, "qas": [asked(one.question, one.answer, one.start)]} for one in QUESTIONS[::9]]
    rows.append({"context": "Bob .", "qas": [asked()]})
    (tmp_path / "squad.json").write_text(squad(*rows), encoding="utf-8-sig")
    experiment = question_answerer(data=tmp_path / "squad.json", longest=64)
    assert experiment.notes["left out"].startswith("1 questions whose answer does not stand where it says")
    contexts = [
        {one.context for one in part} for part in (lambda x: (x.train, x.valid, x.test))(own_questions(tmp_path / "squad.json"))
    ]
    assert not contexts[0] & contexts[1] | contexts[0] & contexts[2] | contexts[1] & contexts[2]
    with pytest.raises(ValueError, match="questions on 1 texts, expected at least 5"):
        apart(QUESTIONS[:1], Faults())
    with pytest.raises(ValueError, match="longest=5"):
        question_answerer(data=tmp_path / "squad.json", longest=5)


def test_the_answers_of_xquad_stand_where_they_say(data_folder):
    questions = xquad()
    every = [*questions.train, *questions.valid, *questions.test]
    assert len(every) == 1190
    assert not questions.faults
    assert all(one.context[one.start : one.start + len(one.answer)] == one.answer for one in every)

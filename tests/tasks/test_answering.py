"""Questions about stories: the stories, where the head reads, and that it finds both sentences that count."""

import pytest
import torch
from torch.testing import assert_close

from thalweg.build import build, load, save
from thalweg.data.stories import LONGEST, PEOPLE, WORDS, encode, stories, story_tensors
from thalweg.data.streams import TensorStream
from thalweg.models.sequence.reading_head import ReadingHead
from thalweg.tasks.answering import Answering
from thalweg.training import Experiment
from thalweg.training.loop import Training, evaluate
from thalweg.training.optimisers import adam
from thalweg.training.schedules import linear


def test_the_answer_follows_from_the_two_sentences_that_are_said_to_give_it():
    for story in stories(200, 3, 9, seed=0):
        assert 3 <= len(story.facts) <= 9
        asked, first, last = story.question.split()[-1], *(story.facts[place].split() for place in story.support)
        if story.question.startswith("who"):
            assert (first, last[0]) == (last, story.answer)
        else:
            assert (last[1], last[-1]) == ("went", story.answer)
            assert not any(fact.startswith(f"{last[0]} went") for fact in story.facts[story.support[1] + 1 :])
        if "the" in story.question:
            assert (first[0], first[1], first[-1]) == (last[0], "took", asked)
            assert sum(fact.endswith(f"took the {asked}") for fact in story.facts) == 1
        else:
            assert (first, last[0]) == (last, asked)
    assert len({story.answer for story in stories(200, 3, 9, seed=0)}) == 9
    with pytest.raises(ValueError, match="least=1, most=3"):
        stories(1, 1, 3, 0)


def test_stories_become_tokens_and_unknown_words_are_named():
    (told,) = stories(1, 4, 4, seed=1)
    batch = story_tensors([told], most=6)
    assert batch["tokens"].shape == (1, 6, LONGEST)
    words = [" ".join(WORDS[token - 1] for token in row if token) for row in batch["tokens"][0].tolist()]
    assert words == [*told.facts, "", ""]
    assert WORDS[batch["label"][0] - 1] == told.answer
    with pytest.raises(ValueError, match="'the cat': expected 1 to 5 words of where"):
        encode(["the cat"], "where is the key")


def test_a_head_reads_what_the_state_asks_for():
    model = ReadingHead(len(WORDS) + 1, hidden_dim=8, hops=2).double()
    (told,) = stories(1, 4, 4, seed=1)
    batch = story_tensors([told], most=6)
    logits, heads = model(batch["tokens"], batch["question"])
    assert not heads[..., 4:].any()

    def summed(sentence):
        places = [model.embedding.weight[1 + WORDS.index(word)] * model.place[j] for j, word in enumerate(sentence.split())]
        return torch.stack(places).sum(0)

    memory = torch.stack([summed(fact) + model.age.weight[3 - i] for i, fact in enumerate(told.facts)])
    state = summed(told.question)[None]
    for step in range(2):
        weights = (memory @ model.query(state)[0]).softmax(0)
        assert_close(heads[0, step, :4], weights, rtol=0, atol=1e-10)
        state = model.controller((weights @ memory)[None], state)
    assert_close(logits, model.head(state), rtol=0, atol=1e-10)


def test_a_head_is_told_where_to_read_as_much_as_is_asked():
    task = Answering(ReadingHead(len(WORDS) + 1, hidden_dim=8, hops=3))
    batch = story_tensors(stories(5, 4, 6, seed=1), most=6)
    _, heads = task.model(batch["tokens"], batch["question"])
    missed = sum(-heads[n, h, story.support[h]].log() for n, story in enumerate(stories(5, 4, 6, seed=1)) for h in (0, 1))
    guided = task.loss(batch)[0]
    task.guide = 0.0
    assert_close(guided - task.loss(batch)[0], missed)


@pytest.mark.slow
def test_stories_are_answered_by_reading_the_two_sentences_that_count(tmp_path):
    torch.manual_seed(0)
    task = build(Answering, model=build(ReadingHead, vocab_size=1 + len(WORDS), hidden_dim=48, hops=3))
    train, test = (story_tensors(stories(count, 3, 7, seed), 7) for seed, count in enumerate((4000, 400)))
    training = Training(Experiment(task=task, train=TensorStream(train, 64, shuffle=True), steps=300, clip=1.0,
                                   optimizer=adam(5e-3), schedule=linear()), device="cpu")  # fmt: skip
    for _ in training:
        pass
    told = dict(evaluate(training, TensorStream(test, 200)))
    assert told["accuracy"] > 0.95
    assert told["found"] > 0.95
    save(task, tmp_path / "model")
    asked = {
        "text": [f"{PEOPLE[0]} took the key. {PEOPLE[1]} went to the hall. {PEOPLE[0]} went to the attic. Where is the key?"]
    }
    answer = load(tmp_path / "model").eval().predict(asked)
    assert answer["text"] == ["attic"]
    assert task.eval().draw(asked, answer) is not None
    with pytest.raises(ValueError, match="no sentence before its question"):
        task.predict({"text": ["where is the key?"]})

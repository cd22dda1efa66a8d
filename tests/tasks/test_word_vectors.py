"""Vectors of words asked: neighbours, analogies, rank correlation; learned pair by pair in the loop, and what is refused."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from thalweg.build import build
from thalweg.data.text import vocabulary
from thalweg.data.word_vectors import MEASURES, analogies, questions, similarities
from thalweg.data.word_windows import WordWindows
from thalweg.models.language.word2vec import Word2Vec
from thalweg.recipes.word_vectors import glove_text8, skipgram_text8
from thalweg.tasks.word_vectors import WordVectors, answered
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import sgd
from thalweg.training.optimisers.hogwild import hogwild


class Table(nn.Module):
    """Vectors as they are."""

    def __init__(self, vectors):
        super().__init__()
        self.weight = nn.Parameter(vectors)

    def vectors(self):
        return self.weight


WORDS = "man woman king queen boy girl"
VECTORS = torch.tensor([[1.0, 0, 0], [1, 1, 0], [1, 0, 2], [1, 1, 2], [1, 0, -1], [1, 1, -1]])


def test_neighbours_are_by_the_angle_and_analogies_by_the_difference():
    task = WordVectors(Table(VECTORS), WORDS, [])
    found = task.predict({"text": ["king", "man : woman :: king", "Boy girl man"]}, count=2)
    assert [row[0] for row in found["word"]] == ["queen", "queen", "woman"]
    cosine = 5 / math.sqrt(5 * 6)
    assert found["cosine"][0][0] == pytest.approx(cosine)
    assert found["text"][0].startswith(f"queen {cosine:.3f}  ")
    assert not {"man", "woman", "king"} & set(found["word"][1])
    cased = WordVectors(Table(VECTORS), WORDS.replace("boy", "Man"), [])
    assert [row[0] for row in cased.predict({"text": ["Man", "MAN"]}, count=1)["word"]] == ["girl", "woman"]
    with pytest.raises(ValueError, match=r"'quen' is none of the 6 words known, such as queen"):
        task.predict({"text": ["quen"]})
    with pytest.raises(ValueError, match="expected a word, or three"):
        task.predict({"text": ["man woman"]})


def test_measures_are_their_definitions():
    torch.manual_seed(1)
    vectors, words = torch.randn(160, 3), torch.randperm(160).view(40, 4)
    batch = {"tokens": torch.cat([words, words]), "score": torch.randint(5, (80,)).float(),
             "label": torch.tensor([0] * 40 + [2] * 40)}  # fmt: skip
    batch["tokens"][:40, 2:] = -1
    task = WordVectors(Table(vectors), " ".join(f"w{number}" for number in range(160)), ["wordsim", "semantic_analogies"])
    for part in (slice(0, 30), slice(30, 80)):
        task.evaluate({name: value[part] for name, value in batch.items()})

    def cosine(one, other):
        return float(one @ other / one.norm() / other.norm())

    alike = [cosine(vectors[one], vectors[other]) for one, other, *_ in words.tolist()]
    score = batch["score"][:40].tolist()
    places = [[sum(x < y for x in row) + (sum(x == y for x in row) + 1) / 2 for y in row] for row in (alike, score)]
    expected = torch.corrcoef(torch.tensor(places))[0, 1]  # equal values share the mean of their places
    assert_close(task.metrics["wordsim"].compute(), expected)
    unit, right = vectors / vectors.norm(dim=1, keepdim=True), 0
    for a, b, c, d in words.tolist():
        wanted = unit[b] - unit[a] + unit[c]
        right += d == max((word for word in range(160) if word not in (a, b, c)), key=lambda word: cosine(unit[word], wanted))
    assert task.metrics["semantic_analogies"].compute() == pytest.approx(right / 40)
    assert answered(VECTORS / VECTORS.norm(dim=1, keepdim=True), torch.tensor([[0, 1, 2]])).tolist() == [3]
    with pytest.raises(ValueError, match="'luck'"):
        WordVectors(Table(vectors), WORDS, ["luck"])


def test_what_people_say_is_read_where_its_words_are_known(data_folder):
    number = {
        word: place
        for place, word in enumerate(["tiger", "cat", "man", "woman", "son", "daughter", "athens", "greece", "oslo", "norway"])
    }
    assert similarities("wordsim", number).words[:2].tolist() == [[0, 1], [0, 0]]
    assert similarities("wordsim", number).score[:2].tolist() == pytest.approx([7.35, 10])
    assert [similarities(name, number).asked for name in ("wordsim", "simlex")] == [353, 999]
    cased = {word.capitalize() if word in ("athens", "tiger") else word: place for word, place in number.items()}
    assert [6, 7, 8, 9] in analogies(cased)["capital-common-countries"].words.tolist()
    sections = analogies(number)
    assert sum(section.asked for section in sections.values()) == 19_544
    assert sections["family"].words.tolist() == [[2, 3, 4, 5], [4, 5, 2, 3]]
    assert [6, 7, 8, 9] in sections["capital-common-countries"].words.tolist()
    asked, told = questions(number)
    assert told["wordsim"] == f"{len(similarities('wordsim', number).words)} of 353 questions are of known words"
    batch = next(iter(asked))
    assert batch["tokens"][0].tolist() == [0, 1, -1, -1]
    assert set(batch["label"].tolist()) == {0, 2} | ({1} if len(similarities("simlex", number).words) else set())
    assert questions({"zyx": 0})[0] is None
    assert set(told) == set(MEASURES)


TOKENS = torch.randint(6, (400,), generator=torch.Generator().manual_seed(0)).cumsum(0) % 6


def training_of(pairwise=True, optimizer=None, **arguments):
    counts = torch.bincount(TOKENS).tolist()
    model = build(Word2Vec, counts=counts, embed_dim=4, **arguments)
    task = build(WordVectors, model=model, words=WORDS, measured=[], pairwise=pairwise)
    stream = WordWindows(TOKENS, counts, 2, 50, threshold=0)
    experiment = Experiment(task=task, train=stream, steps=6, optimizer=optimizer or hogwild(0.1))
    return Training(experiment, device="cpu", precision="fp32")


def test_a_run_of_steps_by_pairs_goes_on_as_if_it_had_not_stopped(tmp_path):
    whole = training_of()
    for step in whole:
        if step.number == 3:
            whole.save(tmp_path)
    rest = training_of()
    torch.rand(5)
    rest.restore(tmp_path)
    assert [step.number for step in rest] == [4, 5, 6]
    ours, theirs = rest.task.state_dict(), whole.task.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_one_pair_a_batch_is_a_step_of_gradient_descent_of_torch():
    """With a tree nothing is drawn: a batch of one pair is the same step either way."""
    ours, theirs = training_of(objective="hierarchical"), training_of(False, sgd(0.1), objective="hierarchical")
    theirs.task.load_state_dict(ours.task.state_dict())
    batch = {"tokens": torch.tensor([2], dtype=torch.int32), "context": torch.tensor([[-1, 4]], dtype=torch.int32)}
    for training in (ours, theirs):
        training.experiment.train.batches = lambda start=0: iter([batch] * 9)
        losses = [float(step.losses[""]) for step in training]
        assert losses[-1] < losses[0]
    for one, other in zip(ours.task.parameters(), theirs.task.parameters(), strict=True):
        assert_close(one, other)


def test_several_threads_descend_on_all_pairs(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    training = training_of()
    before = training.task.model.embedding.weight.detach().clone()
    next(iter(training))
    assert (training.task.model.embedding.weight != before).all()


def test_what_cannot_go_pair_by_pair_is_refused(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="Linear has no method descend"):
        hogwild(0.1)(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="lr=-1"):
        hogwild(-1.0)
    monkeypatch.setattr("thalweg.training.distribution.world_size", lambda: 2)
    with pytest.raises(ValueError, match="goes in one process, not in 2"):
        hogwild(0.1)(WordVectors(Table(VECTORS), WORDS, []))
    task = WordVectors(Table(VECTORS), WORDS, [], pairwise=True)
    task._batch = {"tokens": torch.empty(2, device="meta")}
    with pytest.raises(ValueError, match="not for meta; --device cpu, or --no-pairwise"):
        task.descend(0.1)
    (tmp_path / "text.txt").write_text("a b c d " * 100)
    with pytest.raises(ValueError, match="objective='softmax': goes by batches"):
        skipgram_text8(data=tmp_path / "text.txt", objective="softmax")
    monkeypatch.setattr("thalweg.recipes.word_vectors.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="--no-pairwise"):
        skipgram_text8(data=tmp_path / "text.txt")


def test_a_text_of_ones_own_needs_no_english(tmp_path, data_folder):
    """Chinese by characters: no question is known, so a held-out part is measured."""
    (tmp_path / "text.txt").write_text("猫坐在垫子上。狗坐在地上。" * 120, encoding="utf8")
    made = skipgram_text8(data=tmp_path / "text.txt", by="characters", embed_dim=8, batch_size=200, epochs=1,
                          threshold=0)  # fmt: skip
    assert made.notes["vocabulary"].startswith("8 words, 1,320 of 1,320 in the text")
    training = Training(made, precision="fp32", device="cpu")
    before = dict(evaluate(training, made.valid))["loss"]
    for _ in training:
        pass
    assert dict(evaluate(training, made.valid))["loss"] < before
    assert set(training.task.predict({"text": ["猫"]}, count=3)["word"][0]) < set("坐在垫子上狗地")
    training.task.figures({})
    table = glove_text8(data=tmp_path, by="characters", embed_dim=8, epochs=1)
    learned, held = (
        {tuple(pair) for batch in part for pair in batch["tokens"].tolist()} for part in (table.train, table.valid)
    )
    assert held
    assert not learned & held
    assert [*table.task.metrics] == ["loss"]
    assert int(table.notes["pairs that stand together"]) == len(learned | held)


def test_a_vocabulary_leaves_out_what_is_rare_and_says_what_it_covers():
    known = vocabulary(["b", "a", "a", "c", "a", "b"], least=2)
    assert (known.words, known.counts, known.total) == (["a", "b"], [3, 2], 6)
    assert str(known) == "2 words, 5 of 6 in the text (83.33%)"
    assert known.encode(["c", "a", "b", "z"]).tolist() == [0, 1]
    with pytest.raises(ValueError, match="least=3: 1 words"):
        vocabulary(["b", "a", "a", "c", "a", "b"], least=3)

"""Sequence labelling: its losses against all sequences of labels, and sentences whose labels hang together."""

from itertools import product

import pytest
import torch
from definitions import EXACT
from torch.testing import assert_close

from thalweg.build import build, load, save
from thalweg.data.labelled import LabelledSentences, Letters, Sentence, journeys
from thalweg.models.sequence.tagger import Tagger, affixes
from thalweg.tasks.labelling import Labelling
from thalweg.training import Experiment
from thalweg.training.loop import Training, evaluate
from thalweg.training.optimisers import adamw

OBJECTIVES = ("independent", "crf", "perceptron", "svm")


def task(objective: str, classes=("O", "B-x", "I-x"), words: str = "a b c", **arguments) -> Labelling:
    model = build(Tagger, vocab_size=7, num_letters=5, num_labels=len(classes), embed_dim=8, hidden_dim=8, **arguments)
    made = build(Labelling, model=model, classes=classes, words=words, alphabet="abc", objective=objective)
    if made.chain:
        for parameter in made.chain.parameters():
            torch.nn.init.normal_(parameter)
    return made.double()


def every(made: Labelling, logits):
    """The score of every sequence of labels of a sentence."""
    mask = torch.ones(1, len(logits), dtype=torch.bool)
    return {y: made.chain.score(logits[None], torch.tensor([y]), mask)[0] for y in product(range(3), repeat=len(logits))}


@pytest.mark.parametrize("objective", OBJECTIVES[1:])
def test_each_loss_of_a_chain_is_that_of_its_definition(objective):
    made, logits, label = task(objective), torch.randn(4, 3, dtype=torch.float64), (0, 1, 2, 0)
    batch = {"label": torch.tensor([[*label, 1]]), "mask": torch.tensor([[True] * 4 + [False]])}
    padded = torch.cat([logits, torch.zeros(1, 3)])[None]
    scores = every(made, logits)
    wrong = {y: sum(a != b for a, b in zip(y, label, strict=True)) for y in scores}
    rivals = [score + wrong[y] * (objective == "svm") for y, score in scores.items()]
    total = torch.stack(rivals).logsumexp(0) if objective == "crf" else max(rivals)
    assert_close(made.cost(padded, batch)[0], total - scores[label], **EXACT)


def test_the_loss_of_the_structured_svm_is_at_least_the_labels_that_are_wrong():
    for seed in range(30):
        torch.manual_seed(seed)
        made, logits = task("svm"), 2 * torch.randn(6, 5, 3, dtype=torch.float64)
        batch = {"label": torch.randint(3, (6, 5)), "mask": torch.arange(5) < torch.randint(1, 6, (6, 1))}
        wrong = ((made.said(logits, batch["mask"]) != batch["label"]) & batch["mask"]).sum(1)
        assert (made.cost(logits, batch) >= wrong - 1e-6).all()
        assert wrong.sum() > 0


def alternating(count: int) -> list[Sentence]:
    """Words that do not say their label: names are of two words, so that the labels depend on each other alone."""
    made = []
    for seed in range(count):
        draw = torch.Generator().manual_seed(seed)
        words, labels = [], []
        while len(words) < 9:
            named = torch.rand((), generator=draw) < 0.5
            words += ["a", "b"] if named else ["c"]
            labels += ["B-x", "I-x"] if named else ["O"]
        made.append(Sentence(tuple("c" if word == "b" else word for word in words), tuple(labels)))
    return made


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_word_alone_does_not_tell_what_its_neighbours_do(objective):
    torch.manual_seed(0)
    made = task(objective, context="window", window=0).float()
    train, valid = (LabelledSentences(part, made.reader, made.classes, 16) for part in (alternating(64), alternating(80)[64:]))
    training = Training(Experiment(task=made, train=train, steps=150, optimizer=adamw(0.02)), device="cpu")
    first = dict(evaluate(training, valid))["accuracy"]
    for _ in training:
        pass
    measured = dict(evaluate(training, valid))
    assert measured["accuracy"] > first
    if objective == "independent":
        assert measured["f1"] < 0.9  # c is the second of a name, or none
    else:
        assert measured["f1"] == 1.0


def test_it_says_the_label_of_each_word_and_comes_back_from_its_folder(tmp_path):
    torch.manual_seed(0)
    made = task("crf").float().eval()
    said = made.predict({"text": ["Abc, a!"]}, count=3)["text"][0]
    assert [line.split(" ")[1].partition("/")[0] for line in said.split("\n")] == [","] * 3
    assert len(set(said.split("\n"))) == 3
    save(made, tmp_path / "model")
    assert load(tmp_path / "model").eval().predict({"text": ["Abc, a!"]}, count=3)["text"] == [said]
    with pytest.raises(ValueError, match="has no word"):
        made.predict({"text": ["  "]})
    with pytest.raises(ValueError, match="count=2"):
        task("independent").float().predict({"text": ["a"]}, count=2)
    with pytest.raises(ValueError, match="objective='hmm'"):
        task("hmm")


def test_names_are_counted_where_labels_are_those_of_names():
    assert "f1" in task("crf").metrics
    assert "f1" not in task("crf", classes=("O", "PER", "LOC")).metrics


def test_texts_are_cut_into_words_as_those_that_are_known_are():
    cut = task("crf", words="3.5 u.s. a").cut("U.S. a 3.5 a.b 我爱北京")
    assert cut == ["U.S.", "a", "3.5", "a", ".", "b", "我", "爱", "北", "京"]
    assert task("crf", words="a 北京").cut("我爱 北京") == ["我爱", "北京"]


def test_what_a_word_sees_is_its_context():
    tokens, letters, mask = torch.randint(4, 7, (1, 7)), torch.randint(1, 5, (1, 7, 16)), torch.ones(1, 7, dtype=torch.bool)
    before, all_ = {0, 1, 2, 3}, set(range(7))
    sees = {"both": all_, "attention": all_, "before": before, "elman": before, "window": {2, 3, 4}}
    for context, expected in sees.items():
        model = Tagger(7, 5, 3, context=context, window=1).double().eval()
        embedded = model.embedding(tokens).detach().requires_grad_()
        model.embedding.forward = lambda _, x=embedded: x
        model(tokens, letters, mask)[0, 3].sum().backward()
        assert {place for place in range(7) if embedded.grad[0, place].any()} == expected
    with pytest.raises(ValueError, match="context='after'"):
        Tagger(7, 5, 3, context="after")


def test_words_with_the_same_beginning_or_end_have_its_number():
    reader = Letters("a", "abcdefg")
    numbers = affixes(reader.encode(["abcdefg", "abcgefg", "g", "fg"])[1], 512)
    same = numbers[0] == numbers[1]
    assert same.tolist() == [True, True, False, True, True, False]  # the first 2 and 3, the last 2 and 3
    assert [(number // 512).tolist() for number in numbers] == [list(range(6))] * 4
    assert len(numbers[2:, 3:].unique()) == 6  # what a short word lacks is told apart too
    longer = torch.cat([reader.encode(["fg"])[1], torch.zeros(1, 5, dtype=torch.long)], 1)
    assert torch.equal(affixes(longer, 512)[0], numbers[3])


def test_in_training_a_share_of_the_words_is_unknown():
    model = Tagger(7, 5, 3, unknown=0.5).double()
    tokens, letters, mask = torch.full((20, 50), 5), torch.randint(1, 5, (20, 50, 16)), torch.ones(20, 50, dtype=torch.bool)
    seen = []
    model.embedding.register_forward_hook(lambda module, read, output: seen.append(read[0]))
    model(tokens, letters, mask)
    assert set(seen[0].unique().tolist()) == {3, 5}
    assert 0.4 < (seen[0] == 3).double().mean() < 0.6
    model.eval()(tokens, letters, mask)
    assert (seen[1] == 5).all()


def test_padding_changes_no_label():
    made = task("crf").eval()
    batch = LabelledSentences(alternating(4), Letters("a b c", "abc"), made.classes, 4).fetch(torch.arange(4))
    longer = {name: torch.cat([x, torch.zeros_like(x)], 1) for name, x in batch.items()}
    assert_close(made.loss(batch)[0], made.loss(longer)[0])


def test_an_elman_network_remembers_which_place_was_announced():
    sentences = journeys(900)
    words = " ".join(sorted({word for sentence in sentences.train for word in sentence.words}))
    found = {}
    for context, window in (("elman", 0), ("window", 0)):
        torch.manual_seed(0)
        reader = Letters(words, "a")
        model = build(Tagger, vocab_size=len(reader.words), num_letters=3, num_labels=len(sentences.classes), embed_dim=24,
                      hidden_dim=48, context=context, window=window, dropout=0.0)  # fmt: skip
        made = build(Labelling, model=model, classes=sentences.classes, words=words, alphabet="a", objective="independent")
        train, test = (LabelledSentences(part, reader, made.classes, 32, shuffle=part is sentences.train)
                       for part in (sentences.train, sentences.test))  # fmt: skip
        training = Training(Experiment(task=made, train=train, steps=150, optimizer=adamw(0.01)), device="cpu")
        for _ in training:
            pass
        found[context] = float(dict(evaluate(training, test))["f1"])
    assert found["elman"] > 0.97
    assert found["window"] < 0.8  # a place alone does not say which it is

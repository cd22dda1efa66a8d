"""Parallel translation: losses by the rules in words, what is learned; two good answers get mixed, a teacher's one does not."""

import pytest
import torch
from phrases import learned, network

from thalweg.build import build, load, save
from thalweg.data.pairs import BOS, EOS, PAD, Pairs, Words, frequent
from thalweg.models.sequence.parallel import LengthTransformer, ParallelTransformer
from thalweg.models.sequence.transformer import Transformer
from thalweg.tasks import non_autoregressive
from thalweg.tasks.non_autoregressive import AllAtOnce, MaskPrediction, Refinement, rewritten, unframed
from thalweg.tasks.transduction import Transduction

SOURCE, TARGET = "they are watching .", "ils regardent . va"
PARALLEL = [AllAtOnce, MaskPrediction, Refinement]


def small(make, teacher=False, **arguments):
    sizes = {"source_vocab_size": 8, "target_vocab_size": 8, "embed_dim": 8, "num_layers": 1, "num_heads": 2}
    model = build(LengthTransformer, network=build(ParallelTransformer, **sizes), longest=6)
    known = {"source_words": SOURCE, "target_words": TARGET, "longest": 6}
    judge = {"teacher": build(Transformer, **sizes)} if teacher else {}
    task = build(make, model=model, **known, **judge, **arguments)
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter, std=0.8)
    return task.eval()


def batch(*pairs):
    source, target = Words(SOURCE), Words(TARGET)
    stream = Pairs([source.encode(one) for one, _ in pairs], [target.encode(other) for _, other in pairs], 8)
    return next(iter(stream))


SEEN = batch(("they are watching .", "ils regardent ."), ("watching", "va"))


def said_of(task, row, read):
    """log p of the words at each place of a target that holds `read`, and of the lengths, by the model alone."""
    source, mask = SEEN["source_tokens"][row][None], SEEN["source_mask"][row][None]
    words, length = task.model(source, mask, torch.tensor([read]), torch.ones(1, len(read), dtype=torch.bool))
    return words[0].log_softmax(-1), length[0].log_softmax(-1)


def test_targets_lose_their_begin_and_end():
    words, mask = unframed(SEEN)
    assert [[TARGET.split()[token - 4] for token in row[real]] for row, real in zip(words, mask, strict=True)] == [
        ["ils", "regardent", "."], ["va"]]  # fmt: skip
    assert not words[~mask].any()


def test_all_words_at_once_are_told_from_places_alone():
    task, total = small(AllAtOnce), 0.0
    for row, target in enumerate(([4, 5, 6], [7])):
        words, length = said_of(task, row, [BOS] * len(target))
        total -= sum(words[t, token] for t, token in enumerate(target)) + length[len(target)]
    loss, count = task.loss(SEEN)
    assert int(count) == 4
    torch.testing.assert_close(loss, total)
    task, total = small(AllAtOnce, ends="end"), 0.0
    for row, target in enumerate(([4, 5, 6, EOS, EOS, EOS], [7, EOS, EOS, EOS, EOS, EOS])):
        words, _ = said_of(task, row, [BOS] * 6)
        total -= sum(words[t, token] for t, token in enumerate(target))
    loss, count = task.loss(SEEN)
    assert int(count) == 12
    torch.testing.assert_close(loss, total)
    written = task.write(SEEN["source_tokens"], SEEN["source_mask"])
    for row in range(2):
        words = said_of(task, row, [BOS] * 6)[0].argmax(-1).tolist()
        expected = words[: words.index(EOS)] if EOS in words else words
        assert written[row].tolist() == expected + [PAD] * (6 - len(expected))


def test_hidden_words_are_told_from_the_others(monkeypatch):
    task = small(MaskPrediction)
    hidden = [[False, True, True], [True]]
    monkeypatch.setattr(non_autoregressive, "random_order", lambda mask: torch.tensor([[2, 0, 1], [0, 9, 9]]))
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor([0.5, 0.9]))
    total = 0.0
    for row, (target, hides) in enumerate(zip(([4, 5, 6], [7]), hidden, strict=True)):
        read = [BOS if hide else token for token, hide in zip(target, hides, strict=True)]
        words, length = said_of(task, row, read)
        total -= sum(words[t, token] for t, token in enumerate(target) if hides[t]) + length[len(target)]
    loss, count = task.loss(SEEN)
    assert int(count) == 3
    torch.testing.assert_close(loss, total)


def test_hidden_words_are_a_random_part_of_any_size():
    mask = torch.arange(5) < torch.tensor([[5], [2]])
    orders = [non_autoregressive.random_order(mask) for _ in range(300)]
    assert all(sorted(order[0].tolist()) == [0, 1, 2, 3, 4] and sorted(order[1, :2].tolist()) == [0, 1] for order in orders)
    first = torch.stack([order[0, 0] for order in orders])
    assert (torch.bincount(first, minlength=5) > 30).all()


@pytest.mark.parametrize("make", PARALLEL)
def test_of_several_drafts_the_one_that_the_teacher_prefers_is_taken(make, monkeypatch):
    task, asked = small(make, teacher=True), (SEEN["source_tokens"], SEEN["source_mask"])
    judged = []

    def judge(teacher, source, mask, drafts, **marks):
        judged.append(drafts)
        return torch.tensor([[0.0, 0, 9, 0], [0, 9, 0, 0]])

    monkeypatch.setattr(non_autoregressive, "rescore", judge)
    written = task.write(*asked, drafts=4)
    (drafts,) = judged
    assert torch.equal(written, drafts[[0, 1], [2, 1]])
    lengths = (drafts != PAD).sum(-1)
    assert all(len(set(row)) == 4 and max(row) <= 6 for row in lengths.tolist())
    likeliest = said_of(task, 0, [BOS])[1][1:].argmax() + 1
    assert lengths[0, 0] == likeliest
    task.write(*asked)
    assert len(judged) == 1  # one draft needs no judge


@pytest.mark.parametrize("make", PARALLEL)
def test_a_saved_task_translates_the_same_and_each_text_as_if_it_were_alone(make, tmp_path):
    task = small(make, teacher=True)
    save(task, tmp_path)
    asked = {"text": ["They are watching.", "go"]}
    together = task.predict(asked, drafts=3)
    assert load(tmp_path).predict(asked, drafts=3) == together
    assert task.predict({"text": ["go"]}, drafts=3)["text"][0] == together["text"][1]


def test_a_teacher_does_not_learn():
    task = small(MaskPrediction, teacher=True)
    assert not any(parameter.requires_grad for parameter in task.teacher.parameters())
    assert all(parameter.requires_grad for parameter in task.model.parameters())


def test_an_unknown_end_is_refused():
    with pytest.raises(ValueError, match="ends='never': expected length or end"):
        small(AllAtOnce, ends="never")


def greetings(count, seed):
    """Who thanks whom, and one of two good answers at random, no word of which fits the other: "de rien ami" ..."""
    draw = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(count):
        who = f"n{int(torch.randint(20, (), generator=draw))}"
        first = torch.rand((), generator=draw) < 0.5
        pairs.append((f"thanks {who}", f"merci bien a {who}" if first else f"{who} soit vivement remercie"))
    return pairs


SIZES = {"source_vocab_size": 25, "target_vocab_size": 30, "num_layers": 1}
GREETED, HELD = greetings(1500, 1), greetings(100, 2)
WORDS = {f"{side}_words": frequent((pair[number] for pair in GREETED), 1) for number, side in enumerate(("source", "target"))}


def greeting(make, steps, pairs=GREETED):
    """Metrics, and a task that has learned to answer at once."""
    torch.manual_seed(0)
    model = build(LengthTransformer, network=network(**SIZES), longest=8)
    return learned(build(make, model=model, **WORDS, longest=8), steps, train=pairs, valid=HELD)


def mixed(task, **how):
    """The share of answers that are neither of the two."""
    names = [f"n{number}" for number in range(20)]
    written = task.predict({"text": [f"thanks {who}" for who in names]}, **how)["text"]
    good = [{f"merci bien a {who}", f"{who} soit vivement remercie"} for who in names]
    return sum(text not in answers for text, answers in zip(written, good, strict=True)) / len(names)


def test_two_good_answers_are_mixed_unless_a_teacher_chose_between_them():
    torch.manual_seed(0)
    model = build(Transformer, embed_dim=32, hidden_dim=64, num_heads=4, dropout=0.0, **SIZES)
    _, teacher = learned(build(Transduction, model=model, **WORDS, longest=8), 120, train=GREETED, valid=HELD)
    assert mixed(teacher) == 0  # a word after the other, no answer is mixed
    distilled = rewritten(teacher, GREETED)
    assert sorted(source for source, _ in distilled) == sorted({source for source, _ in GREETED})
    (raw_metrics, raw), (metrics, student) = (greeting(AllAtOnce, 120, pairs) for pairs in (GREETED, distilled))
    assert mixed(raw) > 0.4
    assert mixed(student) < 0.1
    assert metrics["bleu"] > raw_metrics["bleu"] + 0.05


@pytest.mark.parametrize("make", [MaskPrediction, Refinement])
def test_further_passes_choose_between_two_good_answers(make):
    metrics, task = greeting(make, 450)
    assert mixed(task, iterations=1) > mixed(task, iterations=4) + 0.2
    assert metrics["bleu_4"] > metrics["bleu_1"] + 0.03

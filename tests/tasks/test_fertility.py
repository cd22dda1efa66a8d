"""Fertility: the plan is labelled from two sources, learned, drawn several times, and learned again from reward."""

from functools import partial

import pytest
import torch
from phrases import KNOWN, TRAIN, VALID, learned, network, tokens

from thalweg.build import build, load, save
from thalweg.data.alignment import ibm_model_1
from thalweg.data.pairs import PAD
from thalweg.models.sequence.parallel import FertilityTransformer
from thalweg.models.sequence.transformer import Transformer
from thalweg.tasks.fertility import FertilePairs, Fertility, FertilityByReward, looked_at
from thalweg.tasks.non_autoregressive import unframed
from thalweg.tasks.transduction import Transduction

SIZES = {"source_vocab_size": 12, "target_vocab_size": 20, "embed_dim": 32, "hidden_dim": 64, "num_heads": 4, "dropout": 0.0}


def aligned(source, target, batch_size, shuffle=False, wrong=0.0):
    """Batches with the aligner's fertilities, a share of them wrong."""
    places = ibm_model_1(source, [sentence[:-1] for sentence in target])
    random = torch.Generator().manual_seed(0)
    for place, sentence in zip(places, source, strict=True):
        spoilt = torch.rand(place.shape, generator=random) < wrong
        place[spoilt] = torch.randint(len(sentence), (int(spoilt.sum()),), generator=random)
    return FertilePairs(source, target, places, batch_size, shuffle=shuffle)


def small(make=Fertility):
    torch.manual_seed(3)
    task = build(make, model=build(FertilityTransformer, network=network(num_layers=1), largest=3), **KNOWN)
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return task.eval()


def test_the_loss_is_of_the_words_given_the_plan_and_of_the_plan():
    task, pairs = small(), TRAIN[:6]
    batch = next(iter(aligned(*tokens(task, pairs), 6)))
    words, real = unframed(batch)
    assert torch.equal(batch["fertility"].sum(1), real.sum(1))
    total = 0.0
    for row in range(6):
        source, mask = batch["source_tokens"][row], batch["source_mask"][row]
        memory = task.model.network.encode(source[mask][None], mask[mask][None])
        plan = batch["fertility"][row][mask]
        copies = [int(word) for word, times in zip(source[mask], plan, strict=True) for _ in range(times)]
        states = task.model.network.decode(torch.tensor([copies]), torch.ones(1, len(copies), dtype=torch.bool), memory, True)
        said = task.model.network.words(states)[0].log_softmax(-1)
        total -= sum(said[t, word] for t, word in enumerate(words[row][real[row]]))
        said = task.model.fertility(memory.states)[0].log_softmax(-1)
        total -= sum(said[s, min(int(times), 3)] for s, times in enumerate(plan))
    loss, count = task.loss(batch)
    assert count == real.sum()
    torch.testing.assert_close(loss, total, rtol=1e-4, atol=1e-3)


def test_plans_have_a_word_at_least_and_not_more_than_the_longest():
    task = small()
    plans = task.bounded(torch.tensor([[0, 0, 0], [3, 4, 2], [9, 9, 9], [0, 12, 3]]))
    assert plans.tolist() == [[1, 0, 0], [3, 4, 2], [9, 3, 0], [0, 12, 0]]


def test_drafts_are_the_likeliest_plan_and_draws_from_the_model_whatever_stands_beside(tmp_path):
    task = small()
    said = torch.randn(1, 3, 4)
    mask = torch.tensor([[True, True, False]])
    plans = task.planned(said, mask, 4001)
    assert torch.equal(plans[0, 0, :2], said[0, :2].argmax(-1))
    assert not plans[..., 2].any()
    share = torch.stack([torch.bincount(plans[0, 1:, place], minlength=4) for place in (1,)]) / 4000
    torch.testing.assert_close(share[0], said[0, 1].softmax(-1), atol=0.03, rtol=0)
    asked = {"text": ["s1 s2 s3", "s4"]}
    both = task.predict(asked, drafts=5)["text"]
    assert task.predict({"text": ["s4"]}, drafts=5)["text"] == both[1:]
    save(task, tmp_path)
    assert load(tmp_path).predict(asked, drafts=5)["text"] == both


def right(places, task, pairs=TRAIN):
    """The share of sentences all of whose fertilities are the true ones."""
    truth = [[1 + int(word[1:]) % 2 for word in source.split()] + [0] for source, _ in pairs]
    counts = [torch.bincount(row, minlength=len(plan)).tolist() for row, plan in zip(places, truth, strict=True)]
    return sum(count == plan for count, plan in zip(counts, truth, strict=True)) / len(truth)


def test_fertilities_are_known_from_an_aligner_and_from_where_a_teacher_looks_and_more_drafts_are_better():
    torch.manual_seed(0)
    teacher_task = build(Transduction, model=build(Transformer, num_layers=1, **SIZES), **KNOWN)
    metrics, teacher = learned(teacher_task, 200)
    assert metrics["bleu"] > 0.8
    source, target = tokens(teacher, TRAIN)
    words = [sentence[:-1] for sentence in target]
    by_aligner, by_attention = ibm_model_1(source, words), looked_at(teacher.model, source, words)
    assert right(by_aligner, teacher) > 0.75
    assert right(by_attention, teacher) > 0.3
    assert all(len(place) == len(sentence) for place, sentence in zip(by_attention, words, strict=True))
    model = build(FertilityTransformer, network=network())
    metrics, task = learned(build(Fertility, model=model, **KNOWN, teacher=teacher.model), 150,
                            stream=partial(aligned, wrong=0.2))  # fmt: skip
    assert metrics["phrase_bleu"] > 0.8
    assert metrics["bleu_16_drafts"] > metrics["bleu_4_drafts"] > metrics["bleu"]
    # its plans learn more from what they lead to than the aligner, who errs, could tell them
    rewarded = build(FertilityByReward, model=task.model, **KNOWN)
    before = {name: parameter.clone() for name, parameter in rewarded.model.named_parameters()}
    reward = {}
    for steps in (1, 80):
        metrics, _ = learned(rewarded, steps, stream=partial(aligned, wrong=0.2))
        reward[steps] = metrics["reward"]
    assert reward[80] > reward[1] + 0.05
    changed = {name for name, parameter in rewarded.model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {"fertility.weight", "fertility.bias"}


def test_the_gradient_of_the_reward_is_that_of_its_expectation(monkeypatch):
    """Two source words of fertility 0 or 1: four plans, the expected reward of which is a sum."""
    task = small(FertilityByReward)
    task.model.fertility = torch.nn.Linear(32, 2)
    rows = 6000
    source = torch.tensor([[4, 2]]).expand(rows, -1)
    batch = {"source_tokens": source, "source_mask": source != PAD, "target_tokens": torch.tensor([[1, 4, 2]]).expand(rows, -1)}
    worth = torch.tensor([0.1, 0.7, 0.4, 1.0])
    codes = []

    def follow(copies, mask, memory):
        return None, copies

    monkeypatch.setattr(task, "bounded", lambda plan: codes.append(plan[:, 0] * 2 + plan[:, 1]) or plan.clamp(min=1))
    monkeypatch.setattr(task, "follow", follow)
    monkeypatch.setattr(task.judge, "score", lambda *_: next(scores))
    scores = (float(worth[code]) for plan in range(2) for code in codes[plan].tolist())
    loss, count = task.loss(batch)
    found = torch.autograd.grad(loss / count, task.model.fertility.bias)[0]
    said = task.model.fertility(task.model.network.encode(source[:1], source[:1] != PAD).states)[0].softmax(-1)
    expected = sum(worth[2 * i + j] * said[0, i] * said[1, j] for i in range(2) for j in range(2))
    true = torch.autograd.grad(-expected, task.model.fertility.bias)[0]
    assert true.abs().max() > 0.03
    torch.testing.assert_close(found, true, atol=0.02, rtol=0)


@pytest.mark.parametrize("make", [Fertility, FertilityByReward])
def test_valid_pairs_are_measured(make):
    task = small(make)
    task.evaluate(next(iter(aligned(*tokens(task, VALID[:20]), 20))))
    assert all(metric.compute().isfinite() for metric in task.metrics.values())

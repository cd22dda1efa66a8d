"""Learning for a measure that has no gradient: the measure rises."""

import random

import pytest
import torch
from torch.testing import assert_close

from thalweg.build import build
from thalweg.data.pairs import BOS, EOS, PAD, Pairs
from thalweg.decoding.search import sample_targets
from thalweg.metrics import gleu
from thalweg.models.sequence.seq2seq import AttentionSeq2Seq
from thalweg.tasks.minimum_risk import MinimumRisk
from thalweg.tasks.transduction import Transduction
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import adamw

WORDS = "one two three four five six"


def pairs(count: int, seed: int) -> tuple[list, list]:
    """Numbers, and the same the other way round."""
    draw = random.Random(seed)
    rows = [draw.choices(range(4, 10), k=draw.randint(2, 4)) for _ in range(count)]
    return [torch.tensor([*row, EOS]) for row in rows], [torch.tensor([*row[::-1], EOS]) for row in rows]


def test_bleu_rises():
    torch.manual_seed(0)
    model = build(AttentionSeq2Seq, source_vocab_size=10, target_vocab_size=10, embed_dim=16, hidden_dim=32, dropout=0.0)
    train, test = Pairs(*pairs(500, 1), 50, shuffle=True), Pairs(*pairs(150, 2), 150)
    measured = []
    for make, steps, lr, more in ((Transduction, 40, 0.01, {}), (MinimumRisk, 80, 1e-3, {"cross_entropy": 0.0})):
        task = build(make, model=model, source_words=WORDS, target_words=WORDS, longest=8, **more)
        experiment = Experiment(task=task, train=train, steps=steps, optimizer=adamw(lr, weight_decay=0.0))
        training = Training(experiment, device="cpu", precision="fp32")
        for _ in training:
            pass
        measured.append({name: float(value) for name, value in dict(evaluate(training, test)).items() if value.ndim == 0})
    before, after = measured
    assert 0.2 < before["phrase_bleu"] < 0.9
    assert after["phrase_bleu"] > before["phrase_bleu"] + 0.02
    assert after["bleu"] > before["bleu"] + 0.03


def test_its_gradient_is_that_of_the_mean_reward_of_the_distinct_targets_drawn(monkeypatch):
    torch.manual_seed(0)
    model = build(AttentionSeq2Seq, source_vocab_size=10, target_vocab_size=10, embed_dim=4, hidden_dim=4, dropout=0.0).double()
    task = build(MinimumRisk, model=model, source_words=WORDS, target_words=WORDS, cross_entropy=0.0, draws=3).train()
    source, target = torch.tensor([[4, 5, EOS], [6, EOS, PAD]]), torch.tensor([[BOS, 5, 4, EOS], [BOS, 6, EOS, PAD]])
    batch = {"source_tokens": source, "source_mask": source > 0, "target_tokens": target, "target_mask": target > 0}
    drawn = torch.tensor([[5, 4, EOS], [4, EOS, 0], [5, 4, EOS], [6, EOS, 0], [EOS, 0, 0], [7, 7, 7]])  # the third is the first
    monkeypatch.setattr("thalweg.tasks.minimum_risk.sample_targets", lambda *_, **__: drawn)
    task.loss(batch)[0].backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    expected = 0.0
    reward = {0: (1.0, gleu(["one"], ["two", "one"])), 1: (1.0, 0.0, 0.0)}
    for row, places in ((0, (0, 1)), (1, (3, 4, 5))):
        surprise = []
        for place in places:
            words = drawn[place][drawn[place] != PAD]
            read = torch.cat([torch.tensor([BOS]), words[:-1]])
            kept = source[row : row + 1][:, source[row] > 0]
            p = model.eval()(kept, kept > 0, read[None])[0].log_softmax(-1)
            surprise.append(p[torch.arange(len(words)), words].sum())
        q = torch.stack(surprise).softmax(0)
        expected = expected - (q * torch.tensor(reward[row], dtype=torch.double)).sum()
    expected.backward()
    for name, parameter in model.named_parameters():
        assert_close(found[name], parameter.grad, msg=name)
    with pytest.raises(ValueError, match="draws=1: expected at least 2"):
        build(MinimumRisk, model=model, source_words=WORDS, target_words=WORDS, draws=1)


def test_what_is_drawn_is_drawn_from_the_model_and_ends_where_it_ends():
    torch.manual_seed(0)
    model = build(AttentionSeq2Seq, source_vocab_size=6, target_vocab_size=6, embed_dim=4, hidden_dim=4).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    source = torch.tensor([[4, 5, EOS]]).expand(3000, -1)
    drawn = sample_targets(model, source, source > 0, bos=BOS, eos=EOS, pad=PAD, length=3)
    p = model(source[:1], source[:1] > 0, torch.tensor([[BOS]]))[0, 0].softmax(-1)
    share = drawn[:, 0].bincount(minlength=6) / 3000
    assert_close(share.double(), p, rtol=0, atol=0.04)
    for row in drawn.tolist():
        end = row.index(EOS) if EOS in row else len(row)
        assert not any(row[end + 1 :])

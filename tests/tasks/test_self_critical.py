"""Learning for a measure that has no gradient: the measure rises."""

import random

import torch
from torch.testing import assert_close

from thalweg.build import build
from thalweg.data.pairs import BOS, EOS, PAD, Pairs
from thalweg.decoding.search import sample_targets
from thalweg.models.sequence.seq2seq import AttentionSeq2Seq
from thalweg.tasks.self_critical import SelfCritical
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
    for make, steps, lr, more in ((Transduction, 40, 0.01, {}), (SelfCritical, 80, 1e-3, {"cross_entropy": 0.0})):
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

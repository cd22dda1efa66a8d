"""Learning for a measure that has no gradient: an estimate of the right gradient, and a measure that rises."""

import random
from itertools import product

import torch
from torch.testing import assert_close

from thalweg.build import build
from thalweg.data.pairs import BOS, EOS, PAD, Pairs
from thalweg.decoding.search import sample_targets
from thalweg.models.sequence.seq2seq import AttentionSeq2Seq
from thalweg.tasks.self_critical import SelfCritical, praised
from thalweg.tasks.transduction import Transduction
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import adamw


def test_praise_and_blame_is_on_average_the_gradient_of_the_expected_reward():
    """Of all sequences of two tokens: sum_y p(y) grad(- (r(y) - b) log p(y)) = - grad sum_y p(y) r(y), for any b."""
    logits = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)  # [time vocab], whatever came before
    every = list(product(range(1, 5), repeat=2))
    reward, chance = torch.rand(16, dtype=torch.float64), logits.log_softmax(-1)
    log_p = torch.stack([chance[0, first - 1] + chance[1, second - 1] for first, second in every])
    (expected,) = torch.autograd.grad(-(log_p.exp() * reward).sum(), logits, retain_graph=True)
    tokens = torch.tensor(every)
    padded = torch.cat([torch.full((2, 1), -1e9), logits], 1).expand(16, 2, 5)  # token 0 is padding
    for baseline in (0.0, 0.7):
        losses = praised(padded, tokens, reward - baseline)
        (found,) = torch.autograd.grad((log_p.exp().detach() * losses).sum(), logits, retain_graph=True)
        assert_close(found, expected, rtol=1e-4, atol=1e-6)  # a loss is of single precision


def test_padding_is_neither_praised_nor_blamed():
    logits, tokens = torch.randn(1, 4, 5), torch.tensor([[3, 2, 0, 0]])
    by_hand = -0.5 * logits[0].log_softmax(-1)[[0, 1], [3, 2]].sum()
    assert_close(praised(logits, tokens, torch.tensor([0.5])), by_hand[None])


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

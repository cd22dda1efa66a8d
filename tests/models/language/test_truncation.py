"""Truncated backpropagation through time: what it saves, and what it costs."""

import pytest
import torch

from thalweg.build import build
from thalweg.data.text import Partition
from thalweg.models.language.recurrent import RecurrentLanguageModel
from thalweg.tasks.language_modelling import LanguageModelling
from thalweg.training import Experiment
from thalweg.training.loop import Training, evaluate
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import linear

TEXT = torch.tensor([0, 1, 0, 2, 3, 1, 3, 4, 2, 2]).repeat(400)


def held(context: int, time: int) -> int:
    """Numbers kept for the gradient, at most at once, while a text of that length is learned in pieces of `context`."""
    model, most = RecurrentLanguageModel(5, hidden_dim=8), 0
    cache = model.new_cache(1, time)
    for start in range(0, time, context):
        kept = []
        cache[:] = [part.detach() for part in cache]
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x.numel()) or x, lambda x: x):
            loss = model(TEXT[None, start : start + context], cache).square().sum()
        loss.backward()
        most = max(most, sum(kept))
    return most


def test_memory_is_bounded_by_the_window_however_long_the_text():
    assert held(20, 40) == held(20, 400)
    assert held(400, 400) > 8 * held(20, 400)


def perplexity(context: int, steps: int) -> float:
    torch.manual_seed(0)
    model = build(RecurrentLanguageModel, vocab_size=5, hidden_dim=16)
    task = build(LanguageModelling, model=model, alphabet="abcde", context=64, rows=8)
    noisy = torch.where(torch.rand(len(TEXT)) < 0.1, torch.randint(5, TEXT.shape), TEXT)
    training = Training(Experiment(task=task, train=Partition(noisy[:3000], context, 8, shuffle=True), steps=steps, clip=1.0,
                                   optimizer=adamw(0.02), schedule=linear()), device="cpu")  # fmt: skip
    for _ in training:
        pass
    return float(dict(evaluate(training, Partition(noisy[3000:], 200, 1)))["perplexity"])


def test_what_is_learned_in_short_pieces_is_nearly_as_good_as_in_long_ones():
    short, long = perplexity(16, 240), perplexity(128, 240)
    assert long < 3
    assert short == pytest.approx(long, rel=0.1)

"""A cache of what was read: its probability against the definition, word by word, and what it gains where words come again."""

import math

import pytest
import torch

from thalweg.build import build
from thalweg.data.text import Windows
from thalweg.metrics import CachedPerplexity
from thalweg.models.language.rotary_gpt import RotaryGPT
from thalweg.models.language.sampled import Sampled
from thalweg.tasks.continuous_cache import ContinuousCache


def by_definition(log_p, states, tokens, size, theta, share):
    total = 0.0
    for t in range(len(tokens)):
        p = math.exp(log_p[t])
        if t:
            read = range(max(0, t - size), t)
            closeness = [math.exp(theta * float(states[i] @ states[t])) for i in read]
            again = sum(one for i, one in zip(read, closeness, strict=True) if tokens[i] == tokens[t]) / sum(closeness)
            p = (1 - share) * p + share * again
        total -= math.log(p)
    return math.exp(total / len(tokens))


def test_it_is_the_mixture_of_the_model_and_of_what_was_read_in_whatever_pieces():
    torch.manual_seed(0)
    log_p, states, tokens = torch.rand(23).log(), torch.randn(23, 4), torch.randint(3, (23,))
    for cuts in ([23], [10, 13], [1, 1, 20, 1]):
        metric = CachedPerplexity(size=7, theta=0.3, share=0.25)
        for part in zip(*(x.split(cuts) for x in (log_p, states, tokens)), strict=True):
            metric.update(*part)
        expected = by_definition(log_p.tolist(), states, tokens.tolist(), 7, 0.3, 0.25)
        assert float(metric.compute()) == pytest.approx(expected, rel=1e-5)
    metric.reset()
    metric.update(log_p[:1], states[:1], tokens[:1])  # nothing was read
    assert float(metric.compute()) == pytest.approx(math.exp(-float(log_p[0])), rel=1e-5)


def test_without_a_share_it_is_the_perplexity_and_bad_arguments_are_named():
    metric, log_p = CachedPerplexity(share=0.0), torch.rand(9).log()
    metric.update(log_p, torch.randn(9, 2), torch.randint(3, (9,)))
    assert float(metric.compute()) == pytest.approx(math.exp(-float(log_p.mean())), rel=1e-5)
    with pytest.raises(ValueError, match=r"size=0, share=2\.0: expected at least 1, and 0 to 1"):
        CachedPerplexity(size=0, share=2.0)


def test_windows_are_read_in_order_and_each_word_counts_once():
    torch.manual_seed(0)
    words = " ".join(["<unk>", *(f"w{n}" for n in range(49))])
    network = build(RotaryGPT, vocab_size=50, embed_dim=16, num_layers=1, num_heads=2, tied=True)
    model = build(Sampled, network=network, counts=[1] * 50, samples=20)
    task = build(ContinuousCache, model=model, alphabet=words, context=8).eval()
    text = torch.cat([torch.randperm(50)[:10].repeat(4), torch.randperm(50)[:10].repeat(4)])  # words that come again
    for batch_size in (3, 100):
        task.metrics.reset()
        stream = Windows(text, 8, batch_size, stride=4)
        with torch.inference_mode():
            for number in range(len(stream)):
                task.evaluate(stream.batch(number))
        found = {name: float(value) for name, value in task.metrics.compute().items()}
        with torch.inference_mode():
            mean = torch.cat(
                [task.surprise(stream.batch(n)["tokens"])[stream.batch(n)["mask"][:, 1:]] for n in range(len(stream))]
            )
        assert len(mean) == len(text) - 1
        assert found["perplexity"] == pytest.approx(float(mean.mean().exp()), rel=1e-4)
        assert found["cached_perplexity"] < 0.7 * found["perplexity"]  # a model that has learned nothing gains much

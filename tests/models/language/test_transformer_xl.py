"""Transformer-XL: its attention against the formula, reading by segments, and what a memory is worth."""

from math import sqrt

import checks
import pytest
import torch
from definitions import EXACT, equal_with_gradients
from torch.testing import assert_close

from thalweg.build import build
from thalweg.data.sources import time_machine
from thalweg.data.text import Characters, Partition
from thalweg.layers.position import sinusoidal
from thalweg.models.language.transformer_xl import Attention, TransformerXL
from thalweg.tasks.memory_lengths import MemoryLengths
from thalweg.training import Experiment
from thalweg.training.loop import Training, evaluate
from thalweg.training.optimisers import adamw


def ordinary(model):
    """Numbers of order one, so that nothing hides behind biases that start at zero."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model.double().eval()


def test_every_pair_of_places_is_scored_by_content_and_distance_with_a_bias_for_each():
    layer = ordinary(Attention(6, 2))
    read = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    x, codes, real = read[:, 2:], sinusoidal(0, 5, 6, read), torch.tensor([[False, True, True, True, True], [True] * 5])
    weight = {name: getattr(layer, name).weight.unflatten(0, (2, 3)) for name in ("query", "key", "value", "distance")}
    rows = []
    for b in range(2):
        for t in range(3):
            heads = []
            for h in range(2):
                q = weight["query"][h] @ x[b, t]
                u, v = layer.content_bias[h, 0], layer.distance_bias[h, 0]
                scores, values = [], []
                for s in range(t + 3):
                    if real[b, s]:
                        k, r = weight["key"][h] @ read[b, s], weight["distance"][h] @ codes[t + 2 - s]
                        scores.append(((q + u) @ k + (q + v) @ r) / sqrt(3))
                        values.append(weight["value"][h] @ read[b, s])
                heads.append(torch.stack(scores).softmax(0) @ torch.stack(values))
            rows.append(layer.output.weight @ torch.cat(heads))
    ours = layer(x, read, codes.flip(0), real)
    equal_with_gradients(ours, torch.stack(rows).view(2, 3, 6), [read, *layer.parameters()])


def test_read_in_segments_that_are_remembered_a_text_is_read_as_at_once():
    model = ordinary(TransformerXL(7, embed_dim=8, num_layers=3, num_heads=2, memory=4))
    tokens = torch.randint(7, (2, 12))
    whole, cache = model(tokens), model.new_cache(2, 12)
    pieces = [model(part, cache) for part in tokens.split([5, 1, 1, 3, 2], 1)]
    assert_close(torch.cat(pieces, 1), whole, **EXACT)
    assert (cache[1] == 12).all()


def test_with_a_short_memory_each_layer_reads_that_much_further_back_and_no_more():
    model = ordinary(TransformerXL(7, embed_dim=8, num_layers=2, num_heads=2, memory=3))
    tokens = torch.randint(7, (1, 12))
    told = []
    for changed in (0, 2, 3):
        other = tokens.clone()
        other[0, changed] = (other[0, changed] + 1) % 7
        last = []
        for text in (tokens, other):
            cache = model.new_cache(1, 1)
            last = [*last, [model(part, cache) for part in text.split(3, 1)][-1]]
        told.append(not torch.equal(*last))
    assert told == [False, False, True]  # the segment from place 9 on reads 3 places further back in each of two layers
    cache = model.new_cache(1, 1, memory=0)
    assert_close([model(part, cache) for part in tokens.split(3, 1)][-1], model(tokens[:, 9:]), **EXACT)


def test_no_gradient_goes_back_into_the_memory():
    model = ordinary(TransformerXL(7, embed_dim=8, num_layers=2, num_heads=2, memory=3))
    cache = model.new_cache(1, 3)
    model(torch.tensor([[1, 2, 3]]), cache)
    assert not any(part.requires_grad for part in cache)
    model(torch.tensor([[4, 5]]), cache).sum().backward()
    assert all(parameter.grad.any() for parameter in model.parameters())
    with pytest.raises(ValueError, match="embed_dim=8: expected a multiple of num_heads=3"):
        TransformerXL(7, embed_dim=8, num_heads=3)


def test_a_longer_memory_lowers_the_perplexity_of_a_real_text(data_folder):
    torch.manual_seed(0)
    text = time_machine()[:60_000]
    alphabet = "".join(sorted(set(text)))
    tokens = Characters(alphabet).encode(text)
    model = build(TransformerXL, vocab_size=len(alphabet), embed_dim=48, num_layers=2, num_heads=2, memory=16)
    task = build(MemoryLengths, model=model, alphabet=alphabet, context=24, rows=32, memories=[0, 4, 16])
    train, valid = Partition(tokens[:50_000], 4, 32, shuffle=True), Partition(tokens[50_000:], 4, 32)
    training = Training(Experiment(task=task, train=train, steps=200, optimizer=adamw(5e-3), clip=1.0), device="cpu")
    for _ in training:
        pass
    found = dict(evaluate(training, valid))
    assert found["perplexity_0"] > 1.1 * found["perplexity_4"] > 1.1 * found["perplexity_16"]
    assert found["perplexity"] == found["perplexity_16"]
    assert "memory" in task.figures(next(iter(valid)))
    assert len(task.predict({"text": ["the time"]}, length=40)["text"][0]) == 48
    checks.reads_backwards_only(model.eval(), torch.randint(len(alphabet), (2, 9)))

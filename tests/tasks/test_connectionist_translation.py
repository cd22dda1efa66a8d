"""CTC-based translation: the loss is a sum over paths, which collapse to what is written."""

import itertools
from math import exp, log

import pytest
import torch
from phrases import KNOWN, learned, network

from thalweg.build import build
from thalweg.data.pairs import Pairs
from thalweg.decoding.parallel import collapse
from thalweg.tasks.connectionist_translation import ConnectionistTranslation


def collapsed(path):
    return [word for word, _ in itertools.groupby(path) if word]


def test_paths_collapse_to_one_of_equal_neighbours_and_no_blanks():
    paths = torch.tensor([[5, 5, 0, 5, 6, 6], [0, 0, 0, 0, 0, 0], [4, 0, 0, 4, 4, 7]])
    mask = torch.arange(6) < torch.tensor([[6], [6], [5]])
    found = collapse(paths, mask, blank=0, pad=0)
    for row, path, real in zip(found, paths, mask, strict=True):
        expected = collapsed(path[real].tolist())
        assert row.tolist() == expected + [0] * (found.shape[1] - len(expected))


def test_the_loss_is_a_sum_over_all_paths_that_collapse_to_the_target():
    small = {"source_vocab_size": 6, "target_vocab_size": 6, "embed_dim": 8, "hidden_dim": 8, "num_layers": 1, "num_heads": 2}
    task = build(ConnectionistTranslation, model=network(**small), source_words="a b", target_words="x y", longest=6, copies=2)
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    task.eval()
    sources, targets = [torch.tensor(row) for row in ([4, 2], [5, 4, 2])], [torch.tensor(row) for row in ([5, 2], [4, 4, 2])]
    batch = next(iter(Pairs(sources, targets, 2)))
    said, mask = task.said(batch["source_tokens"], batch["source_mask"])
    assert mask.sum(1).tolist() == [4, 6]
    total = 0.0
    for row, real, target in zip(said, mask, targets, strict=True):
        places = row[real].tolist()
        paths = (path for path in itertools.product((0, 4, 5), repeat=len(places)) if collapsed(path) == target[:-1].tolist())
        total -= log(sum(exp(sum(place[word] for place, word in zip(places, path, strict=True))) for path in paths))
    loss, count = task.loss(batch)
    assert int(count) == 3
    assert loss.item() == pytest.approx(total, rel=1e-4)


def test_phrases_are_learned():
    torch.manual_seed(0)
    metrics, task = learned(build(ConnectionistTranslation, model=network(), **KNOWN), 200)
    assert metrics["bleu"] > 0.8
    assert task.predict({"text": ["s2 s1", "s5"]})["text"] == ["t2 t1 u1", "t5 u5"]


def test_no_copies_are_refused():
    with pytest.raises(ValueError, match="copies=0"):
        ConnectionistTranslation(network(), **KNOWN, copies=0)

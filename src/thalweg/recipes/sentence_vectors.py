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
from thalweg.data.wordpieces import WordPieces, learn_wordpieces
from thalweg.models.sequence.skip_thought import SkipThought
from thalweg.tasks.sentence_vectors import SentenceVectors
from thalweg.tasks.skip_thoughts import SkipThoughts
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import linear, warmup


def _neighbours(paragraphs: Sequence[str]) -> list[Pair]:
    """Every sentence and the next one of its paragraph."""
    texts = [sentences(paragraph) for paragraph in paragraphs]
    return [pair for text in texts for pair in pairwise(text)]


def _side_by_side(part: Sequence[Sequence[str]], names: Sequence[str], tokenizer: str, longest: int, batch_size: int,
                  shuffle: bool) -> Padded:  # fmt: skip
    """Batches of texts that belong together, the tokens of each under a name of its own."""
    pieces = WordPieces(tokenizer)
    ragged = {name: [torch.tensor(one.ids) for one in pieces.encode([texts[side] for texts in part], longest=longest)]
              for side, name in enumerate(names)}  # fmt: skip
    return Padded(ragged, {}, batch_size, padding=pieces.pad, shuffle=shuffle)


def _counted(parts: Sequence[Sequence[object]]) -> str:
    return ", ".join(f"{name} {len(part):,}" for name, part in zip(("train", "valid", "test"), parts, strict=True))


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

    def stream(part: Sequence[Pair], batch_size: int, shuffle: bool = False) -> Padded:
        return _side_by_side(part, ("first_tokens", "second_tokens"), tokenizer, longest, batch_size, shuffle)

    task = build(SentenceVectors, model=encoder, tokenizer=tokenizer, longest=longest)
    encoder.pooler.requires_grad_(False)  # it has no say
    notes = {"pairs": _counted(parts),
             "encoder": f"{sum(p.numel() for p in encoder.parameters()):,} parameters"}  # fmt: skip
    return Experiment(task=task, train=stream(parts[0], batch_size, shuffle=True), valid=stream(parts[1], 250),
                      test=stream(parts[2], 250), steps=updates, clip=1.0, monitor="mrr",
                      optimizer=adamw(lr if not pretrained else 0.05 * lr, weight_decay=0.01),
                      schedule=warmup(0.1, linear()), evaluate_every=max(1, updates // 5), notes=notes)  # fmt: skip


def skip_thought_wikitext2(
    *,
    updates: int = 2000,
    batch_size: int = 32,
    longest: int = 32,
    vocab_size: int = 3000,
    embed_dim: int = 128,
    hidden_dim: int = 256,
    lr: float = 2e-3,
    limit: int | None = None,
    measured: int = 1000,
) -> Experiment:
    """A sentence of Wikipedia becomes a vector, from which the sentence before and the one after are written.   LEE BERT

    longest: word pieces of a sentence that are read or written
    limit: sentences with both neighbours to learn from; if not given, all
    measured: such sentences for validation, and for tests: the next one is looked for among those that follow them
    """
    texts = [[sentences(paragraph) for paragraph in part] for part in wikitext2()]
    parts = [[three for text in part for three in zip(text, text[1:], text[2:], strict=False)] for part in texts]
    parts = [parts[0][:limit], parts[1][:measured], parts[2][:measured]]
    tokenizer = learn_wordpieces([middle for _, middle, _ in parts[0]], vocab_size)

    def stream(part: list[tuple[str, str, str]], batch_size: int, shuffle: bool = False) -> Padded:
        return _side_by_side(part, ("before_tokens", "tokens", "after_tokens"), tokenizer, longest, batch_size, shuffle)

    model = build(SkipThought, vocab_size=len(WordPieces(tokenizer)), embed_dim=embed_dim, hidden_dim=hidden_dim)
    task = build(SkipThoughts, model=model, tokenizer=tokenizer, longest=longest)
    chance = sum(1 / rank for rank in range(1, measured + 1)) / measured
    notes = {"sentences between two others": _counted(parts),
             "by chance": f"mrr {chance:.4f}, recall_at_1 {1 / measured:.4f}, among {measured}",
             "training": f"{sum(p.numel() for p in model.parameters()):,} parameters"}  # fmt: skip
    return Experiment(task=task, train=stream(parts[0], batch_size, shuffle=True), valid=stream(parts[1], 100),
                      test=stream(parts[2], 100), steps=updates, clip=1.0, monitor="loss", optimizer=adamw(lr),
                      schedule=warmup(0.1, linear()), evaluate_every=max(1, updates // 5), notes=notes)  # fmt: skip

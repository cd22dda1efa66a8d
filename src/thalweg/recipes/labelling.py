"""Recipes that label the words of sentences."""

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from thalweg.adaptation.vectors import start_from
from thalweg.build import build, load
from thalweg.data.labelled import (
    Labelled,
    LabelledSentences,
    Letters,
    by_lexicon,
    english_web_treebank,
    journeys,
    own_sentences,
    wnut17,
)
from thalweg.data.pairs import RESERVED, UNK
from thalweg.data.streams import Padded
from thalweg.data.word_vectors import read_vectors
from thalweg.metrics import of_names
from thalweg.models.language.elmo import ELMo
from thalweg.models.sequence.tagger import Tagger
from thalweg.recipes._fine_tuning import labelling, translating
from thalweg.tasks.both_ways import BothWays
from thalweg.tasks.labelling import Labelling
from thalweg.tasks.transduction import Transduction
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import linear, warmup

MOST = 50_000  # of the words of a file of vectors: the most frequent


def _read(run: Path, words: list[str]) -> tuple[str, nn.Module]:
    """The words that are known and what is read of them: by both ways of a language model, or by who translates (CoVe)."""
    before: Any = load(run / "model")
    if isinstance(before, BothWays):
        return " ".join(before.words.words[4:]), before.model
    if not isinstance(before, Transduction):
        raise ValueError(f"encoder={run}: a run of {type(before).__name__}, expected one of elmo-ewt or seq2seq-tatoeba")
    return translating(run, words)


def _labelling(sentences: Labelled, monitor: str, *, objective: str, context: str, window: int, epochs: float,
               batch_size: int, lr: float, unknown: float = 0.0, encoder: Path | None = None,
               vectors: Path | None = None) -> Experiment:  # fmt: skip
    """A tagger learns labelled sentences; words that occur once are unknown, so that it learns what to make of such."""
    counts = Counter(word.lower() for sentence in sentences.train for word in sentence.words)
    vector = dict(zip(*read_vectors(vectors, MOST), strict=True)) if vectors else {}
    often = {word for word in [*(word for word in counts if counts[word] > 1), *vector]
             if word.split() == [word] and word not in RESERVED}  # fmt: skip
    known, reading = _read(encoder, sorted(often)) if encoder else (" ".join(sorted(often)), None)
    alphabet = "".join(sorted({letter for sentence in sentences.train for word in sentence.words for letter in word}))
    reader = Letters(known, alphabet)
    model = build(Tagger, vocab_size=len(reader.words), num_letters=2 + len(alphabet), num_labels=len(sentences.classes),
                  context=context, window=window, unknown=unknown, **({"encoder": reading} if reading else {}),
                  **({"embed_dim": len(next(iter(vector.values())))} if vectors else {}))  # fmt: skip
    if vectors:
        start_from([model.embedding], reader.words.words, vector)
    task = build(Labelling, model=model, classes=sentences.classes, words=known, alphabet=alphabet, objective=objective)
    train = LabelledSentences(sentences.train, reader, sentences.classes, batch_size, shuffle=True)
    valid, test = (LabelledSentences(part, reader, sentences.classes, 100) for part in (sentences.valid, sentences.test))
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in sentences.left_out.items())
    usual = by_lexicon(sentences.train, sentences.valid)
    right = [one == other for said, sentence in zip(usual, sentences.valid, strict=True)
             for one, other in zip(said, sentence.labels, strict=True)]  # fmt: skip
    notes = {
        "sentences": f"train {train.size:,}, valid {valid.size:,}, test {test.size:,}, of "
                     f"{len(sentences.classes)} labels",
        "words": f"{len(reader.words):,} are known, those that occur twice{' or have a vector' if vectors else ''}",
        "the label that each word most often has": f"is right for {100 * sum(right) / len(right):.2f} % of validation words",
        "left out": left_out or "nothing",
    }  # fmt: skip
    return Experiment(task=task, train=train, valid=valid, test=test, epochs=epochs, optimizer=adamw(lr, weight_decay=1e-2),
                      schedule=warmup(0.05, linear()), clip=1.0, ema=0.998, monitor=monitor, notes=notes)  # fmt: skip


def tagger_ewt(
    *,
    objective: Literal["independent", "crf", "perceptron", "svm"] = "crf",
    context: Literal["both", "before", "elman", "attention", "window"] = "both",
    window: int = 2,
    epochs: float = 12,
    batch_size: int = 32,
    lr: float = 3e-3,
    unknown: float = 0.1,
    examples: int | None = None,
    encoder: Path | None = None,
) -> Experiment:
    """A network says which part of speech every word of an English sentence is.   D2L 15.6, LEE: Deep & Structured

    objective: what is learned, see `Labelling`.   context, unknown: what it sees of the sentence, and how, see `Tagger`.
    examples: labelled sentences that are learned from, if not all
    encoder: a run of elmo-ewt or of seq2seq-tatoeba, of which the layers, or what its encoder makes of words, are read too
    """
    sentences = english_web_treebank()
    sentences = sentences._replace(train=sentences.train[:examples])
    return _labelling(sentences, "accuracy", objective=objective, context=context, window=window, epochs=epochs,
                      batch_size=batch_size, lr=lr, unknown=unknown, encoder=encoder)  # fmt: skip


def elmo_ewt(*, epochs: float = 8, batch_size: int = 32, embed_dim: int = 100, hidden_dim: int = 400, dropout: float = 0.3,
             lr: float = 3e-3) -> Experiment:  # fmt: skip
    """A language model reads English sentences both ways, for taggers of few of them to build on.   D2L 14.8, LEE: ELMo

    Measured on the first 500 sentences for validation, and for tests.
    """
    sentences = english_web_treebank()
    counts = Counter(word.lower() for sentence in sentences.train for word in sentence.words)
    known = " ".join(sorted(word for word in counts if counts[word] > 1))
    model = build(ELMo, vocab_size=4 + len(known.split()), embed_dim=embed_dim, hidden_dim=hidden_dim, dropout=dropout)
    task = build(BothWays, model=model, words=known)
    parts = (sentences.train, sentences.valid[:500], sentences.test[:500])
    train, valid, test = ({"tokens": [torch.tensor([task.words.number.get(word.lower(), UNK) for word in one.words])
                                      for one in part if len(one.words) > 1]} for part in parts)  # fmt: skip
    return Experiment(task=task, train=Padded(train, {}, batch_size, shuffle=True), valid=Padded(valid, {}, 100),
                      test=Padded(test, {}, 100), epochs=epochs, optimizer=adamw(lr, weight_decay=1e-2),
                      schedule=warmup(0.05, linear()), clip=1.0, monitor="loss")  # fmt: skip


def names_wnut17(
    *,
    objective: Literal["independent", "crf", "perceptron", "svm"] = "crf",
    context: Literal["both", "before", "elman", "attention", "window"] = "both",
    window: int = 2,
    epochs: float = 15,
    batch_size: int = 16,
    lr: float = 3e-3,
    unknown: float = 0.1,
    vectors: Path | None = None,
) -> Experiment:
    """A network finds the names of persons, places, groups and things in messages.   D2L 9.4, LEE: Deep & Structured

    objective: what is learned, see `Labelling`.   context, unknown: what it sees of the sentence, and how, see `Tagger`.
    vectors: file of word vectors, of the words to start from; of its first 50,000
    """
    return _labelling(wnut17(), "f1", objective=objective, context=context, window=window, epochs=epochs,
                      batch_size=batch_size, lr=lr, unknown=unknown, vectors=vectors)  # fmt: skip


def tagger(
    *,
    data: Path,
    objective: Literal["independent", "crf", "perceptron", "svm"] = "crf",
    context: Literal["both", "before", "elman", "attention", "window"] = "both",
    pretrained: str | None = None,
    epochs: float | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
) -> Experiment:
    """A network learns to label the words of your sentences: parts of speech, names or whatever they are.   D2L 15.6

    data: FILE.conllu, or any file with a word a line, its label last, and an empty line between sentences
    objective: independent labels, or a chain of them by crf, perceptron or svm
    context: both (LSTMs), before (an LSTM), elman, attention or window
    pretrained: folder or hub id of a trained BERT, or a run of ours, which is fine-tuned in the room of a tagger of words
    epochs: passes over the training sentences; if not given, by their number
    batch_size: sentences a step; if not given, by their number
    lr: the largest learning rate; if not given, 0.003, or 0.001 of what is above a pre-trained encoder
    """
    if pretrained and context != "both":
        raise ValueError(f"context={context}: an encoder sees whole sentences; expected both beside pretrained")
    sentences = own_sentences(data)
    count = len(sentences.train)
    monitor = "f1" if of_names(sentences.classes) else "accuracy"
    batch_size = batch_size or min(32, max(4, count // 40))
    if pretrained:
        return labelling(sentences, monitor, pretrained, frozen=False, weighted=False, objective=objective,
                         epochs=epochs or round(min(20, max(3, 20_000 / count))), batch_size=batch_size, lr=lr or 1e-3,
                         backbone=0.1)  # fmt: skip
    return _labelling(sentences, monitor, objective=objective, context=context, window=2,
                      epochs=epochs or round(min(40, max(8, 60_000 / count))), batch_size=batch_size, lr=lr or 3e-3,
                      unknown=0.1)  # fmt: skip


def slot_filling(
    *,
    objective: Literal["independent", "crf", "perceptron", "svm"] = "independent",
    context: Literal["both", "before", "elman", "attention", "window"] = "elman",
    window: int = 2,
    epochs: float = 5,
    batch_size: int = 32,
    lr: float = 3e-3,
) -> Experiment:
    """A plain recurrent network hears where and when somebody travels: "arrive taipei on may 2nd".   LEE RNN

    A place is a destination or an origin by what was said before it.   objective, context: see `Labelling` and `Tagger`.
    """
    return _labelling(journeys(), "f1", objective=objective, context=context, window=window, epochs=epochs,
                      batch_size=batch_size, lr=lr)  # fmt: skip

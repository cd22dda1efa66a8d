"""Recipes that say what a text is about, or how it is meant."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from thalweg.adaptation.vectors import start_from
from thalweg.build import build
from thalweg.data.classified import ClassifiedTexts, Text, imdb, movie_reviews, own_texts, sst2
from thalweg.data.inference import RELATIONS, snli
from thalweg.data.judged import by_number
from thalweg.data.pairs import Words, frequent
from thalweg.data.streams import Padded
from thalweg.data.subwords import Subwords, learn_subwords
from thalweg.data.word_vectors import read_vectors
from thalweg.models.language.birnn import BiRNN
from thalweg.models.language.decomposable_attention import DecomposableAttention
from thalweg.models.language.textcnn import TextCNN
from thalweg.models.language.word_counts import WordCounts
from thalweg.models.sequence.long_reader import LongReader
from thalweg.recipes._fine_tuning import few, judging, translating
from thalweg.tasks.entailment import Entailment
from thalweg.tasks.text_classification import TextClassification
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import linear, warmup

CORPORA = {"sst2": sst2, "mr": movie_reviews, "imdb": imdb}
RATES = {"textcnn": 1e-3, "birnn": 2e-3, "transformer": 1e-3, "counts": 5e-3}


def _model(model: str, vocab_size: int, num_classes: int, embed_dim: int, longest: int, dropout: float,
           static: bool = False, encoder: nn.Module | None = None) -> nn.Module:  # fmt: skip
    """A classifier of texts by its name on the command line.   static: of a textCNN, an embedding beside that does not learn"""
    sizes = {"vocab_size": vocab_size, "num_classes": num_classes}
    match model:
        case "textcnn":
            return build(TextCNN, **sizes, embed_dim=embed_dim, dropout=dropout, static=static)
        case "birnn":
            more = {"encoder": encoder} if encoder is not None else {}
            return build(BiRNN, **sizes, embed_dim=embed_dim, dropout=dropout, **more)
        case "transformer":
            return build(LongReader, **sizes, context=longest, embed_dim=embed_dim, num_heads=4)
    return build(WordCounts, **sizes)


def _known(texts: Sequence[str], least: int, vectors: Path | None) -> tuple[str, dict[str, Tensor], str]:
    """The words that occur at least so often, or have a vector; the vectors; and what to say of both."""
    words = frequent(texts, least)
    told = f"{len(words.split()):,}, those that occur at least {least} times"
    if vectors is None:
        return words, {}, told
    vector = dict(zip(*read_vectors(vectors), strict=True))
    often = {*words.split()}
    words = " ".join(word for word in frequent(texts, 1).split() if word in often or word in vector)
    if not any(word in vector for word in words.split()):
        raise ValueError(f"vectors={vectors}: none of the words of these texts has one")
    told += f", or have a vector; {sum(word in vector for word in words.split()):,} of {len(words.split()):,} have one"
    return words, vector, told


def _experiment(texts: ClassifiedTexts, task: TextClassification, epochs: float, batch_size: int, lr: float,
                notes: dict[str, str]) -> Experiment:  # fmt: skip
    """The task learns the texts."""

    def stream(part: Sequence[Text], batch_size: int, shuffle: bool = False) -> Padded:
        label = torch.tensor([task.classes.index(one.label) for one in part])
        return Padded({"tokens": task.encode([one.text for one in part])}, {"label": label}, batch_size, shuffle=shuffle)

    train = stream(texts.train, batch_size, shuffle=True)
    counts = Counter(one.label for one in texts.train)
    notes = {
        "texts": f"train {len(texts.train):,}, valid {len(texts.valid):,}, test {len(texts.test):,}, of {len(counts)} classes; "
                 f"{min(counts.values()):,} to {max(counts.values()):,} of each are trained on",
        **notes,
        "training": f"{type(task.model).__name__} of {sum(p.numel() for p in task.model.parameters()):,} parameters, "
                    f"{epochs:g} epochs of {len(train)} batches of {batch_size}, AdamW at {lr:g}",
        **({"left out or doubtful": "; ".join(texts.faults.lines())} if texts.faults else {}),
    }  # fmt: skip
    valid, test = (stream(part, 250) if part else None for part in (texts.valid, texts.test))
    return Experiment(task=task, train=train, valid=valid, test=test, epochs=epochs, optimizer=adamw(lr, weight_decay=1e-2),
                      schedule=warmup(0.1, linear()), clip=1.0, ema=0.99, monitor="accuracy", notes=notes)  # fmt: skip


def sentiment(
    *,
    model: Literal["textcnn", "birnn", "transformer", "counts"] = "textcnn",
    corpus: Literal["sst2", "mr", "imdb"] = "sst2",
    epochs: float = 10,
    batch_size: int = 50,
    lr: float | None = None,
    embed_dim: int = 100,
    dropout: float = 0.5,
    unknown: float = 0.1,
    least: int = 2,
    longest: int = 400,
    vectors: Path | None = None,
    encoder: Path | None = None,
    labelled: int | None = None,
) -> Experiment:
    """A network says whether a film review is positive or negative.   D2L 15.1-15.3

    model: textcnn, birnn (LSTM both ways), transformer, or counts, softmax regression on how often each word occurs.
    corpus: sentences of SST-2 or MR, or whole reviews of IMDB.   lr: if not given, by the model.
    unknown: share of the words that are hidden in training.   least: occurrences that make a word known.
    longest: words of a review that are read.
    vectors: file or folder of word vectors to start from, such as GloVe's; words that occur once are known too where they have
    one, and a textCNN reads them by a second embedding too that stays as it is. Their size is embed_dim.
    encoder: a run of seq2seq-tatoeba; what its encoder makes of words is read by a birnn too (CoVe)
    labelled: reviews to learn from; if not given, all
    """
    if vectors and model == "counts":
        raise ValueError(f"vectors={vectors}: counts of words have none; expected another model")
    if encoder and (vectors or model != "birnn"):
        raise ValueError(f"encoder={encoder}: expected model=birnn and no vectors")
    texts, vector, reading = CORPORA[corpus](), dict[str, Tensor](), None
    texts = replace(texts, train=few(texts.train, labelled))
    if encoder:
        words, reading = translating(encoder, frequent([one.text for one in texts.train], least).split())
        told = f"{len(words.split()):,}, those that {encoder} translates or that occur at least {least} times"
    else:
        words, vector, told = _known([one.text for one in texts.train], least, vectors)
    if vector:
        embed_dim = len(next(iter(vector.values())))
    network = _model(
        model, 4 + len(words.split()), len(texts.classes), embed_dim, longest, dropout, static=bool(vectors), encoder=reading
    )
    task = build(TextClassification, model=network, classes=texts.classes, words=words, longest=longest, unknown=unknown)
    if vector:
        tables = (getattr(network, name, None) for name in ("embedding", "static_embedding"))
        start_from([table for table in tables if isinstance(table, nn.Embedding)], Words(words).words, vector)
    return _experiment(texts, task, epochs, batch_size, lr or RATES[model], {"words": told})


def decomposable_attention_snli(
    *,
    epochs: float = 20,
    batch_size: int = 64,
    lr: float = 1e-3,
    embed_dim: int = 100,
    hidden_dim: int = 200,
    dropout: float = 0.2,
    least: int = 2,
    vectors: Path | None = None,
) -> Experiment:
    """A network aligns the words of two sentences and says whether the second follows from the first.   D2L 15.4-15.5

    Beside it learns, and is measured, who reads the second sentence alone, by its words: hypothesis_only.
    least: occurrences that make a word known.   vectors: file or folder of word vectors to start from; their size is embed_dim.
    """
    pairs = snli()
    words, vector, told = _known([text for one in pairs.train for text in (one.text, one.second or "")], least, vectors)
    if vector:
        embed_dim = len(next(iter(vector.values())))
    size = 4 + len(words.split())
    model = build(DecomposableAttention, vocab_size=size, num_classes=len(RELATIONS), embed_dim=embed_dim,
                  hidden_dim=hidden_dim, dropout=dropout)  # fmt: skip
    task = build(Entailment, model=model, baseline=build(WordCounts, vocab_size=size, num_classes=len(RELATIONS)),
                 classes=RELATIONS, words=words)  # fmt: skip
    if vector:
        start_from([model.embedding], Words(words).words, vector)

    def stream(part: Sequence[Text], batch_size: int, shuffle: bool = False) -> Padded:
        sides = {"source_tokens": [one.text for one in part], "target_tokens": [one.second or "" for one in part]}
        label = torch.tensor([RELATIONS.index(one.label) for one in part])
        return Padded(
            {side: task.encode(texts) for side, texts in sides.items()}, {"label": label}, batch_size, shuffle=shuffle
        )

    total, table = (sum(p.numel() for p in part.parameters()) for part in (model, model.embedding))
    notes = {
        "pairs": f"train {len(pairs.train):,}, valid {len(pairs.valid):,}, test {len(pairs.test):,}",
        "words": told,
        "parameters": f"{total - table:,}, and {table:,} of the embedding",
        "left out": "; ".join(pairs.faults.lines()) or "nothing",
    }
    return Experiment(task=task, train=stream(pairs.train, batch_size, shuffle=True), valid=stream(pairs.valid, 500),
                      test=stream(pairs.test, 500), epochs=epochs, optimizer=adamw(lr, weight_decay=1e-2),
                      schedule=warmup(0.05, linear()), clip=5.0, ema=0.99, monitor="accuracy", notes=notes)  # fmt: skip


def text_classifier(
    *,
    data: Path,
    model: Literal["textcnn", "birnn", "transformer", "counts", "encoder"] = "textcnn",
    pretrained: str | None = None,
    epochs: float | None = None,
    batch_size: int | None = None,
    vocab_size: int | None = None,
    longest: int = 400,
    lr: float | None = None,
) -> Experiment:
    """A classifier learns your texts: a table, a file of JSON lines or a folder with a class a subfolder.   D2L 15.1

    data: FILE.csv or FILE.jsonl with a text and a class a row, or a pair of texts (text and second), or FOLDER/good/1.txt,
    FOLDER/bad/2.txt ...
    model: textcnn, birnn (LSTM both ways), transformer, counts, softmax regression on counts, or encoder, which reads pairs too
    pretrained: of model=encoder, folder or hub id of a trained BERT, or a run of ours; if not given, a small one learns from
    nothing
    epochs: passes over the training texts; if not given, by their number
    batch_size: texts a step; if not given, by their number
    vocab_size: sub-words, learned from your texts in whatever language they are; if not given, by their number
    longest: sub-words of a text that are read
    lr: the largest learning rate; if not given, by the model
    """
    if pretrained and model != "encoder":
        raise ValueError(f"pretrained={pretrained}: expected model=encoder beside it, not {model}")
    if vocab_size and model == "encoder":
        raise ValueError(f"vocab_size={vocab_size}: an encoder has its own; expected another model")
    texts = own_texts(data)
    count = len(texts.train)
    batch_size = batch_size or min(64, max(8, 2 ** round(math.log2(max(count, 2) / 60))))
    if model == "encoder":
        return judging(by_number(texts), pretrained, pool="mean", weighted=False, frozen=False, longest=longest, labelled=None,
                       epochs=epochs or round(min(20, max(3, 20_000 / count))),
                       batch_size=min(batch_size, 32), lr=lr or 1e-3, backbone=0.1)  # fmt: skip
    if texts.train[0].second is not None:
        raise ValueError(f"data={data}: pairs of texts, which model={model} does not read; expected model=encoder")
    letters = sum(len(one.text) for one in texts.train)
    tokenizer = learn_subwords((one.text for one in texts.train), vocab_size or min(8000, max(400, letters // 50)))
    size = len(Subwords(tokenizer))
    network = _model(model, size, len(texts.classes), 100, longest, 0.5)
    task = build(TextClassification, model=network, classes=texts.classes, tokenizer=tokenizer, longest=longest, unknown=0.1)
    epochs = epochs or round(min(40, max(5, 60_000 / count)))
    return _experiment(texts, task, epochs, batch_size, lr or RATES[model], {"sub-words": f"{size:,}, learned from your texts"})

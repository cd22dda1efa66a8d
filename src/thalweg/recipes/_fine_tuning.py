"""What recipes share that fine-tune an encoder of language."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from thalweg.adaptation.encoders import pretrained_encoder, small_encoder
from thalweg.build import build, load
from thalweg.data.judged import Judged, JudgedTexts, judged_texts
from thalweg.data.labelled import Labelled, LabelledSentences
from thalweg.data.pairs import UNK, Words
from thalweg.data.wordpieces import WordPieces
from thalweg.models.language.bert import BERT
from thalweg.models.language.fine_tuned import OfText, OfWords
from thalweg.models.sequence.seq2seq import Encoder
from thalweg.tasks.judgement import Score, TextJudgement
from thalweg.tasks.labelling import Labelling
from thalweg.tasks.transduction import Transduction
from thalweg.training import Experiment, Task
from thalweg.training.optimisers import discriminative_adamw
from thalweg.training.schedules import linear, warmup

Example = TypeVar("Example")


def few(examples: list[Example], labelled: int | None) -> list[Example]:
    """So many of the examples, at even distances, since some lie class by class; all if that is None."""
    if labelled is None:
        return examples
    if not 1 <= labelled <= len(examples):
        raise ValueError(f"labelled={labelled}: expected 1 to {len(examples)}, the number of texts to learn from")
    return [examples[place * len(examples) // labelled] for place in range(labelled)]


def start_encoder(pretrained: str | None, texts: Callable[[], list[str]]) -> tuple[BERT, str]:
    """The pre-trained encoder; where there is none, a small one that has learned nothing."""
    if pretrained:
        return pretrained_encoder(pretrained)
    return small_encoder(texts(), vocab_size=4000, embed_dim=128, num_layers=2, context=512)


def translating(run: Path, words: Sequence[str]) -> tuple[str, Encoder]:
    """The words that a translation reads, and after them those of `words`, all of them unknown to it; and its encoder, alone.

    ValueError if the run is none of a translation, or one in sub-words
    """
    task: Any = load(run / "model")
    if not isinstance(task, Transduction) or not isinstance(task.source, Words) or not hasattr(task.model, "encoder"):
        raise ValueError(f"encoder={run}: expected a run of seq2seq-tatoeba")
    read: Any = task.model.encoder
    known = dict.fromkeys(task.source.words[4:])
    others = [word for word in words if word not in known]
    kept: Any = build(Encoder, vocab_size=len(task.source) + len(others), embed_dim=read.embedding.embedding_dim,
                      hidden_dim=read.state_dim, num_layers=read.rnn.num_layers, dropout=0.0,
                      cell=type(read.rnn).__name__.lower())  # fmt: skip
    vector = read.embedding.weight
    kept.load_state_dict(read.state_dict() | {"embedding.weight": torch.cat([vector, vector[UNK].expand(len(others), -1)])})
    return " ".join([*known, *others]), kept


def fine_tuning(task: Task, train: Any, valid: Any, test: Any, monitor: str, encoder: BERT, pretrained: str | None, *,
                frozen: bool, epochs: float, lr: float, backbone: float, notes: dict[str, str]) -> Experiment:  # fmt: skip
    """The head learns at the rate lr, the encoder at `backbone` times that, or not at all."""
    count = sum(p.numel() for p in encoder.parameters())
    told = f"from {pretrained}" if pretrained else "has learned nothing before (see --pretrained)"
    notes = {"encoder": f"{count:,} parameters, {told}{', stays as it is' if frozen else ''}", **notes}
    return Experiment(task=task, train=train, valid=valid, test=test, epochs=epochs,
                      optimizer=discriminative_adamw(lr, backbone=backbone if pretrained else 1.0, weight_decay=0.01),
                      schedule=warmup(0.1, linear()), clip=1.0, monitor=monitor, notes=notes)  # fmt: skip


def judging(texts: JudgedTexts, pretrained: str | None, *, pool: str, weighted: bool, frozen: bool, longest: int,
            labelled: int | None, epochs: float, batch_size: int, lr: float, backbone: float) -> Experiment:  # fmt: skip
    """An encoder learns to judge texts or pairs of texts; from `labelled` alone, if that is given."""
    train, pairs, score = few(texts.train, labelled), texts.train[0].second is not None, not texts.classes
    encoder, tokenizer = start_encoder(pretrained, lambda: [side for one in train for side in one[:2] if side is not None])
    longest = min(longest, encoder.position.num_embeddings)
    model = build(OfText, backbone=encoder, num_outputs=len(texts.classes) or 1, pool=pool, weighted=weighted, frozen=frozen)
    given = {"model": model, "tokenizer": tokenizer, "longest": longest, "pairs": pairs}
    task: Task = build(Score, **given) if score else build(TextJudgement, classes=texts.classes, **given)
    pieces = WordPieces(tokenizer)

    def stream(part: Sequence[Judged], batch_size: int, shuffle: bool = False) -> Any:
        return judged_texts(part, pieces, longest, batch_size, score=score, shuffle=shuffle) if part else None

    notes = {"texts": f"train {len(train):,}, valid {len(texts.valid):,}, test {len(texts.test):,}"}
    if texts.faults:
        notes["left out or doubtful"] = "; ".join(texts.faults.lines())
    return fine_tuning(task, stream(train, batch_size, shuffle=True), stream(texts.valid, 100), stream(texts.test, 100),
                       "spearman" if score else "accuracy", encoder, pretrained, frozen=frozen, epochs=epochs, lr=lr,
                       backbone=backbone, notes=notes)  # fmt: skip


def labelling(sentences: Labelled, monitor: str, pretrained: str | None, *, frozen: bool, weighted: bool, objective: str,
              epochs: float, batch_size: int, lr: float, backbone: float) -> Experiment:  # fmt: skip
    """An encoder learns to label the words of sentences."""
    encoder, tokenizer = start_encoder(pretrained, lambda: [" ".join(one.words) for one in sentences.train])
    pieces = WordPieces(tokenizer)
    model = build(OfWords, backbone=encoder, num_labels=len(sentences.classes), begin=pieces.cls, end=pieces.sep,
                  weighted=weighted, frozen=frozen)  # fmt: skip
    task = build(Labelling, model=model, classes=sentences.classes, tokenizer=tokenizer, objective=objective)
    train = LabelledSentences(sentences.train, task.reader, sentences.classes, batch_size, shuffle=True)
    valid, test = (LabelledSentences(part, task.reader, sentences.classes, 100) for part in (sentences.valid, sentences.test))
    notes = {"sentences": f"train {train.size:,}, valid {valid.size:,}, test {test.size:,}, of {len(sentences.classes)} labels",
             "left out": ", ".join(f"{count:,} {why}" for why, count in sentences.left_out.items()) or "nothing"}  # fmt: skip
    return fine_tuning(task, train, valid, test, monitor, encoder, pretrained, frozen=frozen, epochs=epochs, lr=lr,
                       backbone=backbone, notes=notes)  # fmt: skip

"""Recipes that fine-tune an encoder of language: texts, pairs, words, answers.   D2L 15.6-15.7, LEE BERT"""

from collections import Counter
from pathlib import Path
from typing import Literal

import torch

from thalweg.build import build
from thalweg.data.classified import sst2
from thalweg.data.inference import snli
from thalweg.data.judged import by_number, judged_texts, snli_agreement, word_order
from thalweg.data.labelled import english_web_treebank, wnut17
from thalweg.data.languages import LANGUAGES, meanings, photographed
from thalweg.data.questions import Questions, own_questions, question_batches, xquad
from thalweg.data.wordpieces import WordPieces
from thalweg.models.language.fine_tuned import OfText, OfTokens
from thalweg.recipes._fine_tuning import few, fine_tuning, judging, labelling, start_encoder
from thalweg.tasks.extraction import Extraction
from thalweg.tasks.judgement import AcrossLanguages
from thalweg.training import Experiment


def sst2_encoder(*, pretrained: str | None = None, frozen: bool = False, weighted: bool = False,
                 pool: Literal["mean", "first"] = "mean", labelled: int | None = None, longest: int = 80, epochs: float = 3,
                 batch_size: int = 32, lr: float = 1e-3, backbone: float = 0.1) -> Experiment:  # fmt: skip
    """An encoder is fine-tuned to say whether a film review is positive.   D2L 15.6, LEE BERT

    pretrained: folder or hub id of a trained BERT, or a run of ours; if not given, a small one learns from nothing
    frozen: the encoder stays as it is, only the head learns
    weighted: the head reads a learned mixture of all layers
    pool: the text is the mean of its tokens, or its first
    labelled: sentences to learn from; if not given, all
    backbone: rate of the encoder, in terms of that of the head
    """
    return judging(by_number(sst2()), pretrained, pool=pool, weighted=weighted, frozen=frozen, longest=longest,
                   labelled=labelled, epochs=epochs, batch_size=batch_size, lr=lr, backbone=backbone)  # fmt: skip


def snli_encoder(*, pretrained: str | None = None, frozen: bool = False, weighted: bool = False,
                 pool: Literal["mean", "first"] = "mean", score: bool = False, labelled: int | None = None, longest: int = 80,
                 epochs: float = 4, batch_size: int = 32, lr: float = 1e-3, backbone: float = 0.1) -> Experiment:  # fmt: skip
    """An encoder is fine-tuned to say whether one sentence follows from another, or how far.   D2L 15.6-15.7, LEE BERT

    pretrained, frozen, weighted, pool, labelled, backbone: see sst2-encoder
    score: how far it follows, as a number: the mean of what five people said of it
    """
    return judging(snli_agreement() if score else by_number(snli()), pretrained, pool=pool, weighted=weighted, frozen=frozen,
                   longest=longest, labelled=labelled, epochs=epochs, batch_size=batch_size, lr=lr,
                   backbone=backbone)  # fmt: skip


def acceptability_encoder(*, pretrained: str | None = None, frozen: bool = False, weighted: bool = False,
                          pool: Literal["mean", "first"] = "mean", labelled: int | None = None, longest: int = 64,
                          epochs: float = 6, batch_size: int = 32, lr: float = 1e-3,
                          backbone: float = 0.1) -> Experiment:  # fmt: skip
    """An encoder is fine-tuned to tell English sentences from those in which two words changed places.   D2L 15.6

    pretrained, frozen, weighted, pool, labelled, backbone: see sst2-encoder
    """
    return judging(word_order(), pretrained, pool=pool, weighted=weighted, frozen=frozen, longest=longest, labelled=labelled,
                   epochs=epochs, batch_size=batch_size, lr=lr, backbone=backbone)  # fmt: skip


def multi30k_encoder(*, pretrained: str | None = None, frozen: bool = False, labelled: int | None = None, longest: int = 64,
                     epochs: float = 2, batch_size: int = 32, lr: float = 1e-3,
                     backbone: float = 0.1) -> Experiment:  # fmt: skip
    """An encoder learns in English of whom a photograph's description speaks, and is asked in French and German.   LEE BERT

    pretrained: a run of multilingual-bert; if not given, a small encoder learns from nothing
    frozen, labelled, backbone: see sst2-encoder
    """
    texts, numbers = photographed()
    learned = few(texts.train, labelled)
    # without a pre-trained encoder it knows the letters of all three languages at least
    encoder, tokenizer = start_encoder(pretrained, lambda: [one for said in meanings("multi30k")[0][:10_000] for one in said])
    model, pieces = build(OfText, backbone=encoder, num_outputs=len(texts.classes), frozen=frozen), WordPieces(tokenizer)
    counts = Counter(one.judgement for one in learned)
    task = build(AcrossLanguages, model=model, classes=texts.classes, tokenizer=tokenizer, languages=LANGUAGES["multi30k"],
                 frequent=int(counts.most_common(1)[0][0]), longest=longest)  # fmt: skip
    valid, test = (judged_texts(part, pieces, longest, 100) for part in (texts.valid, texts.test))
    for stream, number in zip((valid, test), numbers, strict=True):
        stream.fixed["language"] = torch.tensor(number)
    told = f"train {len(learned):,} in English, valid {len(texts.valid):,} and test {len(texts.test):,} in three languages"
    return fine_tuning(task, judged_texts(learned, pieces, longest, batch_size, shuffle=True), valid, test, "accuracy_en",
                       encoder, pretrained, frozen=frozen, epochs=epochs, lr=lr, backbone=backbone,
                       notes={"texts": told})  # fmt: skip


def tagger_encoder(*, pretrained: str | None = None, frozen: bool = False, weighted: bool = False,
                   objective: Literal["independent", "crf"] = "independent", epochs: float = 3, batch_size: int = 32,
                   lr: float = 1e-3, backbone: float = 0.1) -> Experiment:  # fmt: skip
    """An encoder is fine-tuned to say which part of speech every word is.   D2L 15.6, LEE BERT

    pretrained, frozen, weighted, backbone: see sst2-encoder.   objective: see `Labelling`
    """
    return labelling(english_web_treebank(), "accuracy", pretrained, frozen=frozen, weighted=weighted, objective=objective,
                     epochs=epochs, batch_size=batch_size, lr=lr, backbone=backbone)  # fmt: skip


def names_encoder(*, pretrained: str | None = None, frozen: bool = False, weighted: bool = False,
                  objective: Literal["independent", "crf"] = "independent", epochs: float = 6, batch_size: int = 16,
                  lr: float = 1e-3, backbone: float = 0.1) -> Experiment:  # fmt: skip
    """An encoder is fine-tuned to find the names of persons, places, groups and things in messages.   LEE BERT

    pretrained, frozen, weighted, backbone: see sst2-encoder.   objective: see `Labelling`
    """
    return labelling(wnut17(), "f1", pretrained, frozen=frozen, weighted=weighted, objective=objective, epochs=epochs,
                     batch_size=batch_size, lr=lr, backbone=backbone)  # fmt: skip


def _answering(questions: Questions, pretrained: str | None, *, frozen: bool, weighted: bool, longest: int, epochs: float,
               batch_size: int, lr: float, backbone: float) -> Experiment:  # fmt: skip
    """An encoder learns to cut answers out of texts."""
    texts = [text for one in questions.train for text in (one.question, one.context)]
    encoder, tokenizer = start_encoder(pretrained, lambda: texts)
    if not 16 <= longest <= encoder.position.num_embeddings:
        raise ValueError(f"longest={longest}: expected 16 to {encoder.position.num_embeddings}, which the encoder reads")
    model = build(OfTokens, backbone=encoder, num_outputs=2, weighted=weighted, frozen=frozen)
    task, pieces = build(Extraction, model=model, tokenizer=tokenizer, longest=longest), WordPieces(tokenizer)
    train = question_batches(questions.train, pieces, longest, batch_size, shuffle=True)
    valid, test = (question_batches(part, pieces, longest, 32) for part in (questions.valid, questions.test))
    lost = sum(int((stream.fixed["start"] < 0).sum()) for stream in (train, valid, test))
    notes = {"questions": ", ".join(f"{name} {len(getattr(questions, name)):,}" for name in ("train", "valid", "test"))}
    if lost:
        notes["not held by a window"] = f"the answers to {lost:,}"
    if questions.faults:
        notes["left out"] = "; ".join(questions.faults.lines())
    return fine_tuning(task, train, valid, test, "f1", encoder, pretrained, frozen=frozen, epochs=epochs, lr=lr,
                       backbone=backbone, notes=notes)  # fmt: skip


def xquad_encoder(*, pretrained: str | None = None, frozen: bool = False, weighted: bool = False, longest: int = 384,
                  epochs: float = 6, batch_size: int = 16, lr: float = 2e-3, backbone: float = 0.1) -> Experiment:  # fmt: skip
    """An encoder is fine-tuned to find the answer to a question in a paragraph of Wikipedia.   D2L 15.6, LEE BERT

    pretrained, frozen, weighted, backbone: see sst2-encoder.   longest: tokens of question and text that are read at once
    """
    return _answering(xquad(), pretrained, frozen=frozen, weighted=weighted, longest=longest, epochs=epochs,
                      batch_size=batch_size, lr=lr, backbone=backbone)  # fmt: skip


def question_answerer(*, data: Path, pretrained: str | None = None, longest: int = 384, epochs: float = 6,
                      batch_size: int = 16, lr: float = 2e-3) -> Experiment:  # fmt: skip
    """An encoder learns to find the answers to your questions in your texts.   D2L 15.6, LEE BERT

    data: FILE.json in the form of SQuAD: texts, questions on each, and where in the text the answer stands
    pretrained: folder or hub id of a trained BERT, or a run of ours; without one it learns from nothing, which takes much data
    longest: tokens of question and text that are read at once; longer texts are read in windows
    """
    return _answering(own_questions(data), pretrained, frozen=False, weighted=False, longest=longest, epochs=epochs,
                      batch_size=batch_size, lr=lr, backbone=0.1)  # fmt: skip

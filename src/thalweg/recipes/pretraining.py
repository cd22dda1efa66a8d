"""Recipes that pre-train models of language on plain text.   D2L 14.8-14.10, LEE BERT"""

from collections import Counter
from pathlib import Path
from typing import Any, Literal

from thalweg.adaptation.encoders import pretrained_encoder, small_encoder
from thalweg.build import build, load
from thalweg.data.corruption import SENTINELS, Corrupted, Marks
from thalweg.data.languages import LANGUAGES, Multilingual, meanings
from thalweg.data.pretraining import Pretraining, wikitext2
from thalweg.data.subwords import Subwords, learn_subwords
from thalweg.data.wordpieces import WordPieces
from thalweg.layers.attention import head_count
from thalweg.models.language.bert import BERT
from thalweg.models.language.fine_tuned import OfTokens
from thalweg.models.language.masked import MaskedEncoder
from thalweg.models.sequence.t5 import T5
from thalweg.models.sequence.transformer import Transformer
from thalweg.tasks.masked_modelling import MaskedModelling
from thalweg.tasks.multilingual import MultilingualModelling
from thalweg.tasks.replaced_tokens import ReplacedTokens
from thalweg.tasks.transduction import Transduction
from thalweg.training import Experiment, Task
from thalweg.training.optimisers import adafactor, adamw
from thalweg.training.schedules import linear, warmup


def _texts(paragraphs: int | None) -> tuple[list[str], list[str], list[str]]:
    """The paragraphs of WikiText-2, the first so many alone to learn from."""
    train, valid, test = wikitext2()
    if paragraphs is not None and not 1 <= paragraphs <= len(train):
        raise ValueError(f"paragraphs={paragraphs}: expected 1 to {len(train)}")
    return train[:paragraphs], valid, test


def _pretraining(task: Task, parts: tuple[list[str], list[str], list[str]], pieces: WordPieces, updates: int, batch_size: int,
                 lr: float, measured: int, masking: str, measured_masking: str | None = None,
                 **how: Any) -> Experiment:  # fmt: skip
    """The task learns from pairs of sentences; measured: paragraphs for validation, and for tests."""
    train = Pretraining(parts[0], pieces, batch_size, masking=masking, shuffle=True, **how)
    valid, test = (Pretraining(part[:measured], pieces, 64, masking=measured_masking or masking, **how) for part in parts[1:])
    notes = {"pairs": f"train {train.size:,}, valid {valid.size:,}, test {test.size:,}, {len(pieces):,} pieces of words",
             "parameters": f"{sum(p.numel() for p in task.parameters()):,}"}  # fmt: skip
    return Experiment(task=task, train=train, valid=valid, test=test, steps=updates, clip=1.0, monitor="loss",
                      optimizer=adamw(lr, betas=(0.9, 0.98), weight_decay=0.01), schedule=warmup(0.1, linear()),
                      evaluate_every=max(1, updates // 5), notes=notes)  # fmt: skip


def bert_wikitext2(*, objective: Literal["mlm", "nsp", "sop", "unilm", "permutation"] = "mlm",
                   masking: Literal["token", "whole-word", "entity", "span"] = "token",
                   measured_masking: Literal["token", "whole-word", "entity", "span"] | None = None, updates: int = 10_000,
                   batch_size: int = 32, context: int = 96, vocab_size: int = 8000, embed_dim: int = 192, num_layers: int = 4,
                   lr: float = 1e-3, share: float = 0.15, paragraphs: int | None = None,
                   measured: int = 300) -> Experiment:  # fmt: skip
    """BERT learns from Wikipedia what is hidden of its sentences, others in each pass.   D2L 14.8-14.10, LEE BERT

    objective: mlm hidden tokens alone, as RoBERTa; nsp also whether a second sentence follows; sop whether two are in order;
    unilm reads both ways, backwards only, or a first text whole and a second backwards, in turn; permutation tells hidden
    tokens one after the other in any order, by a stream of queries, as XLNet
    masking: what is hidden together; of spans a second head tells the tokens by the borders alone, as SpanBERT
    measured_masking: of validation and tests, to compare what was learned by other maskings; if not given, the same
    share: of the tokens that are hidden
    paragraphs: to learn from; if not given, all
    measured: paragraphs for validation, and for tests
    """
    parts = _texts(paragraphs)
    encoder, tokenizer = small_encoder(parts[0], vocab_size=vocab_size, embed_dim=embed_dim, num_layers=num_layers,
                                       context=max(context, 128))  # fmt: skip
    pieces = WordPieces(tokenizer, marks=True)
    model = build(MaskedEncoder, backbone=encoder, pairs=objective in ("nsp", "sop"), boundary=masking == "span",
                  query=pieces.mask if objective == "permutation" else None)  # fmt: skip
    counts = Counter(token for paragraph in parts[0][:2000] for token in pieces.encode([paragraph])[0].ids[1:-1])
    task = build(MaskedModelling, model=model, tokenizer=tokenizer, frequent=counts.most_common(1)[0][0])
    return _pretraining(task, parts, pieces, updates, batch_size, lr, measured, context=context, objective=objective,
                        masking=masking, measured_masking=measured_masking, share=share)  # fmt: skip


def multilingual_bert(*, corpus: Literal["multi30k", "tatoeba"] = "multi30k", updates: int = 6000, batch_size: int = 64,
                      context: int = 64, vocab_size: int = 8000, embed_dim: int = 256, num_layers: int = 4, lr: float = 1e-3,
                      share: float = 0.15, layer: int | None = None, measured: int = 500) -> Experiment:  # fmt: skip
    """BERT learns hidden words of several languages at once, and is not told which is which.   LEE BERT

    corpus: multi30k, photographs described in English, French and German; tatoeba, short English and French sentences
    share: of the tokens that are hidden
    layer: of the encoder, whose states are asked whether translations are alike; if not given, half of its blocks
    measured: sentences for validation, and for tests, each with its translations
    """
    parts = meanings(corpus)
    encoder, tokenizer = small_encoder([one for said in parts[0] for one in said], vocab_size=vocab_size, embed_dim=embed_dim,
                                       num_layers=num_layers, context=max(context, 128))  # fmt: skip
    pieces = WordPieces(tokenizer, marks=True)
    train = Multilingual(parts[0], pieces, batch_size, context=context, share=share, shuffle=True)
    valid, test = (Multilingual(part[:measured], pieces, 50, context=context, share=share, together=True) for part in parts[1:])
    counts = Counter(token for sentence in train.sentences[:20_000] for token in sentence[1:-1].tolist())
    task = build(MultilingualModelling, model=build(MaskedEncoder, backbone=encoder), tokenizer=tokenizer,
                 languages=LANGUAGES[corpus], frequent=counts.most_common(1)[0][0], layer=layer)  # fmt: skip
    notes = {"sentences": f"train {train.size:,}, valid {valid.size:,} and test {test.size:,} in {len(LANGUAGES[corpus])} "
                          f"languages, {len(pieces):,} pieces of words",
             "parameters": f"{sum(p.numel() for p in task.parameters()):,}"}  # fmt: skip
    return Experiment(task=task, train=train, valid=valid, test=test, steps=updates, clip=1.0, monitor="loss",
                      optimizer=adamw(lr, betas=(0.9, 0.98), weight_decay=0.01), schedule=warmup(0.1, linear()),
                      evaluate_every=max(1, updates // 5), notes=notes)  # fmt: skip


def electra_wikitext2(*, masking: Literal["token", "whole-word", "entity", "span"] = "token", updates: int = 10_000,
                      batch_size: int = 32, context: int = 96, vocab_size: int = 8000, embed_dim: int = 192,
                      num_layers: int = 4, lr: float = 1e-3, share: float = 0.15, weight: float = 7.5,
                      start: Path | None = None, paragraphs: int | None = None,
                      measured: int = 300) -> Experiment:  # fmt: skip
    """ELECTRA: a small encoder fills gaps in Wikipedia, a larger one learns to see where.   LEE BERT

    masking, share, paragraphs, measured: see bert-wikitext2.   The encoder that fills gaps is a third as deep.
    weight: of the judgements beside the gaps, see `ReplacedTokens`
    start: a run of bert-wikitext2, whose encoder both begin with, in place of two that have learned nothing
    """
    parts = _texts(paragraphs)
    if start is None:
        encoder, tokenizer = small_encoder(parts[0], vocab_size=vocab_size, embed_dim=embed_dim, num_layers=num_layers,
                                           context=max(context, 128))  # fmt: skip
        small = build(BERT, vocab_size=len(WordPieces(tokenizer)), context=max(context, 128), embed_dim=embed_dim,
                      num_layers=max(1, num_layers // 3), num_heads=head_count(embed_dim, 32))  # fmt: skip
        generator = build(MaskedEncoder, backbone=small)
    else:
        before: Any = load(start / "model")
        if not isinstance(before, MaskedModelling):
            raise ValueError(f"start={start}: a run of {type(before).__name__}, expected one of bert-wikitext2")
        generator, (encoder, tokenizer) = before.model, pretrained_encoder(str(start))
    pieces = WordPieces(tokenizer, marks=True)
    judge = build(OfTokens, backbone=encoder, num_outputs=1, hidden_dim=encoder.embedding.embedding_dim)
    task = build(ReplacedTokens, discriminator=judge, generator=generator, tokenizer=tokenizer, weight=weight)
    return _pretraining(task, parts, pieces, updates, batch_size, lr, measured, context=context, masking=masking,
                        share=share)  # fmt: skip


def restoring_wikitext2(
    *,
    corruption: Literal["bart", "mask", "delete", "infill", "permute", "rotate", "t5", "mass"] = "infill",
    model: Literal["transformer", "t5"] = "transformer",
    updates: int = 3000,
    batch_size: int = 64,
    longest: int = 32,
    vocab_size: int = 4000,
    embed_dim: int = 128,
    num_layers: int = 2,
    lr: float | None = None,
    paragraphs: int | None = None,
    measured: int = 100,
) -> Experiment:
    """A Transformer restores texts of Wikipedia that were broken, anew in each pass.   LEE BERT

    corruption: bart, infill and permute in turn; or one of BART's five; or t5, numbered marks for spans, which alone are
    written; or mass, a fragment of half the text
    model: transformer, or t5, whose places are told by biases of their distance; for text-to-text to go on from
    longest: sub-words of a text
    lr: of AdamW, or of Adafactor, by which t5 learns; if not given, 0.002 and 0.02
    paragraphs: to learn from; if not given, all
    measured: texts for validation, and for tests, that are restored
    """
    parts = _texts(paragraphs)
    names = ["<mask>", *(f"<{number}>" for number in range(SENTINELS))]
    text = learn_subwords(parts[0], vocab_size, marks=names)
    subwords = Subwords(text)
    number = subwords.tokenizer.get_vocab()
    first, *sentinels = (number[name] for name in names)
    marks = Marks(first, tuple(sentinels), int(subwords.encode(" .")[-2]))
    corruptions = ("infill", "permute") if corruption == "bart" else (corruption,)

    def stream(part: list[str], batch_size: int, shuffle: bool = False) -> Corrupted:
        tokens = [subwords.encode(one)[:-1][:longest] for one in part]
        return Corrupted([one for one in tokens if len(one) > 7], marks, corruptions, batch_size, shuffle=shuffle)

    train, valid, test = stream(parts[0], batch_size, shuffle=True), *(stream(part[:measured], 50) for part in parts[1:])
    size = {"embed_dim": embed_dim, "num_layers": num_layers, "num_heads": head_count(embed_dim, 32)}
    restorer: T5 | Transformer
    if model == "t5":
        restorer = build(T5, vocab_size=len(subwords), head_dim=32, hidden_dim=4 * embed_dim, **size)
        optimizer = adafactor(0.02 if lr is None else lr)
    else:
        restorer = build(Transformer, source_vocab_size=len(subwords), target_vocab_size=len(subwords), shared=True, **size)
        optimizer = adamw(2e-3 if lr is None else lr, betas=(0.9, 0.98), weight_decay=0.01)
    task = build(Transduction, model=restorer, tokenizer=text, longest=2 * longest, beam=1)
    notes = {"texts": f"train {train.size:,}, valid {valid.size:,}, test {test.size:,}, {len(subwords):,} sub-words",
             "parameters": f"{sum(p.numel() for p in restorer.parameters()):,}"}  # fmt: skip
    return Experiment(task=task, train=train, valid=valid, test=test, steps=updates, clip=1.0, monitor="loss",
                      optimizer=optimizer, schedule=warmup(0.1, linear()), evaluate_every=max(1, updates // 5),
                      notes=notes)  # fmt: skip

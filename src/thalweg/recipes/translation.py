"""Recipes that translate: a name in, an experiment out."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from thalweg.build import build, load
from thalweg.data.dialogues import introductions
from thalweg.data.grammar import trees
from thalweg.data.headlines import headlines, lead
from thalweg.data.pairs import Corpus, Pair, Pairs, Words, frequent, multi30k, own_pairs, separate, tatoeba_fra_eng
from thalweg.data.subwords import Subwords, learn_subwords
from thalweg.metrics import SacreBLEU
from thalweg.models.sequence.seq2seq import AttentionSeq2Seq, Seq2Seq
from thalweg.models.sequence.transformer import Transformer
from thalweg.tasks.minimum_risk import MinimumRisk
from thalweg.tasks.transduction import Transduction
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import linear, warmup


def _streams(corpus: Corpus, source: Words | Subwords, target: Words | Subwords, batch_size: int) -> tuple[Pairs, Pairs, Pairs]:
    """The pairs of a corpus as tokens: those to learn from, shuffled, those for validation and those for tests."""

    def stream(part: list[Pair], batch_size: int, shuffle: bool = False) -> Pairs:
        read, written = ([side.encode(pair[number]) for pair in part] for number, side in enumerate((source, target)))
        return Pairs(read, written, batch_size, shuffle=shuffle)

    return stream(corpus.train, batch_size, shuffle=True), stream(corpus.valid, 250), stream(corpus.test, 250)


def _notes(corpus: Corpus, tokens: dict[str, str]) -> dict[str, str]:
    """What was found in a corpus, and what of it the model reads and writes."""
    return {
        "pairs": ", ".join(f"{name} {len(getattr(corpus, name)):,}" for name in ("train", "valid", "test")),
        **tokens,
        "left out": ", ".join(f"{count:,} {reason}" for reason, count in corpus.left_out.items()) or "nothing",
    }


def _in_words(corpus: Corpus, make: Callable[..., nn.Module], arguments: dict[str, Any], *, least: int, epochs: float,
              batch_size: int, lr: float, own: float = 0.0, warm: float = 0.05,
              brackets: bool = False) -> Experiment:  # fmt: skip
    """An encoder-decoder learns the pairs; words that occur less than `least` times are unknown."""
    known = [frequent((pair[side] for pair in corpus.train), least) for side in (0, 1)]
    source, target = (Words(text) for text in known)
    train, valid, test = _streams(corpus, source, target, batch_size)
    model = build(make, source_vocab_size=len(source), target_vocab_size=len(target), **arguments)
    longest = 10 + max(map(len, train.ragged["target_tokens"]))
    task = build(Transduction, model=model, source_words=known[0], target_words=known[1], longest=longest, own=own,
                 own_steps=max(1, round(epochs * len(train) / 2)), brackets=brackets)  # fmt: skip
    counted = f"{len(source):,} of the source, {len(target):,} of the target, that occur at least {least} times"
    return Experiment(task=task, train=train, valid=valid, test=test, epochs=epochs, optimizer=adamw(lr, weight_decay=1e-2),
                      schedule=warmup(warm, linear()) if warm else linear(), clip=1.0, monitor="loss",
                      notes=_notes(corpus, {"words": counted}))  # fmt: skip


def _in_subwords(corpus: Corpus, make: Callable[..., nn.Module], arguments: dict[str, Any], *, vocab_size: int, epochs: float,
                 batch_size: int, lr: float, beam: int, label_smoothing: float = 0.1,
                 measured: int | None = None) -> Experiment:  # fmt: skip
    """An encoder-decoder learns the pairs in sub-words that both sides share; measured: see `transformer_multi30k`."""
    corpus = corpus.measured_on(measured)
    tokenizer = learn_subwords((text for pair in corpus.train for text in pair), vocab_size)
    subwords = Subwords(tokenizer)
    train, valid, test = _streams(corpus, subwords, subwords, batch_size)
    model = build(make, source_vocab_size=len(subwords), target_vocab_size=len(subwords), **arguments)
    longest = 10 + max(map(len, train.ragged["target_tokens"]))
    task = build(Transduction, model=model, tokenizer=tokenizer, longest=longest, beam=beam,
                 label_smoothing=label_smoothing)  # fmt: skip
    told = {
        "sub-words": f"{len(subwords):,} of both sides, learned on what is trained on",
        "training": f"{make.__name__} of {sum(p.numel() for p in model.parameters()):,} parameters, {epochs:g} epochs of "
                    f"{len(train)} batches of {batch_size}, AdamW at {lr:g}",
        "sacrebleu": SacreBLEU.signature,
    }  # fmt: skip
    return Experiment(task=task, train=train, valid=valid, test=test, epochs=epochs,
                      optimizer=adamw(lr, betas=(0.9, 0.98), weight_decay=1e-2), schedule=warmup(0.1, linear()), clip=1.0,
                      ema=0.998, monitor="loss", evaluate_every=2 * len(train), notes=_notes(corpus, told))  # fmt: skip


def seq2seq_tatoeba(*, attention: bool = True, epochs: float = 3, batch_size: int = 128, embed_dim: int = 192,
                    hidden_dim: int = 256, dropout: float = 0.2, lr: float = 2e-3, own: float = 0.0) -> Experiment:  # fmt: skip
    """A GRU reads English and another writes French, with or without an eye on the words.   D2L 9.7, 10.4

    Pairs of up to eight words a side; no source sentence is in two parts.   own: share of scheduled sampling at the end.
    """
    arguments = {"embed_dim": embed_dim, "hidden_dim": hidden_dim, "dropout": dropout}
    return _in_words(tatoeba_fra_eng(longest=8), AttentionSeq2Seq if attention else Seq2Seq, arguments, least=4,
                        epochs=epochs, batch_size=batch_size, lr=lr, own=own)  # fmt: skip


def reinforced_tatoeba(*, start: Path, epochs: float = 0.2, batch_size: int = 64, lr: float = 1e-4,
                       cross_entropy: float = 0.1, temperature: float = 0.5, draws: int = 8) -> Experiment:  # fmt: skip
    """A translator goes on learning for BLEU itself, by what it draws and how that is judged.   LEE Transformer

    start: a run of seq2seq-tatoeba or transformer-tatoeba.   cross_entropy: weight of the loss that it has learned from.
    temperature, draws: of the translations that are drawn for each sentence, see `MinimumRisk`
    """
    before: Any = load(start / "model")
    sides = [before.source, before.target] if isinstance(before, Transduction) else []
    known = [" ".join(side.words[4:]) for side in sides if isinstance(side, Words)]
    if len(known) < 2:
        raise ValueError(f"start={start}: expected a run of seq2seq-tatoeba or transformer-tatoeba")
    corpus = tatoeba_fra_eng(longest=8)
    train, valid, test = _streams(corpus, before.source, before.target, batch_size)
    task = build(MinimumRisk, model=before.model, source_words=known[0], target_words=known[1], longest=before.longest,
                 cross_entropy=cross_entropy, temperature=temperature, draws=draws)  # fmt: skip
    return Experiment(task=task, train=train, valid=valid, test=test, epochs=epochs, optimizer=adamw(lr, weight_decay=0.0),
                      schedule=linear(), clip=1.0, monitor="bleu", evaluate_every=max(1, round(epochs * len(train) / 8)),
                      notes=_notes(corpus, {}))  # fmt: skip


def transformer_tatoeba(*, epochs: float = 3, batch_size: int = 128, embed_dim: int = 192, num_layers: int = 3,
                        num_heads: int = 4, hidden_dim: int = 512, dropout: float = 0.1, norm_first: bool = True,
                        cross: Literal["last", "same", "all"] = "last", lr: float = 2e-3,
                        warm: float = 0.05) -> Experiment:  # fmt: skip
    """A Transformer reads English and writes French.   LBDL 5.3, D2L 10.7, LEE Transformer

    norm_first, cross: see `Transformer`.   warm: share of the run over which the learning rate rises, none if 0.
    The pairs and parts are those of seq2seq-tatoeba.
    """
    arguments = {"embed_dim": embed_dim, "num_layers": num_layers, "num_heads": num_heads, "hidden_dim": hidden_dim,
                 "dropout": dropout, "norm_first": norm_first, "cross": cross}  # fmt: skip
    return _in_words(tatoeba_fra_eng(longest=8), Transformer, arguments, least=4, epochs=epochs, batch_size=batch_size,
                     lr=lr, warm=warm)  # fmt: skip


def autoencoder_tatoeba(*, epochs: float = 3, batch_size: int = 128, embed_dim: int = 192, hidden_dim: int = 512,
                        lr: float = 2e-3) -> Experiment:  # fmt: skip
    """A GRU reads an English sentence into one vector, and another writes it again from that alone.   LEE RNN

    Sentences of up to eight words, from seq2seq-tatoeba; those measured on are in no other part.
    """
    corpus = tatoeba_fra_eng(longest=8)
    parts = (corpus.train, corpus.valid, corpus.test)
    train, valid, test = (sorted({(source, source) for source, _ in part}) for part in parts)
    arguments = {"embed_dim": embed_dim, "hidden_dim": hidden_dim, "num_layers": 1, "dropout": 0.0}
    return _in_words(Corpus(train, valid, test, corpus.left_out), Seq2Seq, arguments, least=4, epochs=epochs,
                        batch_size=batch_size, lr=lr)  # fmt: skip


def tree_writer(*, epochs: float = 8, batch_size: int = 32, embed_dim: int = 64, hidden_dim: int = 128,
                lr: float = 3e-3) -> Experiment:  # fmt: skip
    """A GRU reads a sentence of a small grammar and another writes its tree, word by word and bracket by bracket.   LEE RNN"""
    arguments = {"embed_dim": embed_dim, "hidden_dim": hidden_dim, "dropout": 0.1}
    return _in_words(trees(), AttentionSeq2Seq, arguments, least=1, epochs=epochs, batch_size=batch_size, lr=lr, brackets=True)


def copying_dialogues(*, epochs: float = 4, batch_size: int = 32, embed_dim: int = 32, hidden_dim: int = 64,
                      lr: float = 5e-3) -> Experiment:  # fmt: skip
    """A GRU answers people whose names it has never heard, and calls them by these.   LEE Transformer"""
    arguments = {"embed_dim": embed_dim, "hidden_dim": hidden_dim}
    return _copying(introductions(), arguments, least=10, strangers=2, longest=20, epochs=epochs, batch_size=batch_size, lr=lr)


def _copying(corpus: Corpus, arguments: dict[str, Any], *, least: int, strangers: int, longest: int, epochs: float,
             batch_size: int, lr: float, beam: int = 1, leads: dict[str, int] | None = None) -> Experiment:  # fmt: skip
    """A GRU learns pairs whose rare words it can only copy: those that occur less than `least` times.

    leads: words of the first sentence of each source, if targets are summaries.
    """
    known = frequent((text for pair in corpus.train for text in pair), least)
    words = Words(known, strangers)

    def stream(part: list[Pair], batch_size: int, shuffle: bool = False) -> Pairs:
        heard = [words.hearing(said) for said, _ in part]
        said, answered = ([one.encode(pair[side]) for one, pair in zip(heard, part, strict=True)] for side in (0, 1))
        pairs = Pairs(said, answered, batch_size, shuffle=shuffle)
        pairs.fixed = {"lead": torch.tensor([leads[source] for source, _ in part])} if leads else {}
        return pairs

    model = build(AttentionSeq2Seq, source_vocab_size=len(words), target_vocab_size=len(words), copies=True,
                  strangers=strangers, **arguments)  # fmt: skip
    task = build(Transduction, model=model, source_words=known, target_words=known, longest=longest, strangers=strangers,
                 beam=beam, summaries=leads is not None)  # fmt: skip
    told = {"words": f"{len(known.split()):,}, and {strangers} of each source"}
    return Experiment(task=task, train=stream(corpus.train, batch_size, shuffle=True), valid=stream(corpus.valid, 250),
                      test=stream(corpus.test, 250), epochs=epochs, optimizer=adamw(lr), schedule=warmup(0.05, linear()),
                      clip=1.0, monitor="rougeL" if leads else "loss", notes=_notes(corpus, told))  # fmt: skip


def headlines_ag_news(*, epochs: float = 30, batch_size: int = 32, embed_dim: int = 128, hidden_dim: int = 192,
                      least: int = 10, longest: int = 50, dropout: float = 0.3, beam: int = 4,
                      lr: float = 2e-3) -> Experiment:  # fmt: skip
    """A GRU reads news and writes their headlines, with words that it copies where it knows none.   LEE Transformer

    least: occurrences that make a word known; others can be copied alone
    longest: words of a story that are read
    beam: of the headlines that are measured, by ROUGE
    Beside them is measured lead-1, the first sentence of the story, which is what a summary has to be better than.
    """
    told, leads = headlines(), dict[str, int]()

    def read(part: list[Pair]) -> list[Pair]:
        words = [separate(text)[:longest] for text, _ in part]
        sources = [" ".join(one) for one in words]
        firsts = [len(separate(lead(text))) for text, _ in part]
        leads.update(zip(sources, map(min, firsts, map(len, words)), strict=True))
        return [*zip(sources, (title for _, title in part), strict=True)]

    corpus = Corpus(read(told.train), read(told.valid), read(told.test), told.left_out)
    arguments = {"embed_dim": embed_dim, "hidden_dim": hidden_dim, "dropout": dropout, "shared": True}
    return _copying(corpus, arguments, least=least, strangers=longest, longest=20, epochs=epochs, batch_size=batch_size, lr=lr,
                    beam=beam, leads=leads)  # fmt: skip


def seq2seq_multi30k(*, target: Literal["de", "fr"] = "de", epochs: float = 20, batch_size: int = 128, vocab_size: int = 6000,
                     embed_dim: int = 256, hidden_dim: int = 384, dropout: float = 0.3, lr: float = 2e-3,
                     beam: int = 5, measured: int | None = None) -> Experiment:  # fmt: skip
    """A GRU that looks back translates descriptions of photographs from English.   D2L 10.4

    target: language.   beam, measured: see transformer-multi30k.
    The pairs, parts and sub-words are those of transformer-multi30k.
    """
    arguments = {"embed_dim": embed_dim, "hidden_dim": hidden_dim, "dropout": dropout}
    return _in_subwords(multi30k("en", target, words=False), AttentionSeq2Seq, arguments, vocab_size=vocab_size, epochs=epochs,
                        batch_size=batch_size, lr=lr, beam=beam, measured=measured)  # fmt: skip


def transformer_multi30k(*, target: Literal["de", "fr"] = "de", epochs: float = 30, batch_size: int = 128,
                         vocab_size: int = 6000, embed_dim: int = 128, num_layers: int = 4, num_heads: int = 4,
                         hidden_dim: int = 256, dropout: float = 0.3, lr: float = 4e-3, beam: int = 5,
                         measured: int | None = None) -> Experiment:  # fmt: skip
    """A Transformer translates descriptions of photographs from English.   LBDL 5.3, D2L 10.7, LEE Transformer

    target: language.   beam: of the translations that are measured, by sacreBLEU.
    measured: pairs for validation, and pairs for tests, that are translated; if not given, all
    Sub-words of both languages together are read and written, by one embedding.
    """
    arguments = {"embed_dim": embed_dim, "num_layers": num_layers, "num_heads": num_heads, "hidden_dim": hidden_dim,
                 "dropout": dropout, "shared": True}  # fmt: skip
    return _in_subwords(multi30k("en", target, words=False), Transformer, arguments, vocab_size=vocab_size, epochs=epochs,
                        batch_size=batch_size, lr=lr, beam=beam, measured=measured)  # fmt: skip


def translator(*, data: Path, model: Literal["transformer", "seq2seq"] = "transformer", epochs: float | None = None,
               batch_size: int | None = None, vocab_size: int | None = None, embed_dim: int | None = None,
               lr: float = 2e-3) -> Experiment:  # fmt: skip
    """A network learns to translate your pairs of sentences, or whatever else one text becomes another by.   D2L 9.5, 10.7

    data: a file with a pair a line, the source, a tab, the target
    model: transformer, or seq2seq, a GRU that looks back
    epochs: passes over the training pairs; if not given, by their number
    batch_size: pairs a step; if not given, by their number
    vocab_size: sub-words of both sides; if not given, by the number of pairs
    embed_dim: width; if not given, by the number of pairs
    lr: the largest learning rate
    """
    corpus = own_pairs(data)
    count = len(corpus.train)
    embed_dim = embed_dim or (128 if count < 10_000 else 256)
    epochs = epochs or round(min(60, max(4, 900_000 / count)))
    batch_size = batch_size or min(128, max(8, 2 ** round(math.log2(count / 30))))
    vocab_size = vocab_size or min(8000, max(500, count // 400 * 100))
    arguments: dict[str, Any] = {
        "embed_dim": embed_dim,
        "hidden_dim": 2 * embed_dim,
        "dropout": 0.3 if count < 100_000 else 0.1,
    }
    if model == "transformer":
        arguments |= {"num_layers": 3 if count < 10_000 else 4, "num_heads": 4, "shared": True}
    make = Transformer if model == "transformer" else AttentionSeq2Seq
    return _in_subwords(corpus, make, arguments, batch_size=batch_size, vocab_size=vocab_size, epochs=epochs, lr=lr,
                        beam=5)  # fmt: skip

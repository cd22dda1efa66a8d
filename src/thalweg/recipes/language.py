"""Recipes that read and write: a name in, an experiment out."""

from collections import Counter
from pathlib import Path
from typing import Any, Literal

from thalweg.build import build, load
from thalweg.data.documents import joined, own_documents
from thalweg.data.pretraining import wikitext2_words
from thalweg.data.sources import penn_treebank, time_machine, tiny_shakespeare
from thalweg.data.subwords import Subwords, learn_subwords
from thalweg.data.text import Characters, Partition, WholeWords, Windows
from thalweg.layers.attention import head_count
from thalweg.models.language.both_sides import BothSides
from thalweg.models.language.recurrent import RecurrentLanguageModel
from thalweg.models.language.rotary_gpt import RotaryGPT
from thalweg.models.language.sampled import Sampled
from thalweg.models.language.transformer_xl import TransformerXL
from thalweg.tasks.continuous_cache import ContinuousCache
from thalweg.tasks.filling_in import FillingIn
from thalweg.tasks.language_modelling import LanguageModelling
from thalweg.tasks.memory_lengths import MemoryLengths
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw, muon
from thalweg.training.schedules import hold, linear, warmup


def gpt_shakespeare(*, epochs: int = 8, batch_size: int = 32, context: int = 128, embed_dim: int = 256, num_layers: int = 4,
                    num_heads: int = 4, dropout: float = 0.0, lr: float = 0.02,
                    weight_decay: float = 0.0) -> Experiment:  # fmt: skip
    """A GPT learns to write plays, a character at a time.   LBDL 5.3, D2L 8.5, 10.7

    Validated on the last tenth of the text in windows side by side: every character but the first counts once.
    """
    text = tiny_shakespeare()
    alphabet = "".join(sorted(set(text)))
    tokens = Characters(alphabet).encode(text)
    train, valid = tokens.tensor_split([int(0.9 * len(tokens))])
    model = build(RotaryGPT, vocab_size=len(alphabet), embed_dim=embed_dim, num_layers=num_layers, num_heads=num_heads,
                  dropout=dropout)  # fmt: skip
    task = build(LanguageModelling, model=model, alphabet=alphabet, context=context)
    optimizer = muon(lr, weight_decay=weight_decay, other=adamw(0.15 * lr, betas=(0.9, 0.95), weight_decay=0.0))
    return Experiment(task=task, train=Windows(train, context, batch_size, shuffle=True), valid=Windows(valid, context, 64),
                      epochs=epochs, optimizer=optimizer, schedule=warmup(0.05, hold(0.55, linear())),
                      monitor="loss")  # fmt: skip


def gpt_wikitext2(*, samples: int = 4096, epochs: float = 10, batch_size: int = 16, context: int = 128, embed_dim: int = 256,
                  num_layers: int = 4, num_heads: int = 4, dropout: float = 0.3, lr: float = 0.02, weight_decay: float = 0.0,
                  measured: int | None = None) -> Experiment:  # fmt: skip
    """A GPT learns articles of Wikipedia, a word at a time, of 33,278.   D2L 14.9

    samples: words that the next one is told from in training, see `Sampled`; it is measured against all, by itself and with
    a cache of the last 2,000 words, see `CachedPerplexity`.
    measured: words of validation and of test that count, the first; if not given, all, each but the first once
    """
    parts = wikitext2_words()
    counts = Counter(parts[0])
    words = " ".join(word for word, _ in counts.most_common())
    train, valid, test = (WholeWords(words).encode(" ".join(part)) for part in parts)
    network = build(RotaryGPT, vocab_size=len(counts), embed_dim=embed_dim, num_layers=num_layers, num_heads=num_heads,
                    dropout=dropout, tied=True)  # fmt: skip
    model = build(Sampled, network=network, counts=[counts[word] for word in words.split()], samples=samples, dropout=dropout)
    task = build(ContinuousCache, model=model, alphabet=words, context=context)
    optimizer = muon(lr, weight_decay=weight_decay, other=adamw(0.15 * lr, betas=(0.9, 0.95), weight_decay=weight_decay))
    held, tested = (Windows(part[:measured], context, 8, stride=context // 2) for part in (valid, test))
    stream = Windows(train, context, batch_size, shuffle=True)
    return Experiment(task=task, train=stream, valid=held, test=tested, epochs=epochs, optimizer=optimizer, monitor="loss",
                      schedule=warmup(0.05, hold(0.45, linear())), evaluate_every=2 * len(stream))  # fmt: skip


def transformer_xl_shakespeare(*, memory: int = 256, epochs: float = 4, batch_size: int = 32, context: int = 64,
                               embed_dim: int = 192, num_layers: int = 3, num_heads: int = 4, dropout: float = 0.1,
                               lr: float = 0.015) -> Experiment:  # fmt: skip
    """A Transformer reads plays in segments of 64 characters and remembers what it read before.   LEE: Smaller Model

    memory: places that each layer remembers in training; it is measured with none, a quarter, half and all of them.
    The last twentieth of the text is for the test, the one before for validation.
    """
    text = tiny_shakespeare()
    alphabet = "".join(sorted(set(text)))
    parts = Characters(alphabet).encode(text).tensor_split([int(0.9 * len(text)), int(0.95 * len(text))])
    model = build(TransformerXL, vocab_size=len(alphabet), embed_dim=embed_dim, num_layers=num_layers, num_heads=num_heads,
                  memory=memory, dropout=dropout)  # fmt: skip
    task = build(MemoryLengths, model=model, alphabet=alphabet, context=context + memory, rows=batch_size,
                 memories=[0, memory // 4, memory // 2, memory])  # fmt: skip
    train = Partition(parts[0], context, batch_size, shuffle=True)
    valid, test = (Partition(part, context, 16) for part in parts[1:])
    return Experiment(task=task, train=train, valid=valid, test=test, epochs=epochs, clip=1.0, monitor="loss",
                      optimizer=muon(lr, other=adamw(0.15 * lr, betas=(0.9, 0.95), weight_decay=0.0)),
                      schedule=warmup(0.05, hold(0.45, linear())), evaluate_every=2 * len(train))  # fmt: skip


def rnn_time_machine(*, cell: Literal["rnn", "gru", "lstm", "irnn", "scrn", "qrnn"] = "gru", num_layers: int = 1,
                     hidden_dim: int = 256, partition: Literal["random", "sequential"] = "random",
                     by_heart: bool = True, epochs: int = 500, batch_size: int = 32, context: int = 35, dropout: float = 0.0,
                     lr: float = 2e-3) -> Experiment:  # fmt: skip
    """A recurrent network learns The Time Machine, a character at a time.   D2L 8.5, 9.1-9.3

    cell: what remembers, see `RecurrentLanguageModel`.
    by_heart: as in D2L it learns the first 10,000 characters and is measured on those; if not, on the book's last tenth.
    partition: whether a batch holds random windows, or goes on where the one before ended and the state is kept.
    """
    text = time_machine()
    alphabet = "".join(sorted(set(text)))
    tokens = Characters(alphabet).encode(text)
    train, valid = (tokens[:10_000],) * 2 if by_heart else tokens.tensor_split([int(0.9 * len(tokens))])
    model = build(RecurrentLanguageModel, vocab_size=len(alphabet), hidden_dim=hidden_dim, num_layers=num_layers, cell=cell,
                  dropout=dropout)  # fmt: skip
    unbroken = partition == "sequential"
    task = build(LanguageModelling, model=model, alphabet=alphabet, context=len(text), rows=batch_size if unbroken else 0)
    stream = (Partition if unbroken else Windows)(train, context, batch_size, shuffle=True)
    return Experiment(task=task, train=stream, valid=Partition(valid, 500, 1), epochs=epochs, clip=1.0,
                      optimizer=adamw(lr, weight_decay=0.0), schedule=linear(), monitor="loss")  # fmt: skip


def rnn_ptb(*, cell: Literal["rnn", "gru", "lstm", "irnn", "scrn", "qrnn"] = "lstm", num_layers: int = 2, hidden_dim: int = 400,
            tied: bool = True, dropout: float = 0.5, epochs: float = 20, batch_size: int = 32, context: int = 35,
            lr: float = 3e-3, weight_decay: float = 0.0) -> Experiment:  # fmt: skip
    """A recurrent network learns the Wall Street Journal, a word at a time.   D2L 9.2, LEE: LSTM

    cell: what remembers, see `RecurrentLanguageModel`.   tied: whether words are read and said by the same vectors.
    10,000 words are known; the state is kept from batch to batch. Every word of the test but the first counts.
    """
    parts = penn_treebank()
    words = " ".join(word for word, _ in Counter(parts[0]).most_common())
    train, valid, test = (WholeWords(words).encode(" ".join(part)) for part in parts)
    model = build(RecurrentLanguageModel, vocab_size=len(words.split()), embed_dim=hidden_dim, hidden_dim=hidden_dim,
                  num_layers=num_layers, cell=cell, dropout=dropout, tied=tied)  # fmt: skip
    task = build(LanguageModelling, model=model, alphabet=words, context=len(train), rows=batch_size, words=True)
    return Experiment(task=task, train=Partition(train, context, batch_size, shuffle=True), valid=Partition(valid, 100, 10),
                      test=Partition(test, 31, 1), epochs=epochs, clip=1.0, monitor="loss",
                      optimizer=adamw(lr, weight_decay=weight_decay), schedule=warmup(0.02, linear()))  # fmt: skip


def gaps_time_machine(*, sides: Literal["both", "before"] = "both", epochs: float = 20, batch_size: int = 32,
                      context: int = 63, embed_dim: int = 64, hidden_dim: int = 192,
                      lr: float = 3e-3) -> Experiment:  # fmt: skip
    """A network fills gaps in The Time Machine, by what is before them and what is after.   D2L 9.4

    sides: both, or only what is before, to see what the other side is worth.   The book's last tenth is measured on.
    """
    text = time_machine()
    alphabet = "".join(sorted(set(text)))
    train, valid = (tokens := Characters(alphabet).encode(text)).tensor_split([int(0.9 * len(tokens))])
    model = build(BothSides, vocab_size=len(alphabet), embed_dim=embed_dim, hidden_dim=hidden_dim, sides=sides)
    return Experiment(task=build(FillingIn, model=model, alphabet=alphabet), valid=Windows(valid, context, 64), epochs=epochs,
                      train=Windows(train, context, batch_size, shuffle=True), optimizer=adamw(lr, weight_decay=1e-2),
                      schedule=warmup(0.05, linear()), clip=1.0, monitor="loss")  # fmt: skip


def language_model(
    *,
    data: Path,
    pretrained: Path | None = None,
    epochs: float | None = None,
    batch_size: int | None = None,
    context: int | None = None,
    vocab_size: int | None = None,
    embed_dim: int | None = None,
    num_layers: int = 4,
    dropout: float = 0.1,
    lr: float | None = None,
) -> Experiment:
    """A GPT learns to write as your texts are written: a folder, a file, or lines of JSON.   LBDL 5.3, D2L 14.6

    data: FOLDER of .txt and .md files, a file of text, or FILE.jsonl with a "text" a line
    pretrained: a run of this recipe, whose sub-words and network learn on; vocab_size, embed_dim, num_layers and dropout are
    then those that it has
    epochs: passes over the training texts; if not given, by their number of tokens
    batch_size: windows a step; if not given, by the number of tokens
    context: tokens that are read at most; if not given, 256, or as many as the held-out texts have
    vocab_size: sub-words, learned from your texts in whatever language they are; if not given, by their length
    embed_dim: width; if not given, by the number of tokens
    num_layers: blocks
    dropout: share of the values that are hidden in training, against learning by heart
    lr: the largest learning rate; if not given, 0.02, of a pretrained network a quarter of that
    """
    documents = own_documents(data)
    letters = sum(map(len, documents.train))
    if pretrained:
        before: Any = load(pretrained / "model")
        if not isinstance(before, LanguageModelling) or not isinstance(before.characters, Subwords):
            raise ValueError(f"pretrained={pretrained}: expected a run of language-model")
        network, tokenizer, whose = before.model.train(), before.characters.text, f"those of {pretrained}"
        reads = before.context  # as before, however short your texts are: what went on from one model can be merged
    else:
        tokenizer = learn_subwords(documents.train, vocab_size or min(8000, max(400, letters // 300)))
        network, whose, reads = None, "learned from your texts", None
    subwords = Subwords(tokenizer)
    train, valid, test = (joined(part, subwords) for part in (documents.train, documents.valid, documents.test))
    longest = min(len(valid) - 1, len(test) - 1, len(train) // 2)
    if longest < 8:
        raise ValueError(f"data={data}: {len(train) - 1:,} tokens to train on, {len(valid) - 1:,} and {len(test) - 1:,} to "
                         "measure by, expected at least 16, 8 and 8")  # fmt: skip
    if context is not None and not 2 <= context <= longest:
        raise ValueError(f"context={context}: expected 2 to {longest:,}, what your texts allow")
    context = context or min(reads or 256, longest)
    size, count = len(subwords), len(train)
    embed_dim = embed_dim or (128 if count < 200_000 else 256 if count < 5_000_000 else 384)
    batch_size = batch_size or max(1, min(32, count // context // 8))
    epochs = epochs or round(min(40, max(1, 4_000_000 / count)))
    lr = lr or (0.005 if pretrained else 0.02)
    model = network or build(RotaryGPT, vocab_size=size, embed_dim=embed_dim, num_layers=num_layers,
                             num_heads=head_count(embed_dim, 64), dropout=dropout, tied=True)  # fmt: skip
    task = build(LanguageModelling, model=model, tokenizer=tokenizer, context=reads or context)
    stream = Windows(train, context, batch_size, shuffle=True)
    parts = {"train": documents.train, "valid": documents.valid, "test": documents.test}
    notes = {
        "documents": ", ".join(f"{name} {len(part):,}" for name, part in parts.items()),
        "sub-words": f"{size:,}, {whose}; {count:,} to train on, {letters / count:.2f} characters each",
        "training": f"RotaryGPT of {sum(p.numel() for p in model.parameters()):,} parameters, {epochs:g} epochs of "
                    f"{len(stream)} batches of {batch_size} times {context}, Muon at {lr:g}",
        **({"left out": "; ".join(documents.faults.lines())} if documents.faults else {}),
    }  # fmt: skip
    return Experiment(task=task, train=stream, valid=Windows(valid, context, 16), test=Windows(test, context, 16),
                      epochs=epochs, optimizer=muon(lr, other=adamw(0.15 * lr, betas=(0.9, 0.95), weight_decay=0.0)),
                      schedule=warmup(0.05, hold(0.45, linear())), monitor="loss", notes=notes)  # fmt: skip

"""A recipe in which every way to attend reads the same long texts."""

from typing import Literal

import torch
from torch.nn.functional import avg_pool2d

from thalweg.build import build
from thalweg.data.list_operations import WORDS, list_operations
from thalweg.data.sources import mnist, tiny_shakespeare
from thalweg.data.streams import Stream, TensorStream, take
from thalweg.data.text import Characters, Windows
from thalweg.models.sequence.long_reader import BOTH_SIDES, WAYS, Readers
from thalweg.tasks.long_range import LongRange
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import linear, warmup
from thalweg.vocabulary import Batch

GREYS = 16


def _pixels(images: Batch) -> Batch:
    """Digits of 14x14, row by row, the grey of each pixel a token."""
    grey = avg_pool2d(images["image"].float(), 2).flatten(1)
    return {"tokens": (grey * (GREYS / 256)).long(), "label": images["label"]}


def _course(name: str, context: int, batch_size: int) -> tuple[Stream, Stream, int, int | None]:
    """Streams to learn from and to be tested by; how many tokens there are, and classes."""
    if name == "listops":
        train, test = (list_operations(count, context, seed) for seed, count in enumerate((20_000, 1_000)))
        return TensorStream(train, batch_size, shuffle=True), TensorStream(test, 100), len(WORDS), 10
    if name == "pixels":
        splits = mnist()
        train, test = _pixels(splits.train), take(_pixels(splits.test), torch.arange(1_000))
        return TensorStream(train, batch_size, shuffle=True), TensorStream(test, 100), GREYS, 10
    text = tiny_shakespeare()
    alphabet = "".join(sorted(set(text)))
    known, unseen = Characters(alphabet).encode(text).tensor_split([int(0.9 * len(text))])
    last = len(unseen) // context * context  # whole windows alone
    return (Windows(known, context, batch_size, shuffle=True), Windows(unseen[: last - context + 1], context, 8), len(alphabet),
            None)  # fmt: skip


def long_range_arena(*, course: Literal["listops", "pixels", "shakespeare"] = "listops", ways: str = "all",
                     epochs: float | None = None, embed_dim: int = 64, num_layers: int = 2, num_heads: int = 2,
                     lr: float = 2e-3) -> Experiment:  # fmt: skip
    """All ways to attend learn the same: how good each is, how fast, how much memory it takes.   LEE: Attention Variant

    course: lists within lists of up to 128 words; the 196 pixels of a digit, one after the other; or plays, of which 1,024
    characters are read and each is foretold, by the ways that can look backwards only
    ways: names, with commas between; docs/attention.md says what each is
    epochs: by default as many as suit the course
    """
    context, window, batch_size, usual = {
        "listops": (128, 16, 64, 2.0), "pixels": (196, 28, 64, 0.5), "shakespeare": (1024, 32, 8, 2.5)
    }[course]  # fmt: skip
    train, test, vocab_size, num_classes = _course(course, context, batch_size)
    known = [way for way in WAYS if num_classes or way not in BOTH_SIDES]
    names = known if ways == "all" else ways.split(",")
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(f"ways={ways!r}: {unknown} do not read this; expected some of {', '.join(known)}")
    players = build(Readers, ways=names, vocab_size=vocab_size, context=context, num_classes=num_classes, embed_dim=embed_dim,
                    num_layers=num_layers, num_heads=num_heads, window=window)  # fmt: skip
    task = build(LongRange, players=players, names_classes=num_classes is not None)
    return Experiment(task=task, train=train, test=test, epochs=epochs or usual, clip=1.0, schedule=warmup(0.1, linear()),
                      optimizer={f"players.{name}": adamw(lr, weight_decay=0.01) for name in names})  # fmt: skip

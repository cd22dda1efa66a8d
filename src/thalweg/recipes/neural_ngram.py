"""Recipes for neural n-gram models: the next word from the few before it."""

from collections import Counter
from typing import Literal

from thalweg.build import build
from thalweg.data.sources import penn_treebank
from thalweg.data.text import WholeWords, Windows
from thalweg.models.language.ngram import NGram
from thalweg.models.language.nnlm import LBL, NNLM
from thalweg.tasks.language_modelling import LanguageModelling
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import linear, warmup


def nnlm_ptb(*, model: Literal["nnlm", "lbl"] = "nnlm", hierarchical: bool = False, order: int = 6, embed_dim: int = 200,
             hidden_dim: int = 400, dropout: float = 0.4, epochs: float = 9, batch_size: int = 16, context: int = 64,
             lr: float = 1e-3, weight_decay: float = 0.0, measured: int | None = None) -> Experiment:  # fmt: skip
    """A network foretells the next word of the Wall Street Journal from the five before it.   LEE: LM

    model: nnlm, with a layer of tanh of hidden_dim units; or lbl, the log-bilinear one, of embed_dim alone.
    hierarchical: words are told by their way down a tree.   order: words of an n-gram, the foretold one among them.
    measured: words of validation and of test that count, the first; all if None.
    The perplexity of a trigram model with Kneser-Ney smoothing, counted from the same words, stands in the notes.
    """
    texts = penn_treebank()
    frequent = Counter(texts[0]).most_common()
    words = " ".join(word for word, _ in frequent)
    train, valid, test = (WholeWords(words).encode(" ".join(part)) for part in texts)
    trigram = NGram(3, len(frequent)).fit(train)
    network = build(
        NNLM if model == "nnlm" else LBL,
        vocab_size=len(frequent),
        order=order,
        embed_dim=embed_dim,
        dropout=dropout,
        **({"hidden_dim": hidden_dim} if model == "nnlm" else {}),
        **({"counts": [count for _, count in frequent]} if hierarchical else {}),
    )
    task = build(LanguageModelling, model=network, alphabet=words, context=len(train), words=True)
    parts = {"valid": valid[:measured], "test": test[:measured]}
    counted = {part: float(trigram.surprise(tokens)[1:].mean().exp()) for part, tokens in parts.items()}
    held, tested = (Windows(tokens, 128, 16, stride=129 - order) for tokens in parts.values())
    return Experiment(task=task, train=Windows(train, context, batch_size, shuffle=True), valid=held, test=tested,
                      epochs=epochs, clip=1.0, monitor="loss", optimizer=adamw(lr, weight_decay=weight_decay),
                      schedule=warmup(0.02, linear()),
                      notes={"trigrams with Kneser-Ney smoothing": ", ".join(
                          f"{part} perplexity {value:.1f}" for part, value in counted.items())})  # fmt: skip

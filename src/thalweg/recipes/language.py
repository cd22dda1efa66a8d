"""Recipes that read and write: a name in, an experiment out."""

from thalweg.build import build
from thalweg.data.sources import tiny_shakespeare
from thalweg.data.text import Characters, Windows
from thalweg.models.language.rotary_gpt import RotaryGPT
from thalweg.tasks.language_modelling import LanguageModelling
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

"""A recipe that learns several tasks at once, each a text that becomes a text.   LEE BERT"""

from collections import Counter
from pathlib import Path
from typing import Any

from thalweg.build import build, load
from thalweg.data.subwords import Subwords, learn_subwords
from thalweg.data.text_to_text import KINDS, Assignments, assignments
from thalweg.layers.attention import head_count
from thalweg.models.sequence.t5 import T5
from thalweg.tasks.text_to_text import TextToText
from thalweg.tasks.transduction import Transduction
from thalweg.training import Experiment
from thalweg.training.optimisers import adafactor
from thalweg.training.schedules import linear, warmup


def text_to_text(*, pretrained: Path | None = None, updates: int = 3000, batch_size: int = 64, vocab_size: int = 4000,
                 embed_dim: int = 128, num_layers: int = 2, dropout: float = 0.1, lr: float = 0.02, limit: int = 7000,
                 measured: int = 400) -> Experiment:  # fmt: skip
    """One T5 translates, judges film reviews and says what follows from what, as the first words of a text ask it.   LEE BERT

    pretrained: a run of restoring-wikitext2 or of this; if not given, a T5 of vocab_size, embed_dim, num_layers and dropout
    learns from nothing
    limit: texts of each task to learn from at most: of translations there are more than of all else
    measured: texts of each task for validation, and for tests
    """
    if limit < 1:
        raise ValueError(f"limit={limit}: expected at least 1")
    train, valid, test = assignments(limit, measured)
    if pretrained:
        before: Any = load(pretrained / "model")
        if not isinstance(before, Transduction) or not isinstance(before.source, Subwords):
            raise ValueError(f"pretrained={pretrained}: expected a run of restoring-wikitext2")
        model, tokenizer = before.model, before.source.text
    else:
        tokenizer = learn_subwords((text for one in train for text in one[:2]), vocab_size)
        model = build(T5, vocab_size=len(Subwords(tokenizer)), embed_dim=embed_dim, num_layers=num_layers,
                      num_heads=head_count(embed_dim, 32), head_dim=32, hidden_dim=4 * embed_dim, dropout=dropout)  # fmt: skip
    subwords = Subwords(tokenizer)
    learned = Assignments(train, subwords, batch_size, shuffle=True)
    longest = 10 + max(map(len, learned.ragged["target_tokens"]))
    task = build(TextToText, model=model, tokenizer=tokenizer, tasks=[kind.name for kind in KINDS],
                 answers=[kind.answers for kind in KINDS], longest=longest)  # fmt: skip
    notes = {kind.name: _told([one.target for one in train if one.task == number], bool(kind.answers))
             for number, kind in enumerate(KINDS)}  # fmt: skip
    notes["parameters"] = f"{sum(p.numel() for p in model.parameters()):,}, " + (
        f"from {pretrained}" if pretrained else "that have learned nothing before (see --pretrained)")  # fmt: skip
    return Experiment(task=task, train=learned, valid=Assignments(valid, subwords, 100), test=Assignments(test, subwords, 100),
                      steps=updates, clip=1.0, monitor="score", optimizer=adafactor(lr),
                      schedule=warmup(0.1, linear()), evaluate_every=max(1, updates // 5), notes=notes)  # fmt: skip


def _told(targets: list[str], closed: bool) -> str:
    """How many texts a task has to learn from, and, of one with answers, how often the most frequent of these is right."""
    share = f", of which {max(Counter(targets).values()) / len(targets):.1%} are {Counter(targets).most_common(1)[0][0]}"
    return f"{len(targets):,} texts" + (share if closed else "")

"""A language in which every second word has two words in the other: pairs whose right translation and fertilities are known."""

import random

from thalweg.build import build
from thalweg.data.pairs import Pairs
from thalweg.models.sequence.parallel import ParallelTransformer
from thalweg.training import Experiment
from thalweg.training.loop import Training, evaluate
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import linear

WORDS = 8
KNOWN = {
    "source_words": " ".join(f"s{word}" for word in range(WORDS)),
    "target_words": " ".join(f"t{word} u{word}" for word in range(WORDS)),
    "longest": 12,
}


def phrases(count, seed, longest=3):
    """Pairs such as ("s2 s1 s6", "t2 t1 u1 t6")."""
    draw = random.Random(seed)
    chosen = [[draw.randrange(WORDS) for _ in range(draw.randint(1, longest))] for _ in range(count)]
    told = [" ".join(f"t{word} u{word}" if word % 2 else f"t{word}" for word in words) for words in chosen]
    return [(" ".join(f"s{word}" for word in words), said) for words, said in zip(chosen, told, strict=True)]


TRAIN, VALID = phrases(1000, 1), phrases(200, 2)


def network(**sizes):
    given = {"source_vocab_size": 4 + WORDS, "target_vocab_size": 4 + 2 * WORDS, "embed_dim": 32, "hidden_dim": 64,
             "num_layers": 2, "num_heads": 4, "dropout": 0.0}  # fmt: skip
    return build(ParallelTransformer, **{**given, **sizes})


def tokens(task, pairs):
    """Sources and targets."""
    return [[words.encode(pair[side]) for pair in pairs] for side, words in enumerate((task.source, task.target))]


def learned(task, steps, train=TRAIN, valid=VALID, stream=Pairs, lr=0.006):
    """Metrics after a short training, and the task.   stream: sources, targets, batch_size -> batches"""
    seen, held = stream(*tokens(task, train), 64, shuffle=True), stream(*tokens(task, valid), 300)
    experiment = Experiment(task=task, train=seen, valid=held, steps=steps, optimizer=adamw(lr), schedule=linear(), clip=1.0)
    training = Training(experiment, precision="fp32")
    for _ in training:
        pass
    return dict(evaluate(training, experiment.valid)), task.eval()

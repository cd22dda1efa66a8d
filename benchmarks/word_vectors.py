"""Skip-gram with negative sampling, words a second and what was learned, against gensim.

The same work in both: the part of text8 at hand, words seen five times or more, 100 dimensions, a window of 5, 5 negatives,
frequent words thinned out at 1e-3, 5 passes, the rate from 0.025 to nothing, two threads without locks; CBOW too.
What differs: our steps go through the loop of all recipes, in batches of 10,000 words whose numbers are known beforehand, where
gensim looks every word up in each pass; our CBOW takes the true slope of the mean, at a rate of 0.15, where gensim's gives each
word that of the whole, at 0.025.
"""

import json
import sys
import time

import torch
from compare import alternate

from thalweg.build import build
from thalweg.data.sources import text8
from thalweg.data.text import vocabulary
from thalweg.data.word_vectors import MEASURES, questions
from thalweg.data.word_windows import WordWindows
from thalweg.models.language.word2vec import Word2Vec
from thalweg.models.language.word_table import WordTable
from thalweg.tasks.word_vectors import WordVectors
from thalweg.training import Experiment, Training
from thalweg.training.optimisers.hogwild import hogwild
from thalweg.training.schedules import linear

THREADS, EPOCHS, REPEATS = 2, 5, 3
SHARED = {"embed_dim": 100, "window": 5, "negatives": 5, "least": 5, "threshold": 1e-3}
WORDS = text8()
KNOWN = vocabulary(WORDS, SHARED["least"])
TOKENS = KNOWN.encode(WORDS)
SENTENCES = [WORDS[start : start + 1000] for start in range(0, len(WORDS), 1000)]
LEARNED: dict[str, WordVectors] = {}


def ours(method: str) -> float:
    torch.manual_seed(0)
    model = build(Word2Vec, counts=KNOWN.counts, embed_dim=SHARED["embed_dim"], method=method, negatives=SHARED["negatives"])
    task = build(WordVectors, model=model, words=" ".join(KNOWN.words), measured=[*MEASURES], pairwise=True)
    stream = WordWindows(TOKENS, KNOWN.counts, SHARED["window"], 10_000, SHARED["threshold"])
    rate = hogwild(0.025 if method == "skip-gram" else 0.15)
    training = Training(Experiment(task=task, train=stream, epochs=EPOCHS, optimizer=rate, schedule=linear()), device="cpu",
                        precision="fp32")  # fmt: skip
    start = time.perf_counter()
    for _ in training:
        pass
    taken = time.perf_counter() - start
    LEARNED[f"ours, {method}"] = training.task
    return taken


def peer(method: str) -> float:
    import gensim

    model = gensim.models.Word2Vec(
        vector_size=SHARED["embed_dim"], window=SHARED["window"], min_count=SHARED["least"], workers=THREADS, seed=0,
        sg=method == "skip-gram", negative=SHARED["negatives"], sample=SHARED["threshold"],
    )  # fmt: skip
    model.build_vocab(SENTENCES)
    start = time.perf_counter()
    model.train(SENTENCES, total_examples=model.corpus_count, epochs=EPOCHS)
    taken = time.perf_counter() - start
    table = build(WordTable, vocab_size=len(model.wv), embed_dim=SHARED["embed_dim"])
    with torch.no_grad():
        table.embedding.weight.copy_(torch.from_numpy(model.wv.vectors.copy()))
    LEARNED[f"gensim, {method}"] = build(WordVectors, model=table, words=" ".join(model.wv.index_to_key), measured=[*MEASURES])
    return taken


def quality(task: WordVectors) -> dict[str, float]:
    task.eval()
    for batch in questions(task.number)[0] or ():
        task.evaluate(batch)
    return {name: round(float(task.metrics[name].compute()), 3) for name in MEASURES}


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    if sys.argv[1:] == ["quick"]:  # to see that it runs
        EPOCHS, REPEATS = 1, 1
    seconds = {}
    for method in ("skip-gram", "cbow"):
        runs = {f"ours, {method}": lambda method=method: ours(method), f"gensim, {method}": lambda method=method: peer(method)}
        seconds |= alternate(runs, REPEATS)
    print(json.dumps({
        "words_per_s": {name: round(EPOCHS * len(WORDS) / taken) for name, taken in seconds.items()},
        "ratio": {name: round(seconds[f"gensim, {name}"] / seconds[f"ours, {name}"], 2) for name in ("skip-gram", "cbow")},
        "quality": {name: quality(task) for name, task in LEARNED.items()},
        "threads": THREADS,
        "shared": SHARED,
    }))  # fmt: skip

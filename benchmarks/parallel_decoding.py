"""Translating in parallel: sentences a second of one pass and of Mask-Predict, against a word after the other.

Networks of one size (3 layers of 192, 7,588 words) with random weights, which never end by themselves, so that all write the
same number of words: what is measured is the decoding alone. The quality stands in the results of the recipes.
fp32, one thread. The cached greedy search and the beam of four are the library's own.
"""

import json
import time
from collections.abc import Callable
from functools import partial

import torch
from compare import alternate

from thalweg.data.pairs import BOS, EOS, PAD
from thalweg.decoding.parallel import mask_predict
from thalweg.decoding.search import beam_search
from thalweg.models.sequence.parallel import ParallelTransformer
from thalweg.models.sequence.transformer import Transformer
from thalweg.tasks.non_autoregressive import read_with

SIZES = {"source_vocab_size": 4914, "target_vocab_size": 7588, "embed_dim": 192, "num_layers": 3, "num_heads": 4,
         "hidden_dim": 512}  # fmt: skip
SENTENCES = 64


def timed(work: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            work()
        return time.perf_counter() - start

    return run


def measure(words: int, batch: int) -> dict[str, float]:
    """Sentences a second of each way to write that many words, in batches of that size."""
    torch.manual_seed(0)
    teacher, student = Transformer(**SIZES).eval(), ParallelTransformer(**SIZES).eval()
    source = torch.randint(4, 4914, (batch, words))
    seen = torch.ones_like(source, dtype=torch.bool)
    rounds = max(1, SENTENCES // batch)

    def one_by_one(beam: int) -> None:
        for _ in range(rounds):
            beam_search(teacher, source, seen, bos=BOS, eos=EOS, pad=PAD, beam=beam, length=words)

    def passes(iterations: int) -> None:
        for _ in range(rounds):
            memory = student.encode(source, seen)
            mask_predict(partial(read_with, student, memory), seen, iterations, unwritten=BOS, pad=PAD)

    ways = {"greedy": timed(lambda: one_by_one(1)), "beam_4": timed(lambda: one_by_one(4))}
    ways |= {f"passes_{count}": timed(lambda count=count: passes(count)) for count in (1, 4, 10)}  # type: ignore[misc]
    return {name: round(rounds * batch / seconds, 1) for name, seconds in alternate(ways, 3).items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {f"{words}_words_batch_{batch}": measure(words, batch) for words in (10, 30) for batch in (1, 64)}
    print(json.dumps({"sentences_per_s": found}, indent=2))

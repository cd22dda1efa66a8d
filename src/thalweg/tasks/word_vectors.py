"""Vectors of words are learned from who stands near whom, and asked who is like whom.   D2L 14.1-14.7"""

import difflib
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchmetrics import MetricCollection, SpearmanCorrCoef

from thalweg import figures
from thalweg.data.word_vectors import MEASURES
from thalweg.metrics import MeanLoss, Share
from thalweg.training import Task
from thalweg.vocabulary import Batch

SHOWN = 64  # words of a batch whose loss is told where the model descends by itself
THREADS = ThreadPoolExecutor(thread_name_prefix="pairwise")  # none before there is work
MAPPED = 240  # words on the map


class WordVectors(Task):
    """The words that a model has vectors of: neighbours by the angle, and analogies, d = b - a + c.

    model: with `loss(batch)`, the sum over the pairs and their number, and `vectors()` [word dim].
    words: with spaces between them, in the order of their vectors.
    measured: which of MEASURES the questions ask; if none, the loss is measured, of batches as in training.
        wordsim, simlex: rank correlation of the cosine with how alike people find two words
        ..._analogies: share of the questions whose right word is nearest to b - a + c, a, b and c left out
    pairwise: the model takes a step for every pair itself, see `hogwild`; the loss told is then of the first words of a batch.
    """

    reads = "text"

    def __init__(self, model: nn.Module, words: str, measured: list[str], pairwise: bool = False):
        super().__init__()
        self.model, self.pairwise = model, pairwise
        self.words = words.split()
        self.number = {word: number for number, word in enumerate(self.words)}
        if unknown := set(measured) - set(MEASURES):
            raise ValueError(f"measured={measured}: {sorted(unknown)} are none of {', '.join(MEASURES)}")
        self.measured = measured
        kinds = {name: Share() if name.endswith("analogies") else SpearmanCorrCoef() for name in measured}
        self.metrics = MetricCollection({**(kinds or {"loss": MeanLoss()})}, compute_groups=False)
        self._batch: Batch = {}

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor | int]:
        if not (self.pairwise and self.training):
            return self.model.loss(batch)  # type: ignore[operator]
        self._batch = batch
        with torch.no_grad():
            total, count = self.model.loss({name: part[:SHOWN] for name, part in batch.items()})  # type: ignore[operator]
        return total.requires_grad_(), count  # a slope of nothing: `descend` finds that of each pair

    def descend(self, rate: float) -> None:
        """A step for every pair of the last batch, in as many parts at once as torch has threads.   ValueError off the CPU"""
        if (device := self._batch["tokens"].device).type != "cpu":
            raise ValueError(f"pairwise: pair by pair is for a processor, not for {device}; --device cpu, or --no-pairwise")
        step: Any = self.model.descend
        threads = torch.get_num_threads()
        parts = zip(*(part.tensor_split(threads) for part in self._batch.values()), strict=True)
        steps = [partial(step, dict(zip(self._batch, part, strict=True)), rate, state)
                 for part, state in zip(parts, torch.randint(2**62, (threads,)).tolist(), strict=True)]  # fmt: skip
        others = [THREADS.submit(one) for one in steps[1:]]
        steps[0]()
        for other in others:
            other.result()

    def evaluate(self, batch: Batch) -> None:
        if not self.measured:
            total, count = self.model.loss(batch)  # type: ignore[operator]
            self.metrics["loss"].update(total / max(int(count), 1), count)
            return
        vectors = normalize(self.model.vectors().float(), dim=-1)  # type: ignore[operator]
        for name in self.measured:
            asked = batch["label"] == MEASURES.index(name)
            words = batch["tokens"][asked]
            if not len(words):
                continue
            if name.endswith("analogies"):
                self.metrics[name].update((answered(vectors, words[:, :3]) == words[:, 3]).float())
            else:
                one, other = vectors[words[:, 0]], vectors[words[:, 1]]
                self.metrics[name].update((one * other).sum(-1), batch["score"][asked])

    def vector(self, word: str) -> Float[Tensor, " dim"]:
        """The vector of a word, of one that is not known by its pieces if the model can.   ValueError, with what is close."""
        if word in self.number:
            return self.model.vectors()[self.number[word]]  # type: ignore[operator]
        spelled = getattr(getattr(self.model, "embedding", None), "spelled", None)
        if spelled is None:
            close = difflib.get_close_matches(word, self.words, 3)
            hint = f", such as {', '.join(close)}" if close else ""
            raise ValueError(f"{word!r} is none of the {len(self.words):,} words known{hint}")
        return spelled(word)

    @torch.no_grad()
    def predict(self, inputs: dict[str, list[str]], *, count: int = 8) -> dict[str, Any]:
        """The words that are nearest, with the cosine of the angle; or, if asked `a : b :: c`, those to c as b is to a.

        count: of them.
        """
        vectors = normalize(self.model.vectors().float(), dim=-1)  # type: ignore[operator]
        named, cosines = [], []
        for text in inputs["text"]:
            asked = [word if word in self.number else word.lower() for word in re.split(r"[\s:]+", text.strip()) if word]
            if len(asked) not in (1, 3):
                raise ValueError(f"text={text!r}: expected a word, or three as in man : woman :: king")
            of = normalize(torch.stack([self.vector(word) for word in asked]).float(), dim=-1)
            cosine = vectors @ normalize(of[0] if len(asked) == 1 else of[1] - of[0] + of[2], dim=-1)
            cosine[[self.number[word] for word in asked if word in self.number]] = -2.0
            best = cosine.topk(min(count, len(cosine) - len(asked)))
            named.append([self.words[number] for number in best.indices.tolist()])
            cosines.append(best.values.tolist())
        lines = ["  ".join(f"{word} {cosine:.3f}" for word, cosine in zip(*row, strict=True))
                 for row in zip(named, cosines, strict=True)]  # fmt: skip
        return {"text": lines, "word": named, "cosine": cosines}

    @torch.no_grad()
    def figures(self, batch: Batch) -> dict[str, Figure]:
        """A map of words that are neither the most frequent nor rare: near on it are those whose vectors point the same way."""
        first = min(100, len(self.words) // 4)
        chosen = torch.arange(first, min(first + MAPPED, len(self.words)))
        place = figures.neighbourhoods(normalize(self.model.vectors()[chosen].float(), dim=-1))  # type: ignore[operator]
        return {"map of words": figures.labelled_points(place, [self.words[number] for number in chosen.tolist()])}


def answered(vectors: Float[Tensor, "word dim"], asked: Int[Tensor, "question 3"]) -> Int[Tensor, " question"]:
    """The word nearest to b - a + c, which is none of the three (3CosAdd).   vectors: of length 1"""
    a, b, c = vectors[asked].unbind(1)
    cosine = normalize(b - a + c, dim=-1) @ vectors.T
    return cosine.scatter(1, asked, -2.0).argmax(1)

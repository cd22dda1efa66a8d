"""Sequence labelling: what is each word of a sentence?   D2L 9.4, LEE: Sequence Labelling, Deep & Structured"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from thalweg import figures
from thalweg.data.labelled import Letters, WordsInPieces
from thalweg.data.pairs import WORD
from thalweg.data.text import HAN
from thalweg.layers.chain import LinearChain
from thalweg.metrics import MeanLoss, SpanF1, of_names
from thalweg.training import Task
from thalweg.vocabulary import Batch


class Labelling(Task):
    """The label of every word, each for itself, or all together by a chain that also scores neighbours (see `LinearChain`).

    objective: independent, the loss is - sum_t log softmax(logits_t)[y_t]; or crf, perceptron, svm: `LinearChain.cost`.
    batch: tokens, mask, label [batch time], letters [batch time letter].   words, alphabet: see `Letters`; or tokenizer: see
    `WordsInPieces`, for an encoder that reads pieces of words as letters.
    f1: of whole names, where labels are those of names (see `of_names`).
    """

    reads = "text"

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        words: str | None = None,
        alphabet: str | None = None,
        objective: str = "crf",
        tokenizer: str | None = None,
    ):
        super().__init__()
        objectives = ("independent", "crf", "perceptron", "svm")
        if objective not in objectives:
            raise ValueError(f"objective={objective!r}: expected one of {', '.join(objectives)}")
        self.model, self.classes, self.objective = model, tuple(classes), objective
        self.reader: Letters | WordsInPieces
        if tokenizer is not None and words is None and alphabet is None:
            self.reader = WordsInPieces(tokenizer)
        elif words is not None and alphabet is not None and tokenizer is None:
            self.reader = Letters(words, alphabet)
        else:
            raise ValueError("words, alphabet, tokenizer: expected both of the first, or the last")
        self.known = self.reader.words.number if isinstance(self.reader, Letters) else {}
        self.known_han = any(len(word) > 1 and re.fullmatch(f"[{HAN}]+", word) for word in self.known)
        self.chain = None if objective == "independent" else LinearChain(len(self.classes))
        self.metrics = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(len(self.classes), average="micro"),
                "confusion": MulticlassConfusionMatrix(len(self.classes)),
                "loss": MeanLoss(),
                **({"f1": SpanF1(self.classes)} if of_names(self.classes) else {}),
            },
            compute_groups=False,
        )

    def cost(self, logits: Tensor, batch: Batch) -> Tensor:
        """The loss of each sentence; of the independent labels one of each word."""
        label, mask = batch["label"], batch["mask"]
        if self.chain is None:
            return cross_entropy(logits[mask].float(), label[mask], reduction="none")
        return self.chain.cost(logits, label, mask, self.objective)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = self.model(batch["tokens"], batch["letters"], batch["mask"])
        return self.cost(logits, batch).sum(), batch["mask"].sum()

    def said(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The labels that it gives.   [batch time]"""
        return logits.argmax(-1) if self.chain is None else self.chain.best(logits, mask)[0][:, 0]

    def evaluate(self, batch: Batch) -> None:
        logits, mask = self.model(batch["tokens"], batch["letters"], batch["mask"]), batch["mask"]
        said, words = self.said(logits, mask), mask.sum()
        self.metrics["loss"].update(self.cost(logits, batch).sum() / words, words)
        for name in ("accuracy", "confusion"):
            self.metrics[name].update(said[mask], batch["label"][mask])
        if "f1" in self.metrics:
            self.metrics["f1"].update(said, batch["label"], mask)

    @torch.inference_mode()
    def predict(self, inputs: dict[str, list[str]], *, count: int = 1) -> dict[str, Any]:
        """text: the words of each text, each with its label.   count: so many ways to label it, the best first

        What stands between blanks is one word if it is known as such, else letters and marks are apart; so are the characters
        of Chinese, where no word of two of them is known.
        """
        if count < 1 or (count > 1 and self.chain is None):
            raise ValueError(f"count={count}: expected at least 1, and 1 where labels are independent")
        texts = []
        for text in inputs["text"]:
            words = self.cut(text)
            if not words:
                raise ValueError(f"text: {text!r} has no word")
            tokens, letters = (x[None].to(next(self.model.parameters()).device) for x in self.reader.encode(words))
            mask = torch.ones_like(tokens, dtype=torch.bool)
            logits = self.model(tokens, letters, mask)
            found = self.chain.best(logits, mask, count)[0][0] if self.chain else logits.argmax(-1)
            texts.append("\n".join(" ".join(f"{word}/{self.classes[label]}" for word, label in zip(words, row, strict=True))
                                   for row in found.tolist()))  # fmt: skip
        return {"text": texts}

    def cut(self, text: str) -> list[str]:
        """The words of a text, see `predict`."""
        words = [word for part in text.split() for word in ([part] if part.lower() in self.known else WORD.findall(part))]
        return words if self.known_han else [piece for word in words for piece in re.findall(f"[{HAN}]|[^{HAN}]+", word)]

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """What was taken for what; and which label likes to follow which, if that is learned."""
        drawn = {"confusion": figures.confusion(self.metrics["confusion"].compute(), self.classes)}
        if self.chain is not None:
            drawn["neighbours"] = figures.heat_map(self.chain.transition, "label after (column)", "label before (row)")
        return drawn

"""Answering questions about a story that stands in a memory.   LEE: Attention-based Model"""

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection

from thalweg import figures
from thalweg.data.stories import WORDS, encode
from thalweg.metrics import MeanLoss, Share
from thalweg.training import Task
from thalweg.vocabulary import Batch


class Answering(Task):
    """Says one word for a story and a question.   loss = - log softmax(model(tokens, question))[label] - guide sum_h log a_h

    a_h: how much of the h-th sentence that counts was read at step h.   guide: 0 leaves it to find out where to read, which
    takes long where one sentence says which other one counts (Weston, Chopra, Bordes 2014, arXiv:1410.3916, told it).
    model: a `ReadingHead` of at least as many steps.   batch: tokens, question, label, support, see `story_tensors`.
    found: the share of stories in which each of the sentences that count was once what the head read most.
    """

    reads = "text"

    def __init__(self, model: nn.Module, guide: float = 1.0):
        super().__init__()
        self.model, self.guide = model, guide
        self.metrics = MetricCollection({"accuracy": Share(), "found": Share(), "loss": MeanLoss()}, compute_groups=False)

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        logits, heads = self.model(batch["tokens"], batch["question"])
        read = heads[:, : batch["support"].shape[1]].take_along_dim(batch["support"][..., None], 2)
        missed = -read.float().clamp(min=1e-9).log().sum()
        return cross_entropy(logits.float(), batch["label"], reduction="sum") + self.guide * missed, len(logits)

    def evaluate(self, batch: Batch) -> None:
        logits, heads = self.model(batch["tokens"], batch["question"])
        self.metrics["loss"].update(cross_entropy(logits.float(), batch["label"], reduction="none"))
        self.metrics["accuracy"].update((logits.argmax(-1) == batch["label"]).float())
        read = heads.argmax(-1)[:, None] == batch["support"][..., None]  # [story support step]
        self.metrics["found"].update(read.any(2).all(1).float())

    @torch.inference_mode()
    def predict(self, inputs: dict[str, list[str]]) -> dict[str, Any]:
        """text: the answer.   inputs: text, sentences and then a question, a point after each: "mary took the apple. ..."

        ValueError for unknown words or no sentence.   heads: how much of each sentence was read at each step.
        """
        answers, read = [], []
        for text in inputs["text"]:
            facts, question = _sentences(text)
            device = next(self.model.parameters()).device
            logits, heads = self.model(*(tokens[None].to(device) for tokens in encode(facts, question)))
            answers.append(WORDS[int(logits[0, 1:].argmax())])
            read.append(heads[0].tolist())
        return {"text": answers, "heads": read}

    def draw(self, inputs: dict[str, list[str]], predicted: dict[str, Any]) -> Figure:
        """Where the head was at each step."""
        facts, question = _sentences(inputs["text"][0])
        return _drawn(torch.tensor(predicted["heads"][0]), facts, question, predicted["text"][0])

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """Where the head was at each step, in the first stories."""
        logits, heads = self.model(batch["tokens"], batch["question"])
        drawn = {}
        for number in range(min(3, len(logits))):
            facts = [" ".join(WORDS[word - 1] for word in row if word) for row in batch["tokens"][number].tolist() if any(row)]
            question = " ".join(WORDS[word - 1] for word in batch["question"][number].tolist() if word)
            answer = WORDS[int(logits[number, 1:].argmax())]
            drawn[f"story {number + 1}"] = _drawn(heads[number, :, : len(facts)], facts, question, answer)
        return drawn


def _sentences(text: str) -> tuple[list[str], str]:
    *facts, question = [part for part in text.replace("?", ".").split(".") if part.strip()] or [""]
    if not facts:
        raise ValueError(f"text: {text!r} has no sentence before its question")
    return facts, question


def _drawn(heads: Tensor, facts: list[str], question: str, answer: str) -> Figure:
    """heads: [step sentence]"""
    return figures.alignment(heads.mT, [f"step {number}" for number in range(1, 1 + len(heads))],
                             [*facts[:-1], f"{facts[-1]}\n{question}? {answer}"])  # fmt: skip

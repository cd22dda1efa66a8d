"""Extractive question answering: where in a text does the answer stand?   D2L 15.6, LEE BERT"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection

from thalweg.data.judged import parted
from thalweg.data.questions import windows
from thalweg.data.wordpieces import WordPieces
from thalweg.decoding.spans import best_spans
from thalweg.metrics import AnswerF1, ExactAnswer, MeanLoss
from thalweg.training import Task
from thalweg.vocabulary import Batch


class Extraction(Task):
    """The answer to a question, cut out of a text.   loss = - (log softmax_t(start)[i] + log softmax_t(end)[j]) / 2

    start, end: the two logits that model(tokens, mask, segment) gives of every token; those of the question count as -inf.
    batch: tokens, mask, segment [batch time], start, end [batch], -1 where the tokens do not hold the answer: nothing is
    learned from such, and no answer to it is right.   tokenizer: see `WordPieces`.   longest: tokens of question and text that
    are read at once; answer: tokens of an answer at most.
    exact: the share of answers that are right to the letter, after SQuAD's normalisation; f1: of the words of an answer.
    Elsewhere: SQuAD compares letters of the text, here those of its tokens are compared, in lower case where the tokenizer is.
    Rajpurkar et al. 2016, arXiv:1606.05250.
    """

    reads = "text"

    def __init__(self, model: nn.Module, tokenizer: str, longest: int = 384, answer: int = 30):
        super().__init__()
        self.model, self.pieces, self.longest, self.answer = model, WordPieces(tokenizer), longest, answer
        self.metrics = MetricCollection({"f1": AnswerF1(), "exact": ExactAnswer(), "loss": MeanLoss()}, compute_groups=False)

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """start, end and which places may hold an answer.   [batch time] each"""
        start, end = self.model(batch["tokens"], batch["mask"], batch["segment"]).float().unbind(-1)
        return start, end, batch["mask"] & (batch["segment"] == 1) & (batch["tokens"] != self.pieces.sep)

    def surprise(self, start: Tensor, end: Tensor, allowed: Tensor, batch: Batch) -> Tensor:
        """The loss of each question; 0 where the answer is not there."""
        least = torch.finfo(start.dtype).min
        sides = ((start, batch["start"]), (end, batch["end"]))
        both = (cross_entropy(x.masked_fill(~allowed, least), place, ignore_index=-1, reduction="none") for x, place in sides)
        return sum(both) / 2  # type: ignore[return-value]

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.surprise(*self.logits(batch), batch).sum(), (batch["start"] >= 0).sum()

    def evaluate(self, batch: Batch) -> None:
        start, end, allowed = self.logits(batch)
        there = batch["start"] >= 0
        self.metrics["loss"].update(self.surprise(start, end, allowed, batch)[there])
        found, _ = best_spans(start, end, allowed, self.answer)
        true = torch.stack([batch["start"], batch["end"]], 1)
        said = [self._text(*row) for row in zip(batch["tokens"], found.tolist(), strict=True)]
        right = [self._text(*row) for row in zip(batch["tokens"], true.tolist(), strict=True)]
        for name in ("exact", "f1"):
            self.metrics[name].update(said, right)

    def _text(self, tokens: Tensor, span: list[int]) -> str | None:
        return None if span[0] < 0 else self.pieces.decode(tokens[span[0] : span[1] + 1].tolist())

    @torch.inference_mode()
    def predict(self, inputs: dict[str, list[str]]) -> dict[str, Any]:
        """text: the answer to each question, as it stands in the text; start, end: its characters; probability: the model's.

        inputs: text, "question || text".   A text of any length is read in windows, of which the surest answers.
        ValueError if there is no text.
        """
        answers: dict[str, list] = {"text": [], "start": [], "end": [], "probability": []}
        for typed in inputs["text"]:
            question, context = parted(typed)
            if not question.strip() or not (context or "").strip():
                raise ValueError(f"text: {typed!r:.200}: expected a question and a text, with a tab or ' || ' between")
            for name, value in zip(answers, self.answered(question, context or ""), strict=True):
                answers[name].append(value)
        return answers

    def answered(self, question: str, context: str) -> tuple[str, int, int, float]:
        """The answer, its first character and the one behind its last, and its probability among all spans of all windows."""
        device, found, total = next(self.model.parameters()).device, [], []
        for window in windows(question, context, self.pieces, self.longest):
            batch = {"tokens": window.tokens[None].to(device), "segment": window.segment[None].to(device)}
            start, end, allowed = self.logits({**batch, "mask": torch.ones_like(batch["tokens"], dtype=torch.bool)})
            span, score = best_spans(start, end, allowed, self.answer)
            total.append(start[allowed].logsumexp(0) + end[allowed].logsumexp(0))
            first, last = span[0].tolist()
            found.append((float(score[0]), window.characters[first][0], window.characters[last][1]))
        best, begin, stop = max(found)
        return context[begin:stop], begin, stop, min(1.0, float((best - torch.stack(total).logsumexp(0)).exp()))

"""Classification of texts: what is said in them, or how it is meant.   D2L 15.1-15.3"""

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import pad

from thalweg import figures
from thalweg.data.pairs import PAD, UNK, Words
from thalweg.data.streams import padded
from thalweg.data.subwords import Subwords
from thalweg.tasks.classification import Classification
from thalweg.vocabulary import Batch

SHOWN = 60  # tokens of a text that a figure shows


class TextClassification(Classification):
    """One label a text.   loss = - log softmax(model(tokens, mask))[label]

    batch: tokens, mask [batch time], label [batch].   words: see `Words`; or tokenizer: see `Subwords`.
    longest: tokens of a text that are read.   unknown: share of the words that are taken for unknown in training, so that no
    word alone is relied on.   ValueError unless there are either words or a tokenizer.
    """

    reads = "text"

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        words: str | None = None,
        tokenizer: str | None = None,
        longest: int = 512,
        unknown: float = 0.0,
    ):
        super().__init__(model, classes)
        if (words is None) == (tokenizer is None):
            raise ValueError("words, tokenizer: expected one of them")
        self.reader: Words | Subwords = Subwords(tokenizer) if words is None else Words(words)  # type: ignore[arg-type]
        self.longest, self.unknown = longest, unknown

    def logits(self, batch: Batch) -> Tensor:
        tokens = batch["tokens"]
        if self.training and self.unknown:
            tokens = tokens.masked_fill(torch.rand(tokens.shape, device=tokens.device) < self.unknown, UNK)
        return self.model(tokens, batch["mask"])

    def shown(self, batch: Batch) -> Tensor:
        """The beginning of each text that figures show, of the same length."""
        tokens = batch["tokens"][:, :SHOWN]
        return pad(tokens, (0, SHOWN - tokens.shape[1]), value=PAD)

    def told(self, tokens: Sequence[int]) -> str:
        """What a row of `shown` says."""
        return self.reader.decode(tokens)

    def encode(self, texts: Sequence[str]) -> list[Tensor]:
        """The tokens of each text, the first `longest`."""
        return [self.reader.encode(text)[: self.longest] for text in texts]

    def chances(self, inputs: dict[str, Any]) -> Tensor:
        """The probability of each class.   inputs: text -> [batch class]"""
        device = next(self.model.parameters()).device
        return self.logits({name: x.to(device) for name, x in self.batch(inputs["text"]).items()}).float().softmax(-1)

    def batch(self, texts: Sequence[str]) -> Batch:
        """Texts as a person types them, with one blank for any blanks and line ends, as those that are learned have."""
        return padded({"tokens": self.encode([" ".join(text.split()) for text in texts])})

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """What was taken for what; the first texts of a batch, and those of the largest loss, with what is said of them."""
        with torch.no_grad():
            probability, predicted = self.logits(batch).float().softmax(-1).max(-1)
        worst = self.metrics["most_wrong"].compute()
        first = (self.shown(batch), predicted, probability, batch["label"])
        return {
            "confusion": figures.confusion(self.metrics["confusion"].compute(), self.classes),
            "read": self._told(*(x[:16] for x in first)),
            "most wrong": self._told(*(worst[name][:16] for name in ("image", "predicted", "probability", "label"))),
        }

    def _told(self, tokens: Tensor, predicted: Tensor, probability: Tensor, label: Tensor) -> Figure:
        """Texts, and the label that is given to each, in red where it is wrong."""
        rows = []
        for text, said, chance, true in zip(*(x.tolist() for x in (tokens, predicted, probability, label)), strict=True):
            wrong = "" if said == true else f", true: {self.classes[true]}"
            rows.append((self.told(text), f"{self.classes[said]} {chance:.2f}{wrong}", "firebrick" if wrong else "seagreen"))
        return figures.texts(rows)

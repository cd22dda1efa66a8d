"""Filling in: which character stands in a gap?   D2L 9.4"""

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection

from thalweg import figures
from thalweg.data.text import Characters
from thalweg.metrics import MeanLoss, Perplexity, Share
from thalweg.training import Task
from thalweg.vocabulary import Batch

GAP = "_"


class FillingIn(Task):
    """Each character by those around it.   loss = - sum_t log softmax(model(tokens)_t)[x_t]

    model: logits of every place that do not know its token, see `BothSides`.   batch: tokens [batch time].
    alphabet: the characters, in the order of their tokens.
    """

    reads = "text"

    def __init__(self, model: nn.Module, alphabet: str):
        super().__init__()
        self.model, self.characters = model, Characters(alphabet)
        self.metrics = MetricCollection({"loss": MeanLoss(), "accuracy": Share(), "perplexity": Perplexity()},
                                        compute_groups=False)  # fmt: skip

    def surprise(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """-log p of every token in nats, and whether it is the most probable.   [batch time] each"""
        logits = self.model(tokens).float()
        surprise = cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view_as(tokens)
        return surprise, logits.argmax(-1) == tokens

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        surprise, _ = self.surprise(batch["tokens"])
        return surprise.sum(), surprise.numel()

    def evaluate(self, batch: Batch) -> None:
        surprise, right = self.surprise(batch["tokens"])
        for name, value in (("loss", surprise), ("perplexity", surprise), ("accuracy", right.float())):
            self.metrics[name].update(value)

    @torch.inference_mode()
    def predict(self, inputs: dict[str, list[str]]) -> dict[str, Any]:
        """text: each text with its gaps filled, one _ a character, from left to right.   ValueError for a text without one"""
        filled, device = [], next(self.model.parameters()).device
        for text in inputs["text"]:
            if GAP not in text:
                raise ValueError(f"text: {text!r} has no gap {GAP}")
            blank = [place for place, character in enumerate(text) if character == GAP]
            tokens = self.characters.encode(text.replace(GAP, self.characters.alphabet[0])).to(device)
            for place in blank:
                tokens[place] = self.model(tokens[None])[0, place].argmax()
            filled.append(self.characters.decode(tokens.tolist()))
        return {"text": filled}

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """How surprised it is by each character of a text that it sees all but that one of."""
        tokens = batch["tokens"][:1]
        surprise, _ = self.surprise(tokens)
        return {"surprise": figures.coloured_text(self.characters.decode(tokens[0].tolist()), surprise[0], "surprise, nats")}

"""Language modelling in both directions: each word by those before it, and by those after it.   D2L 14.8

Peters et al. 2018, arXiv:1802.05365
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection

from thalweg.data.pairs import UNK, WORD, Words
from thalweg.metrics import MeanLoss, Perplexity
from thalweg.training import Task
from thalweg.vocabulary import Batch


class BothWays(Task):
    """loss = - sum_t log p(token_t | those before) - sum_t log p(token_t | those after), each but of the first it reads.

    batch: tokens, mask [batch time].   model: see `ELMo`.   words: see `Words`.
    """

    reads = "text"

    def __init__(self, model: nn.Module, words: str):
        super().__init__()
        self.model, self.words = model, Words(words)
        self.metrics = MetricCollection(
            {"loss": MeanLoss(), "perplexity_forward": Perplexity(), "perplexity_backward": Perplexity()}, compute_groups=False
        )

    def surprise(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """- log p of every word but the first, by those before; of every word but the last, by those after.   [word] each"""
        (before, after), tokens, mask = self.model(batch["tokens"], batch["mask"]), batch["tokens"], batch["mask"]
        known = mask[:, 1:]  # a real word that has one before it
        return (cross_entropy(before[:, :-1][known].float(), tokens[:, 1:][known], reduction="none"),
                cross_entropy(after[:, 1:][known].float(), tokens[:, :-1][known], reduction="none"))  # fmt: skip

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        both = torch.cat(self.surprise(batch))
        return both.sum(), len(both)

    def evaluate(self, batch: Batch) -> None:
        before, after = self.surprise(batch)
        self.metrics["loss"].update(torch.cat([before, after]))
        self.metrics["perplexity_forward"].update(before)
        self.metrics["perplexity_backward"].update(after)

    @torch.inference_mode()
    def predict(self, inputs: dict[str, list[str]]) -> dict[str, Any]:
        """text: the words of each text, a line each, with - log p in nats by those before and by those after it.

        ValueError for a text of less than two words.
        """
        texts, device = [], next(self.model.parameters()).device
        for text in inputs["text"]:
            words = WORD.findall(text.lower())
            if len(words) < 2:
                raise ValueError(f"text: {text!r}: expected at least two words")
            tokens = torch.tensor([[self.words.number.get(word, UNK) for word in words]], device=device)
            before, after = self.surprise({"tokens": tokens, "mask": torch.ones_like(tokens, dtype=torch.bool)})
            said = [[f"{nats:.1f}" for nats in side.tolist()] for side in (before, after)]
            rows = zip(words, ["-", *said[0]], [*said[1], "-"], strict=True)
            texts.append("\n".join(" ".join(row) for row in rows))
        return {"text": texts}

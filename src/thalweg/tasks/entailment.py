"""Natural-language inference: what follows from a sentence, what contradicts it?   D2L 15.4-15.5"""

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torchmetrics.classification import MulticlassAccuracy

from thalweg import figures
from thalweg.data.judged import parted
from thalweg.data.pairs import PAD
from thalweg.data.streams import padded
from thalweg.tasks.text_classification import SHOWN, TextClassification
from thalweg.vocabulary import Batch


class Entailment(TextClassification):
    """How a hypothesis stands to a premise.   loss = - log softmax(model(premise, hypothesis))[label] + that of `baseline`

    baseline: a classifier of texts that reads the hypothesis alone. People who invent what contradicts a sentence have habits
    ("nobody", "sleeping"), which tell the label without the premise (Gururangan et al. 2018, arXiv:1803.02324); its accuracy,
    hypothesis_only, is what understanding must exceed. The two share nothing.
    batch: source_tokens, source_mask [batch read], the premise, target_tokens, target_mask [batch time], label [batch].
    model: see `DecomposableAttention`.   words: see `Words`.
    """

    def __init__(self, model: nn.Module, baseline: nn.Module, classes: Sequence[str], words: str, longest: int = 60):
        super().__init__(model, classes, words, longest=longest)
        self.baseline = baseline
        self.metrics.add_metrics({"hypothesis_only": MulticlassAccuracy(len(self.classes), average="micro")})

    def logits(self, batch: Batch) -> Tensor:
        return self.model(*(batch[f"{side}_{name}"] for side in ("source", "target") for name in ("tokens", "mask")))

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        total, count = super().loss(batch)
        alone = self.baseline(batch["target_tokens"], batch["target_mask"])
        return total + cross_entropy(alone, batch["label"], reduction="sum"), count

    def evaluate(self, batch: Batch) -> None:
        super().evaluate(batch)
        self.metrics["hypothesis_only"].update(self.baseline(batch["target_tokens"], batch["target_mask"]), batch["label"])

    def shown(self, batch: Batch) -> Tensor:
        sides = (batch[f"{side}_tokens"][:, :SHOWN] for side in ("source", "target"))
        return torch.cat([pad(side, (0, SHOWN - side.shape[1]), value=PAD) for side in sides], 1)

    def told(self, tokens: Sequence[int]) -> str:
        return " || ".join(self.reader.decode(tokens[start : start + SHOWN]) for start in (0, SHOWN))

    def batch(self, texts: Sequence[str]) -> Batch:
        """Pairs as a person types them, see `parted`.   ValueError for a text that is none"""
        pairs = [parted(text) for text in texts]
        if wrong := [text for text, (_, second) in zip(texts, pairs, strict=True) if not second]:
            raise ValueError(f"text: {wrong[0]!r}: expected a premise and a hypothesis, with a tab or ' || ' between")
        first, second = (self.encode([pair[side] or "" for pair in pairs]) for side in (0, 1))
        return padded({"source_tokens": first, "target_tokens": second})

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """As of texts, and where the words of a hypothesis find their like in the premise."""
        longest = int((batch["source_mask"].sum(1) + batch["target_mask"].sum(1)).argmax())
        pair = {name: x[longest : longest + 1] for name, x in batch.items() if name != "label"}
        with torch.no_grad():
            looked: Any = self.model.alignment(**pair)  # type: ignore[operator]
        sides = [self.reader.pieces(pair[f"{side}_tokens"][pair[f"{side}_mask"]].tolist()) for side in ("source", "target")]
        drawn = figures.alignment(looked[0, : len(sides[1]), : len(sides[0])], *sides)
        return {**super().figures(batch), "alignment": drawn}

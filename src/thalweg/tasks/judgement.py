"""Judgement of texts and of pairs of texts by a fine-tuned encoder: a class of each, or a number.   D2L 15.6, 15.7, LEE BERT"""

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection, PearsonCorrCoef, SpearmanCorrCoef
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from thalweg import figures
from thalweg.data.judged import parted
from thalweg.data.wordpieces import WordPieces
from thalweg.metrics import MeanLoss, Share
from thalweg.training import Task
from thalweg.vocabulary import Batch


class TextJudgement(Task):
    """A class of every text, or of every pair of texts.   loss = - log softmax(model(tokens, mask, segment))[label]

    batch: tokens, mask, segment [batch time], label [batch].   classes: their names.   pairs: whether texts come in pairs.
    tokenizer: text of a tokenizer.json, see `WordPieces`.   longest: tokens of a text, or of a pair, that are read.
    """

    reads = "text"

    def __init__(self, model: nn.Module, classes: Sequence[str], tokenizer: str, longest: int = 128, pairs: bool = False):
        super().__init__()
        self.model, self.classes, self.longest, self.pairs = model, tuple(classes), longest, pairs
        self.pieces = WordPieces(tokenizer)
        self.metrics = self.measures()

    def measures(self) -> MetricCollection:
        count = len(self.classes)
        return MetricCollection(
            {
                "accuracy": MulticlassAccuracy(count, average="micro"),
                "loss": MeanLoss(),
                "confusion": MulticlassConfusionMatrix(count),
            },
            compute_groups=False,
        )

    def said(self, batch: Batch) -> Tensor:
        """What the model says.   [batch output]"""
        return self.model(batch["tokens"], batch["mask"], batch["segment"]).float()

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        return cross_entropy(self.said(batch), batch["label"], reduction="sum"), len(batch["label"])

    def evaluate(self, batch: Batch) -> None:
        self.measure(self.said(batch), batch)

    def measure(self, logits: Tensor, batch: Batch) -> None:
        """Takes what the model says of a batch, [batch class], into the metrics."""
        label = batch["label"]
        self.metrics["loss"].update(cross_entropy(logits, label, reduction="none"))
        for name in ("accuracy", "confusion"):
            self.metrics[name].update(logits, label)

    def asked(self, texts: Sequence[str]) -> Tensor:
        """What the model says of texts as they are typed.   ValueError if pairs are judged and one is none."""
        first, second = list(texts), None
        if self.pairs:
            halves = [parted(text) for text in texts]
            if wrong := [text for text, (_, other) in zip(texts, halves, strict=True) if other is None]:
                raise ValueError(f"text: {wrong[0]!r:.200}: expected two texts with a tab or ' || ' between")
            first, second = [one for one, _ in halves], [other or "" for _, other in halves]
        device = next(self.model.parameters()).device
        return self.said({name: x.to(device) for name, x in self.pieces.batch(first, second, self.longest).items()})

    @torch.inference_mode()
    def predict(self, inputs: dict[str, list[str]], *, top_k: int = 5) -> dict[str, Any]:
        """label: names of the top_k classes, best first; probability: theirs.   inputs: text; of a pair, "one || other" """
        if top_k < 1:
            raise ValueError(f"top_k={top_k}: expected at least 1")
        probability, index = self.asked(inputs["text"]).softmax(-1).topk(min(top_k, len(self.classes)))
        return {"label": [[self.classes[i] for i in row] for row in index.tolist()], "probability": probability}

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """What was taken for what; and how much of each layer is read, if that is learned."""
        return {"confusion": figures.confusion(self.metrics["confusion"].compute(), self.classes)} | layer_shares(
            self.model.reading
        )


class AcrossLanguages(TextJudgement):
    """A class of every text, learned in one language and measured in each.   accuracy_LANGUAGE: of the texts in that one

    batch: language [batch] too, where it is measured, its number in `languages`.   frequent: the class that is the most
    frequent where it is learned; majority_accuracy is that of who always says it.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        tokenizer: str,
        languages: Sequence[str],
        frequent: int,
        longest: int = 128,
    ):
        super().__init__(model, classes, tokenizer, longest)
        self.languages, self.frequent = tuple(languages), frequent
        self.metrics.add_metrics({"majority_accuracy": Share(), **{f"accuracy_{name}": Share() for name in self.languages}})

    def measure(self, logits: Tensor, batch: Batch) -> None:
        super().measure(logits, batch)
        right = (logits.argmax(-1) == batch["label"]).float()
        self.metrics["majority_accuracy"].update((batch["label"] == self.frequent).float())
        for number, name in enumerate(self.languages):
            self.metrics[f"accuracy_{name}"].update(right[batch["language"] == number])


class Score(TextJudgement):
    """A number of every text, or of every pair of texts, such as how much they say the same.   loss = (model(...) - target)^2

    batch: tokens, mask, segment [batch time], target [batch 1].   tokenizer, longest, pairs: see `TextJudgement`.
    spearman: of the ranks of what is said and what is true, which no scale changes; pearson: of the numbers.
    overlap_spearman, of pairs: of how many of their different tokens both texts have, which needs no model.
    """

    def __init__(self, model: nn.Module, tokenizer: str, longest: int = 128, pairs: bool = True):
        super().__init__(model, (), tokenizer, longest, pairs)

    def measures(self) -> MetricCollection:
        measures = {"spearman": SpearmanCorrCoef(), "pearson": PearsonCorrCoef(), "loss": MeanLoss()}
        if self.pairs:
            measures["overlap_spearman"] = SpearmanCorrCoef()
        return MetricCollection(measures, compute_groups=False)  # type: ignore[arg-type]

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        return (self.said(batch) - batch["target"]).square().sum(), len(batch["target"])

    def evaluate(self, batch: Batch) -> None:
        said, target = self.said(batch), batch["target"]
        self.metrics["loss"].update((said - target).square())
        for name in ("spearman", "pearson"):
            self.metrics[name].update(said.flatten(), target.flatten())
        if self.pairs:
            self.metrics["overlap_spearman"].update(self.overlap(batch), target.flatten())

    def overlap(self, batch: Batch) -> Tensor:
        """Of each pair, the share of all different tokens that are in both texts.   [batch]"""
        words = batch["mask"] & (batch["tokens"] != self.pieces.cls) & (batch["tokens"] != self.pieces.sep)
        none = torch.zeros(len(words), len(self.pieces), dtype=torch.bool, device=words.device)
        one, other = (
            none.scatter(1, batch["tokens"].where(words & (batch["segment"] == side), self.pieces.cls), True) for side in (0, 1)
        )
        one[:, self.pieces.cls] = other[:, self.pieces.cls] = False  # where what is no word was put
        return (one & other).sum(1) / (one | other).sum(1).clamp(min=1)

    @torch.inference_mode()
    def predict(self, inputs: dict[str, list[str]]) -> dict[str, Any]:  # type: ignore[override]
        """score: of each text or pair.   inputs: text; of a pair, "one || other" """
        return {"score": self.asked(inputs["text"]).squeeze(-1)}

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """Predicted against true; and how much of each layer is read, if that is learned."""
        with torch.no_grad():
            drawn = figures.against_truth(self.said(batch), batch["target"], ["score"])
        return {"predicted against true": drawn} | layer_shares(self.model.reading)


def layer_shares(reading: Any) -> dict[str, Figure]:
    """A drawing of the weight of each layer, if they are mixed."""
    if reading.mix is None:
        return {}
    shares = reading.mix.weight.softmax(0).tolist()
    names = ["embedding", *map(str, range(1, len(shares)))]
    return {"layers": figures.bars(names, {"weight": shares}, ranked=False)}

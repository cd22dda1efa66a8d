"""Masked language modelling: what stood here?   LBDL 6.9, D2L 14.8-14.10, LEE BERT"""

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from thalweg import figures
from thalweg.data.wordpieces import WordPieces
from thalweg.metrics import MeanLoss, Share
from thalweg.models.language.masked import MaskedEncoder
from thalweg.training import Task
from thalweg.vocabulary import Batch


class MaskedModelling(Task):
    """Tells hidden tokens by what is around them: a denoising auto-encoder whose noise is the mask.

    loss = - sum_t log softmax(said_t)[original_t] over the hidden t; where there is a boundary, as much again by that (see
    `SpanBoundary`); and, of pairs, - log softmax(pair)[label], which counts as `pair_weight` hidden tokens.
    batch: as of `thalweg.data.pretraining.Pretraining`.   model: see `MaskedEncoder`.   tokenizer: see `WordPieces`.
    frequent: the most frequent token, which `unigram_accuracy` gives always; `accuracy` is the model's.
    """

    reads = "text"

    def __init__(self, model: MaskedEncoder, tokenizer: str, frequent: int, pair_weight: float = 5.0):
        super().__init__()
        self.model, self.pieces = model, WordPieces(tokenizer, marks=True)
        self.frequent, self.pair_weight = frequent, pair_weight
        measures = {"loss": MeanLoss(), "accuracy": Share(), "unigram_accuracy": Share()}
        if model.pair_head is not None:
            measures["pair_accuracy"] = MulticlassAccuracy(2, average="micro")  # type: ignore[assignment]
        if model.boundary is not None:
            measures["boundary_loss"] = MeanLoss()
        self.metrics = MetricCollection(measures, compute_groups=False)  # type: ignore[arg-type]

    def said(self, batch: Batch) -> dict[str, Tensor]:
        seen = batch.get("sees", batch["mask"])
        found = self.model(batch["tokens"], seen, batch["segment"], batch["hidden"])
        return {name: logits.float() for name, logits in found.items()}

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        said, true = self.said(batch), batch["original"][batch["hidden"]]
        total = sum(cross_entropy(said[name], true, reduction="sum") for name in ("tokens", "boundary") if name in said)
        if "pair" in said:
            total = total + self.pair_weight * cross_entropy(said["pair"], batch["label"], reduction="sum")
        return total, batch["hidden"].sum()  # type: ignore[return-value]

    def evaluate(self, batch: Batch) -> None:
        said, true = self.said(batch), batch["original"][batch["hidden"]]
        self.metrics["loss"].update(cross_entropy(said["tokens"], true, reduction="none"))
        self.metrics["accuracy"].update((said["tokens"].argmax(-1) == true).float())
        self.metrics["unigram_accuracy"].update((true == self.frequent).float())
        if "pair" in said:
            self.metrics["pair_accuracy"].update(said["pair"], batch["label"])
        if "boundary" in said:
            self.metrics["boundary_loss"].update(cross_entropy(said["boundary"], true, reduction="none"))

    @torch.inference_mode()
    def predict(self, inputs: dict[str, list[str]], *, top_k: int = 5) -> dict[str, Any]:
        """text: each text with the likeliest token for every [MASK]; label: the top_k for the first; probability: theirs.

        ValueError for a text without [MASK].
        """
        if top_k < 1:
            raise ValueError(f"top_k={top_k}: expected at least 1")
        found: dict[str, list[Any]] = {"text": [], "label": [], "probability": []}
        device, longest = next(self.model.parameters()).device, self.model.backbone.position.num_embeddings
        for text in inputs["text"]:
            batch = {name: x.to(device) for name, x in self.pieces.batch([text], longest=longest).items()}
            hidden = batch["tokens"] == self.pieces.mask
            if not hidden.any():
                raise ValueError(f"text: {text!r:.200} has no [MASK]")
            chances = self.said({**batch, "hidden": hidden})["tokens"].softmax(-1)
            best, order = chances[0].topk(min(top_k, len(self.pieces)))
            filled = batch["tokens"].masked_scatter(hidden, chances.argmax(-1))
            found["text"].append(self.pieces.decode(filled[0].tolist()))
            found["label"].append(self.pieces.pieces(order.tolist()))
            found["probability"].append(best.tolist())
        return found

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """The first texts of a batch: what was hidden, and what is said to have stood there."""
        rows = {name: x[:6] for name, x in batch.items()}
        with torch.no_grad():
            said = self.said(rows)["tokens"].argmax(-1)
        guess = rows["original"].masked_scatter(rows["hidden"], said)
        return {"hidden": hidden_tokens(self.pieces, rows, guess)}


def hidden_tokens(pieces: WordPieces, batch: Batch, guess: Tensor) -> Figure:
    """Texts a row, what was hidden in colour: in green where the guess is right, else in red what is guessed for it."""
    rows = []
    for row in range(len(batch["original"])):
        real = batch["mask"][row]
        true, said = (pieces.pieces(x[row][real].tolist()) for x in (batch["original"], guess))
        words = zip(true, said, batch["hidden"][row][real].tolist(), strict=True)
        rows.append([(one, "seagreen" if hidden else "") if one == other else (f"{one} ({other})", "firebrick")
                     for one, other, hidden in words])  # fmt: skip
    return figures.pieces(rows)

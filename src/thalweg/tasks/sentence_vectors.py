"""Sentence vectors: texts that say the same lie in the same direction, so that one is found by another.   LEE BERT"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torchmetrics import MetricCollection

from thalweg.data.wordpieces import WordPieces
from thalweg.metrics import MeanLoss, RecallAtOne, ReciprocalRank
from thalweg.training import Task
from thalweg.vocabulary import Batch


class SentenceVectors(Task):
    """A vector of length 1 of every text: the mean of an encoder's vectors of its tokens, or that of its first place.

    Learned from pairs (a_i, b_i) that belong together, each the answer among all b of the batch, and the other way round:
    loss = - sum_i log softmax_j(a_i . b_j / temperature)[i] - sum_i log softmax_j(b_i . a_j / temperature)[i], halved.
    batch: first_tokens, first_mask, second_tokens, second_mask [batch time].   model: tokens, mask -> [batch time embed].
    tokenizer: text of a tokenizer.json, see `WordPieces`.   longest: tokens of a text that are read.   pool: mean or first.
    mrr: mean of 1 / rank of b_i among all texts b that are measured, by a_i; recall_at_1: share of ranks that are 1.
    The loss couples the batch: accumulation and several processes see fewer others.
    ValueError for another pool.   Reimers, Gurevych 2019, arXiv:1908.10084; loss: Henderson et al. 2017, arXiv:1705.00652.
    """

    reads = "text"

    def __init__(self, model: nn.Module, tokenizer: str, longest: int = 256, pool: str = "mean", temperature: float = 0.05):
        super().__init__()
        if pool not in ("mean", "first"):
            raise ValueError(f"pool={pool!r}: expected mean or first")
        if temperature <= 0:
            raise ValueError(f"temperature={temperature}: expected more than 0")
        self.model, self.pieces, self.longest, self.pool = model, WordPieces(tokenizer), longest, pool
        self.temperature = temperature
        found = {"mrr": ReciprocalRank(), "recall_at_1": RecallAtOne()}
        self.metrics = MetricCollection({**found, "loss": MeanLoss()}, compute_groups=False)

    def embed(self, tokens: Tensor, mask: Tensor) -> Float[Tensor, "batch embed"]:
        """The vectors of texts that are tokens already."""
        states = self.model(tokens, None if not self.training and mask.all() else mask)
        states = states.to(torch.promote_types(states.dtype, torch.float32))
        # of the tokens the sum, not the mean: they have the same direction
        return normalize(states[:, 0] if self.pool == "first" else (states * mask[..., None]).sum(1), dim=-1)

    @torch.inference_mode()
    def vectors(self, texts: Sequence[str], batch_size: int = 64) -> Float[Tensor, "text embed"]:
        """The vector of each text, whatever their number; texts of like length are read together."""
        device = next(self.model.parameters()).device
        encodings = self.pieces.encode(texts, longest=self.longest)
        order = torch.tensor([len(one.ids) for one in encodings]).argsort(stable=True)
        found = []
        for chosen in order.split(batch_size):
            batch = self.pieces.padded([encodings[index] for index in chosen.tolist()])
            found.append(self.embed(batch["tokens"].to(device), batch["mask"].to(device)))
        return torch.cat(found)[order.argsort()]

    def sides(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The vectors of the first texts, and of the second.   [batch embed] each"""
        first, second = (self.embed(batch[f"{side}_tokens"], batch[f"{side}_mask"]) for side in ("first", "second"))
        return first, second

    def surprise(self, first: Tensor, second: Tensor) -> Tensor:
        """The loss of each pair."""
        similarity = first @ second.T / self.temperature
        own = torch.arange(len(similarity), device=similarity.device)
        both = (cross_entropy(side, own, reduction="none") for side in (similarity, similarity.T))
        return sum(both) / 2  # type: ignore[return-value]

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        first, second = self.sides(batch)
        return self.surprise(first, second).sum(), len(first)

    def evaluate(self, batch: Batch) -> None:
        first, second = self.sides(batch)
        for name in ("mrr", "recall_at_1"):
            self.metrics[name].update(first, second)
        self.metrics["loss"].update(self.surprise(first, second))

    @torch.inference_mode()
    def predict(self, inputs: dict[str, list[str]]) -> dict[str, Any]:
        """vector: of each text, of length 1; the product of two is the cosine of their angle.   inputs: text"""
        return {"vector": self.vectors(inputs["text"])}

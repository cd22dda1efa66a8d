"""Masked modelling of several languages at once: is what says the same alike, and where is the language?   LEE BERT"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from torchmetrics import MetricCollection

from thalweg import figures
from thalweg.data.wordpieces import WordPieces
from thalweg.metrics import MeanLoss, ReciprocalRank, Share
from thalweg.models.language.masked import MaskedEncoder
from thalweg.training import Task
from thalweg.vocabulary import Batch

STRENGTHS = (0, 1, 2, 3)


class MultilingualModelling(Task):
    """Tells hidden tokens of sentences in several languages, and is measured by what it was never told: what says the same.

    loss = - sum_t log softmax(said_t)[original_t] over the hidden t.
    Beside it the mean m_l of the states of each language is kept, a running one over the batches of training, and how often
    each token occurs in each.
    Alignment: the vector of a sentence is the mean of the states of its tokens; mrr_LANGUAGE: the mean of 1 / rank of a
    sentence's translation among all sentences of that language, by the cosine; centred_mrr_LANGUAGE: of vectors without m_l.
    Language vector: states x + strength (m_other - m_first) of sentences in the first language; other_language_s: which share
    of the tokens that are said then belong to the other language, at strength s. A token belongs to a language if nine of ten
    of its occurrences are there, were there as much text of each.
    batch: as of `thalweg.data.languages.Multilingual`; to be measured, with meanings together.   layer: of the encoder, whose
    states these are; half of its blocks if None.   languages: their names.   frequent: see `MaskedModelling`.
    Pires, Schlinger, Garrette 2019, arXiv:1906.01502; language vector: Liu, Hsu, Chuang, Lee 2020, arXiv:2004.09205.
    """

    reads = "text"
    mean: Float[Tensor, "language embed"]
    occurrences: Float[Tensor, "language vocab"]

    def __init__(self, model: MaskedEncoder, tokenizer: str, languages: Sequence[str], frequent: int, layer: int | None = None):
        super().__init__()
        blocks = len(model.backbone.blocks)
        self.layer = blocks // 2 if layer is None else layer
        if not 0 <= self.layer <= blocks:
            raise ValueError(f"layer={layer}: expected 0 to {blocks}, the blocks of the encoder")
        self.model, self.pieces = model, WordPieces(tokenizer, marks=True)
        self.languages, self.frequent = tuple(languages), frequent
        self.register_buffer("mean", torch.zeros(len(self.languages), model.backbone.embedding.embedding_dim))
        self.register_buffer("occurrences", torch.zeros(len(self.languages), len(self.pieces)))
        measures: dict[str, Any] = {"loss": MeanLoss(), "accuracy": Share(), "unigram_accuracy": Share()}
        measures |= {f"{name}_{other}": ReciprocalRank() for name in ("mrr", "centred_mrr") for other in self.languages[1:]}
        measures |= {f"other_language_{strength}": Share() for strength in STRENGTHS}
        self.metrics = MetricCollection(measures, compute_groups=False)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        states = self.model.backbone.layers(batch["tokens"], batch["mask"], batch["segment"])
        if self.training:
            self.remember(states[self.layer].detach(), batch)
        said, hidden = self.tokens(states[-1][batch["hidden"]]), batch["hidden"]
        return cross_entropy(said, batch["original"][hidden], reduction="sum"), hidden.sum()

    def tokens(self, x: Tensor) -> Tensor:
        return self.model.token_head(x, self.model.backbone.embedding.weight).float()

    def remember(self, states: Tensor, batch: Batch, rate: float = 0.01) -> None:
        """Takes a batch into the mean of each language and the counts of its tokens."""
        for number in range(len(self.languages)):
            real = batch["mask"] & (batch["language"] == number)[:, None]
            found = states[real].float()
            if len(found):
                first = not self.occurrences[number].any()
                self.mean[number].lerp_(found.mean(0), 1.0 if first else rate)
                self.occurrences[number] += batch["original"][real].bincount(minlength=len(self.pieces))

    def belongs(self) -> Bool[Tensor, "language vocab"]:
        """Which tokens are of which language."""
        rate = self.occurrences / self.occurrences.sum(1, keepdim=True).clamp(min=1)
        return rate > 0.9 * rate.sum(0)

    def moved(
        self,
        states: Float[Tensor, "batch time embed"],
        mask: Bool[Tensor, "batch time"],
        source: int,
        target: int,
        strength: float,
    ) -> Int[Tensor, "batch time"]:
        """The tokens that are said once the states of `layer` are moved from one language to another."""
        x = states + strength * (self.mean[target] - self.mean[source]).to(states)
        for block in self.model.backbone.blocks[self.layer :]:  # type: ignore[index]
            x = block(x, mask[:, None, None])
        return self.tokens(x).argmax(-1)

    def evaluate(self, batch: Batch) -> None:
        hidden, mask, count = batch["hidden"], batch["mask"], len(self.languages)
        said = self.tokens(self.model.backbone(batch["tokens"], mask, batch["segment"])[hidden])
        true = batch["original"][hidden]
        self.metrics["loss"].update(cross_entropy(said, true, reduction="none"))
        self.metrics["accuracy"].update((said.argmax(-1) == true).float())
        self.metrics["unigram_accuracy"].update((true == self.frequent).float())
        states = self.model.backbone.layers(batch["original"], mask, batch["segment"])[self.layer].float()
        vector = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        belongs = self.belongs()
        for other in range(1, count):
            for name, moved in (("mrr", vector), ("centred_mrr", vector - self.mean[batch["language"]])):
                sides = normalize(moved.unflatten(0, (-1, count)), dim=-1)
                self.metrics[f"{name}_{self.languages[other]}"].update(sides[:, 0], sides[:, other])
        first = batch["language"] == 0
        real = mask[first] & (batch["original"][first] != self.pieces.cls) & (batch["original"][first] != self.pieces.sep)
        for other, strength in ((other, strength) for other in range(1, count) for strength in STRENGTHS):
            written = self.moved(states[first], mask[first], 0, other, strength)
            self.metrics[f"other_language_{strength}"].update(belongs[other][written[real]].float())

    @torch.inference_mode()
    def predict(self, inputs: dict[str, list[str]], *, toward: str = "", strength: float = 2.0) -> dict[str, Any]:
        """text: what is said at every token, once the states of each text have been moved from the first language to another.

        inputs: text.   toward: the other language.   strength: how often the difference of the two is added.
        ValueError for another language.
        """
        if toward not in self.languages[1:]:
            raise ValueError(f"toward={toward!r}: expected one of {', '.join(self.languages[1:])}")
        device, longest = next(self.model.parameters()).device, self.model.backbone.position.num_embeddings
        batch = {name: x.to(device) for name, x in self.pieces.batch(inputs["text"], longest=longest).items()}
        states = self.model.backbone.layers(**batch)[self.layer]
        said = self.moved(states, batch["mask"], 0, self.languages.index(toward), strength)
        rows = zip(said[:, 1:], batch["mask"][:, 1:].sum(1) - 1, strict=True)
        return {"text": [self.pieces.decode(row[:length].tolist()) for row, length in rows]}

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """How much of what is said belongs to the other language, by the strength."""
        line = [(strength, float(self.metrics[f"other_language_{strength}"].compute())) for strength in STRENGTHS]
        drawn = figures.curves({"said in the other language": line}, xlabel="strength of the language vector", ylabel="share")
        return {"language vector": drawn}

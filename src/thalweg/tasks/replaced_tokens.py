"""ELECTRA: which tokens of a text are not its own?   LEE BERT"""

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryF1Score

from thalweg.data.wordpieces import WordPieces
from thalweg.metrics import MeanLoss, Share
from thalweg.models.language.fine_tuned import OfTokens
from thalweg.models.language.masked import MaskedEncoder
from thalweg.tasks.masked_modelling import hidden_tokens
from thalweg.training import Task
from thalweg.vocabulary import Batch


class ReplacedTokens(Task):
    """A small encoder fills in what is hidden, as it thinks; a large one judges of every token whether it was filled in.

    loss = - sum_hidden log softmax(generator)[original] - weight sum_t log p(was t replaced?), a token that is filled in as it
    was counting as not replaced. All tokens teach, not only those hidden. The generator does not learn to deceive: no gradient
    goes through what it draws. Both read by the same embeddings, which the generator teaches what words are like: each of its
    guesses concerns all words, each judgement one.   weight: 7.5 is 50 times a mean over all tokens, where 15 % are hidden.
    batch: as of `thalweg.data.pretraining.Pretraining`.   discriminator: tokens, mask, segment -> [batch time 1].
    generator: see `MaskedEncoder`.   f1: of calling replaced what is so with a chance above `threshold`, about the share
    that is replaced, since few chances are above a half; base_f1: of saying so always.
    ValueError if one is wider than the other or reads further.
    Clark, Luong, Le, Manning 2020, arXiv:2003.10555.
    """

    reads = "text"

    def __init__(self, discriminator: OfTokens, generator: MaskedEncoder, tokenizer: str, weight: float = 7.5,
                 threshold: float = 0.15):  # fmt: skip
        super().__init__()
        filler, judge = generator.backbone, discriminator.reading.backbone
        for name in ("embedding", "position", "segment"):
            own, shared = (tuple(getattr(encoder, name).weight.shape) for encoder in (filler, judge))
            if own != shared:
                raise ValueError(f"generator: a table {name} of {own}, expected that of the discriminator, {shared}")
            setattr(filler, name, getattr(judge, name))
        self.discriminator, self.generator = discriminator, generator  # in this order: who asks for an encoder wants the first
        self.pieces, self.weight = WordPieces(tokenizer), weight
        self.metrics = MetricCollection(
            {"f1": BinaryF1Score(threshold), "base_f1": BinaryF1Score(), "loss": MeanLoss(), "generator_loss": MeanLoss(),
             "generator_accuracy": Share()},
            compute_groups=False,
        )  # fmt: skip

    def played(self, batch: Batch, random: Generator | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The generator's logits of what is hidden, what it draws, the judge's logits, and what is true.

        [chosen vocab], [batch time], [batch time], [batch time]
        """
        hidden = batch["hidden"]
        logits = self.generator(batch["tokens"], batch["mask"], batch["segment"], hidden)["tokens"].float()
        drawn = torch.multinomial(logits.detach().softmax(-1), 1, generator=random).squeeze(-1)
        text = batch["original"].masked_scatter(hidden, drawn)
        judged = self.discriminator(text, batch["mask"], batch["segment"]).float().squeeze(-1)
        return logits, text, judged, text != batch["original"]

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        logits, _, judged, replaced = self.played(batch)
        hidden, mask = batch["hidden"], batch["mask"]
        filled = cross_entropy(logits, batch["original"][hidden], reduction="sum")
        found = binary_cross_entropy_with_logits(judged[mask], replaced[mask].float(), reduction="sum")
        return filled + self.weight * found, hidden.sum()

    def evaluate(self, batch: Batch) -> None:
        random = Generator(batch["tokens"].device).manual_seed(0)  # the same for who goes on after a kill
        logits, _, judged, replaced = self.played(batch, random)
        true, mask = batch["original"][batch["hidden"]], batch["mask"]
        self.metrics["f1"].update(judged[mask], replaced[mask].long())
        self.metrics["base_f1"].update(torch.ones_like(judged[mask]), replaced[mask].long())
        self.metrics["loss"].update(binary_cross_entropy_with_logits(judged[mask], replaced[mask].float(), reduction="none"))
        self.metrics["generator_loss"].update(cross_entropy(logits, true, reduction="none"))
        self.metrics["generator_accuracy"].update((logits.argmax(-1) == true).float())

    @torch.inference_mode()
    def predict(self, inputs: dict[str, list[str]]) -> dict[str, Any]:
        """text: the pieces of each text, each with the probability that it does not belong there; probability: the largest."""
        device, found = next(self.parameters()).device, dict[str, list[Any]](text=[], probability=[])
        for text in inputs["text"]:
            batch = {name: x.to(device) for name, x in self.pieces.batch([text]).items()}
            chances = self.discriminator(**batch).float().squeeze(-1).sigmoid()[0, 1:-1].tolist()
            pieces = self.pieces.pieces(batch["tokens"][0, 1:-1].tolist())
            found["text"].append("\n".join(f"{piece} {chance:.3f}" for piece, chance in zip(pieces, chances, strict=True)))
            found["probability"].append(max(chances, default=0.0))
        return found

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """The first texts of a batch, in colour what was hidden: in green what was filled in rightly, in red what else."""
        rows = {name: x[:6] for name, x in batch.items()}
        with torch.no_grad():
            _, text, *_ = self.played(rows, Generator(batch["tokens"].device).manual_seed(0))
        return {"filled in": hidden_tokens(self.pieces, rows, text)}

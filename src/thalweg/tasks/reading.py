"""Reading: what is written on an image, such as a licence plate.   LBDL 1.1"""

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import ctc_loss
from torchmetrics import MetricCollection
from torchmetrics.text import CharErrorRate

from thalweg import figures
from thalweg.data.text import Characters
from thalweg.decoding.ctc import best_path, prefix_beam_search
from thalweg.metrics import MeanLoss, Share
from thalweg.training import Task
from thalweg.vocabulary import Batch


class Reading(Task):
    """The text on an image, whose symbols are given in their order but not where they stand.   loss = - log p(text | image)

    p sums over all ways in which the columns can say the text, see `thalweg.decoding.ctc`.
    batch: image [batch channel height width], tokens [batch time], 1 + the place of each symbol in the alphabet, 0 behind the
    end.   model: image -> logits [batch column 1 + symbol], the blank first.   A text too long for the columns does not count.
    exact: the share of texts read without an error, symbol by symbol (best path).   error: wrong, missing and superfluous
    symbols, by the number of true ones.
    """

    def __init__(self, model: nn.Module, alphabet: str):
        super().__init__()
        self.model, self.characters = model, Characters(alphabet)
        self.metrics = MetricCollection({"exact": Share(), "error": CharErrorRate(), "loss": MeanLoss()}, compute_groups=False)

    def cost(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """The loss of each text."""
        chances = logits.float().log_softmax(-1).transpose(0, 1)  # [column batch symbol]
        columns = torch.full_like(tokens[:, 0], len(chances))
        return ctc_loss(chances, tokens, columns, (tokens > 0).sum(1), reduction="none", zero_infinity=True)

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        return self.cost(self.model(batch["image"]), batch["tokens"]).sum(), len(batch["image"])

    def words(self, tokens: Tensor) -> list[str]:
        """The texts of tokens [batch time]."""
        return [self.characters.decode(token - 1 for token in row if token) for row in tokens.tolist()]

    def evaluate(self, batch: Batch) -> None:
        logits = self.model(batch["image"])
        read, true = self.words(best_path(logits)), self.words(batch["tokens"])
        self.metrics["exact"].update([float(one == other) for one, other in zip(read, true, strict=True)])
        self.metrics["error"].update(read, true)
        self.metrics["loss"].update(self.cost(logits, batch["tokens"]))

    @torch.inference_mode()
    def predict(self, inputs: Batch, *, top_k: int = 3, beam: int = 16) -> dict[str, Any]:
        """label: the top_k most probable texts, best first; probability: theirs.   inputs: image [batch channel height width]

        beam: how many beginnings of a text are kept while columns are read, top_k at least.
        ValueError if either is below 1.
        """
        if top_k < 1 or beam < 1:
            raise ValueError(f"top_k={top_k}, beam={beam}: expected at least 1 each")
        tokens, score = prefix_beam_search(self.model(inputs["image"]), beam=max(top_k, beam))
        return {"label": [self.words(row) for row in tokens[:, :top_k]], "probability": score[:, :top_k].exp()}

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """What is read on the first images of a batch, in red where it is wrong."""
        image = batch["image"][:24]
        with torch.no_grad():
            read, true = self.words(best_path(self.model(image))), self.words(batch["tokens"][:24])
        titles = [one if one == other else f"{one}\ntrue: {other}" for one, other in zip(read, true, strict=True)]
        colours = ["seagreen" if one == other else "firebrick" for one, other in zip(read, true, strict=True)]
        return {"read": figures.image_grid(image, titles, columns=4, colours=colours)}

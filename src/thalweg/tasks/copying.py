"""Copying: repeat what was shown, bit for bit, from memory.   LEE: Attention-based Model"""

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics import MetricCollection

from thalweg import figures
from thalweg.data.memory import copies
from thalweg.metrics import MeanLoss, Share
from thalweg.training import Task
from thalweg.vocabulary import Batch


class Copying(Task):
    """Repeats a sequence of vectors of bits after a signal.   loss = sum over bits of their cross-entropy

    model: a `NeuralTuringMachine` of bits + 1 features.   batch: series, target, mask, see `copies`.
    wrong_bits: of a sequence, on average;   whole: the share of sequences of which every bit is right.
    """

    reads = "bits"

    def __init__(self, model: nn.Module, bits: int = 8):
        super().__init__()
        self.model, self.bits = model, bits
        self.metrics = MetricCollection({"wrong_bits": MeanLoss(), "whole": Share(), "loss": MeanLoss()}, compute_groups=False)

    def terms(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of every bit that is to be repeated, and whether it is wrong.   [bit] each"""
        logits = self.model(batch["series"])[0].float()
        wrong = ((logits > 0) != (batch["target"] > 0.5)) & batch["mask"][..., None]
        losses = binary_cross_entropy_with_logits(logits[batch["mask"]], batch["target"][batch["mask"]], reduction="none")
        return losses, wrong.flatten(1).sum(1)

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        losses, _ = self.terms(batch)
        return losses.sum(), losses.numel()

    def evaluate(self, batch: Batch) -> None:
        losses, wrong = self.terms(batch)
        self.metrics["loss"].update(losses)
        self.metrics["wrong_bits"].update(wrong.float())
        self.metrics["whole"].update((wrong == 0).float())

    @torch.inference_mode()
    def predict(self, inputs: Batch) -> dict[str, Any]:
        """bits: as it repeats them.   inputs: bits [batch time*bits], those of each vector in turn; ValueError for others"""
        given = inputs["bits"]
        if given.shape[1] % self.bits or not ((given == 0) | (given == 1)).all():
            raise ValueError(f"bits: {given.shape[1]} numbers, expected zeros and ones, {self.bits} for each vector")
        time = given.shape[1] // self.bits
        series = given.new_zeros(len(given), 2 * time + 1, self.bits + 1)
        series[:, :time, :-1] = given.unflatten(1, (time, -1))
        series[:, time, -1] = 1
        return {"bits": (self.model(series)[0][:, time + 1 :] > 0).flatten(1).int()}

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """Where the heads were while it heard, and while it repeated; and what it repeated, of 20 vectors and of 40."""
        drawn = {}
        for time in (20, 40):
            example = {name: tensor.to(batch["series"].device) for name, tensor in copies(1, time, time, self.bits, 0).items()}
            logits, heads = self.model(example["series"])
            writer, reader = heads[0].mT
            drawn[f"{time} vectors"] = figures.matrices(
                {
                    "written to (place, step)": writer[:, :time],
                    "read from (place, step)": reader[:, time + 1 :],
                    "shown": example["series"][0, :time, :-1].T,
                    "repeated": logits[0, time + 1 :].sigmoid().T,
                },
                columns=2,
            )
        return drawn

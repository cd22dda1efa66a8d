"""Restoration: a degraded image back to what it was.   LBDL 6.1"""

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import interpolate, l1_loss, pad
from torchmetrics import MetricCollection
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from thalweg import figures
from thalweg.training import Task
from thalweg.vocabulary import Batch, scaled

TILE, MARGIN = 256, 32  # pixels of an image that are restored at a time, and around them, only looked at


class Restoration(Task):
    """A degraded image back to what it was.   loss = |model(image) - target|, summed over pixels and channels

    batch: image degraded and target clean [batch channel height width], uint8 or float in [0, 1].
    model: images in [0, 1] of any extent -> images of the same.   enlarge: how many times larger predict makes an image
    before it is restored, as the images to learn from were made larger.
    Metrics: psnr (dB; of the error of all pixels together) and ssim, and the same of the degraded images, before.
    """

    def __init__(self, model: nn.Module, enlarge: int = 1):
        super().__init__()
        if enlarge < 1:
            raise ValueError(f"enlarge={enlarge}: expected at least 1")
        self.model, self.enlarge = model, enlarge
        self.metrics = MetricCollection(
            {
                **{name: PeakSignalNoiseRatio(data_range=1.0) for name in ("psnr", "psnr_before")},
                **{name: StructuralSimilarityIndexMeasure(data_range=1.0) for name in ("ssim", "ssim_before")},
            },
            compute_groups=False,
        )

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        restored, target = self.model(scaled(batch["image"])), scaled(batch["target"])
        return l1_loss(restored, target, reduction="sum"), target.numel()

    def evaluate(self, batch: Batch) -> None:
        image, target = scaled(batch["image"]), scaled(batch["target"])
        restored = self.model(image).float().clamp(0, 1)
        with torch.autocast(image.device.type, enabled=False):  # SSIM subtracts squares that are nearly the same
            for name in ("psnr", "ssim"):
                self.metrics[name].update(restored, target)
                self.metrics[f"{name}_before"].update(image, target)

    @torch.inference_mode()
    def predict(self, inputs: Batch) -> dict[str, Any]:
        """image: restored, uint8, at its own extent times `enlarge`.   inputs: image [batch channel height width]"""
        image = scaled(inputs["image"])
        if self.enlarge > 1:
            image = interpolate(image, scale_factor=self.enlarge, mode="bicubic", antialias=True).clamp(0, 1)
        height, width = image.shape[-2:]
        restored, around = torch.empty_like(image), _mirrored(image)
        for top in range(0, height, TILE):  # a photograph at once would need gigabytes
            for left in range(0, width, TILE):
                seen = around[..., top : top + TILE + 2 * MARGIN, left : left + TILE + 2 * MARGIN]
                restored[..., top : top + TILE, left : left + TILE] = self.model(seen)[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
        return {"image": (restored.clamp(0, 1) * 255).round().to(torch.uint8)}

    def draw(self, inputs: Batch, predicted: dict[str, Any]) -> Figure:
        """The restored image, pixel for pixel."""
        return figures.picture(predicted["image"][0])

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """Before, after and truth of eight images, from the one that lost most to the one that gained most."""
        image, target = scaled(batch["image"]), scaled(batch["target"])
        restored = self.model(image).float().clamp(0, 1)
        before, after = (-10 * (x - target).square().mean((1, 2, 3)).clamp(min=1e-10).log10() for x in (image, restored))
        order = (after - before).argsort()
        shown = order[torch.linspace(0, len(order) - 1, min(8, len(order))).round().long()]
        strips = torch.stack([x[shown] for x in (image, restored, target)], 1).flatten(0, 1)
        titles = [title for index in shown.tolist()
                  for title in (f"before {before[index]:.1f} dB", f"after {after[index]:.1f} dB", "truth")]  # fmt: skip
        return {"before and after": figures.image_grid(strips, titles, columns=6)}


def _mirrored(image: Tensor) -> Tensor:
    """The image with its mirror around it, or its border where it is too small for that."""
    return pad(image, (MARGIN,) * 4, mode="reflect" if min(image.shape[-2:]) > MARGIN else "replicate")

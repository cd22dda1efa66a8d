"""Fast style transfer: what is learned is to paint, so that any photograph is painted in one pass."""

from collections.abc import Iterator
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchmetrics import MetricCollection

from thalweg import figures
from thalweg.losses import gram_matrix
from thalweg.metrics import MeanLoss
from thalweg.tasks.restoration import scaled
from thalweg.tasks.style_transfer import terms
from thalweg.training import Task
from thalweg.vocabulary import Batch


class FastStyle(Task):
    """A network learns to paint photographs in the style of one image, by the terms of `StyleTransfer`.

    loss = c content(model(x), x) + s style(model(x)) + v variation(model(x)), a term an image x.
    model: images in [0, 1] -> the same, painted.   backbone: `features(image)` gives maps; it stays as it is.
    content: number of the map by which a picture is to be like the photograph.   The style is set by `study`.
    batch: image, uint8 or float in [0, 1].   Johnson, Alahi, Fei-Fei 2016, arXiv:1603.08155.
    """

    def __init__(
        self,
        model: nn.Module,
        backbone: nn.Module,
        content: int = 2,
        content_weight: float = 1.0,
        style_weight: float = 10.0,
        variation_weight: float = 1.0,
    ):
        super().__init__()
        self.model, self.backbone, self.content = model, backbone.eval().requires_grad_(False), content
        self.weights = {"content": content_weight, "style": style_weight, "variation": variation_weight}
        self.metrics = MetricCollection({name: MeanLoss() for name in (*self.weights, "loss")}, compute_groups=False)
        with torch.no_grad():
            channels = [x.shape[1] for x in self._maps(next(backbone.parameters()).new_zeros(1, 3, 64, 64))]
        for number, count in enumerate(channels):
            self.register_buffer(f"gram_{number}", torch.zeros(count, count))

    def _maps(self, image: Tensor) -> list[Tensor]:
        return self.backbone.features(image)  # type: ignore[operator]

    def train(self, mode: bool = True) -> "FastStyle":
        """The backbone sees as in evaluation, always."""
        super().train(mode)
        self.backbone.eval()
        return self

    @torch.no_grad()
    def study(self, image: Tensor) -> None:
        """Sets the style to that of images [batch 3 height width]: the mean of the Gram matrices of each of their maps."""
        for number, x in enumerate(self._maps(image)):
            getattr(self, f"gram_{number}").copy_(gram_matrix(x).mean(0))

    def terms(self, image: Tensor) -> dict[str, Tensor]:
        """The content, style and variation terms of images in [0, 1], as they are painted, summed and not weighed."""
        with torch.no_grad():
            content = self._maps(image)[self.content]
        painted = self.model(image)
        maps = self._maps(painted)
        return terms(maps, painted, content, [getattr(self, f"gram_{number}") for number in range(len(maps))], self.content)

    def losses(self, batch: Batch) -> Iterator[tuple[nn.Module, Tensor, int]]:
        yield self.model, self._total(self.terms(scaled(batch["image"]))), len(batch["image"])

    def _total(self, terms: dict[str, Tensor]) -> Tensor:
        return sum(self.weights[name] * term for name, term in terms.items())  # type: ignore[return-value]

    def evaluate(self, batch: Batch) -> None:
        found, count = self.terms(scaled(batch["image"])), len(batch["image"])
        for name, term in {**found, "loss": self._total(found)}.items():
            self.metrics[name].update(term / count, count)

    @torch.inference_mode()
    def predict(self, inputs: Batch, *, longer: int = 1024) -> dict[str, Any]:
        """image: painted, uint8; scaled so that its longer side is at most `longer`, for strokes stay as wide as they are.

        inputs: image [batch channel height width]
        """
        image = scaled(inputs["image"])
        share = longer / max(image.shape[-2:])
        if share < 1:
            size = [max(8, round(side * share)) for side in image.shape[-2:]]
            image = interpolate(image, size, mode="bilinear", antialias=True)
        return {"image": (self.model(image).float() * 255).round().to(torch.uint8)}

    def draw(self, inputs: Batch, predicted: dict[str, Any]) -> Figure:
        """The painted image, pixel for pixel."""
        return figures.picture(predicted["image"][0])

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """Eight photographs above what is painted of them."""
        image = scaled(batch["image"][:8])
        with torch.no_grad():
            painted = self.model(image).float()
        return {"painted": figures.image_grid(torch.cat([image, painted]), columns=len(image))}

"""Fast style transfer: what is learned is to paint, so that any photograph is painted in one pass."""

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import interpolate

from thalweg import figures
from thalweg.losses import gram_matrix
from thalweg.tasks.style_transfer import StyleTransfer, terms
from thalweg.vocabulary import Batch, scaled


class FastStyle(StyleTransfer):
    """A network learns to paint photographs in the style of one image, by the terms of `StyleTransfer`.

    loss = c content(model(x), x) + s style(model(x)) + v variation(model(x)), a term an image x.
    model: images in [0, 1] -> the same, painted.   The style is set by `study`.
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
        super().__init__(model, backbone, content, content_weight, style_weight, variation_weight)
        backbone.eval()
        with torch.no_grad():
            channels = [x.shape[1] for x in self.maps(next(backbone.parameters()).new_zeros(1, 3, 64, 64))]
        for number, count in enumerate(channels):
            self.register_buffer(f"gram_{number}", torch.zeros(count, count))

    @torch.no_grad()
    def study(self, image: Tensor) -> None:
        """Sets the style to that of images [batch 3 height width]: the mean of the Gram matrices of each of their maps."""
        for number, x in enumerate(self.maps(image)):
            getattr(self, f"gram_{number}").copy_(gram_matrix(x).mean(0))

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The content, style and variation terms of the images as they are painted, summed over them and not weighed."""
        image = scaled(batch["image"])
        with torch.no_grad():
            content = self.maps(image)[self.content]
        painted = self.model(image)
        maps = self.maps(painted)
        return terms(maps, painted, content, [getattr(self, f"gram_{number}") for number in range(len(maps))], self.content)

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

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """Eight photographs above what is painted of them."""
        image = scaled(batch["image"][:8])
        with torch.no_grad():
            painted = self.model(image).float()
        return {"painted": figures.image_grid(torch.cat([image, painted]), columns=len(image))}

"""Style transfer: what is learned is an image, with the content of one photograph and the style of another.   D2L 13.12"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import MetricCollection

from thalweg import figures
from thalweg.losses import gram_matrix, style, total_variation
from thalweg.metrics import MeanLoss
from thalweg.training import Task
from thalweg.vocabulary import Batch, scaled


class Picture(nn.Module):
    """An image whose pixels are parameters.   () -> [1 channel height width], around [0, 1]"""

    def __init__(self, height: int, width: int, channels: int = 3):
        super().__init__()
        self.image = nn.Parameter(torch.rand(1, channels, height, width))

    def forward(self) -> Tensor:
        return self.image


def wanted(backbone: nn.Module, image: Tensor, style_image: Tensor, content: int = 2) -> Batch:
    """What a picture must have in common with the two images: of the one a map, of the other the Gram matrix of every map.

    content: number of the map; the deeper it is, the freer are details.   image, style_image: [1 channel height width]
    """
    with torch.no_grad():
        grams = {f"gram_{number}": gram_matrix(x) for number, x in enumerate(backbone.features(style_image))}  # type: ignore[operator]
        return {"image": image, "style": style_image, "content": backbone.features(image)[content], **grams}  # type: ignore[operator]


def terms(maps: Sequence[Tensor], image: Tensor, content: Tensor, grams: Sequence[Tensor], number: int) -> dict[str, Tensor]:
    """How far images are from what is wanted of them, in content, style and variation, each summed over the images.

    maps: of the images, [batch channel height width] each.   content: what the map of that number is to be, of each image.
    grams: the Gram matrix wanted of each map, of all images.   Each term is relative, so none depends on the maps' scale.
    """
    apart, size = (x.square().mean((1, 2, 3)) for x in (maps[number] - content, content))
    styles = [style(x, gram)[0] / gram.square().sum() for x, gram in zip(maps, grams, strict=True)]
    variation, count = total_variation(image)
    return {"content": (apart / size).sum(), "style": torch.stack(styles).mean(), "variation": len(image) * variation / count}


class StyleTransfer(Task):
    """A picture that looks, to a network that has learned to see, like one image by its content, like another by its style.

    loss = c |x - content|^2 / |content|^2 + s mean over the maps of |G(x) - gram|^2 / |gram|^2 + v total variation, x the
    map of the picture, G its Gram matrix; being relative, no term depends on the scale of the maps.
    model: `Picture`.   backbone: `features(image)` gives maps; it stays as it is.   content: number of the map, see `wanted`.
    batch: what `wanted` gives.   Gatys, Ecker, Bethge 2015, arXiv:1508.06576.   D2L 13.12
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
        self.model, self.backbone, self.content = model, backbone.requires_grad_(False), content
        self.weights = {"content": content_weight, "style": style_weight, "variation": variation_weight}
        self.metrics = MetricCollection({name: MeanLoss() for name in (*self.weights, "loss")}, compute_groups=False)

    def train(self, mode: bool = True) -> "StyleTransfer":
        """The backbone sees as in evaluation, always."""
        super().train(mode)
        self.backbone.eval()
        return self

    def maps(self, image: Tensor) -> list[Tensor]:
        return self.backbone.features(image)  # type: ignore[operator]

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The content, style and variation terms, summed over the images and not weighed."""
        image = self.model()
        maps = self.maps(image)
        grams = [batch[f"gram_{number}"] for number in range(len(maps))]
        return terms(maps, image, batch["content"], grams, self.content)

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        return sum(self.weights[name] * term for name, term in terms.items())  # type: ignore[return-value]

    def losses(self, batch: Batch) -> Iterator[tuple[nn.Module, Tensor, int]]:
        yield self.model, self.total(self.terms(batch)), len(batch["image"])

    def evaluate(self, batch: Batch) -> None:
        terms, count = self.terms(batch), len(batch["image"])
        for name, term in {**terms, "loss": self.total(terms)}.items():
            self.metrics[name].update(term / count, count)

    @torch.inference_mode()
    def predict(self, inputs: Batch) -> dict[str, Any]:
        """image: the picture, uint8, whatever the inputs are."""
        return {"image": (self.model().clamp(0, 1) * 255).round().to(torch.uint8)}

    def draw(self, inputs: Batch, predicted: dict[str, Any]) -> Figure:
        """The picture, pixel for pixel."""
        return figures.picture(predicted["image"][0])

    def figures(self, batch: Batch) -> dict[str, Figure]:
        """The picture by itself, and between the two images that it is made of."""
        image = self.model().detach()
        content, painting = (scaled(batch[name]) for name in ("image", "style"))
        return {
            "picture": figures.picture(image[0]),
            "content, picture, style": figures.image_grid(torch.cat([content, image, painting])),
        }

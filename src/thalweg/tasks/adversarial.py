"""Adversarial learning: one network makes, another judges, each learns from the other.   LBDL 6.9.3, D2L 1.2"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import softplus
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.image.fid import FrechetInceptionDistance

from thalweg import figures
from thalweg.metrics import RandomFeatures
from thalweg.training import Task
from thalweg.vocabulary import Batch


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """What is computed inside sends gradients through the module, but leaves none in its parameters."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    yield
    for parameter in learning:
        parameter.requires_grad_(True)


class Adversarial(Task):
    """A generator learns to make images that a discriminator takes for real (a generative adversarial network).

    discriminator: - log s(D(x)) - log(1 - s(D(G(z))))      s the logistic function, D a logit, z ~ N(0, I)
    generator:     - log s(D(G(z)))                          non-saturating: it learns most where it is found out

    The generator learns against the discriminator's step of this batch, on the images that were judged there.
    generator: latent [batch latent_dim] -> image in [0, 1]; discriminator: image -> [batch 1].   batch: image.
    Goodfellow et al. 2014, arXiv:1406.2661.
    """

    reads = "count"

    def __init__(self, generator: nn.Module, discriminator: nn.Module):
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.latent_dim: int = generator.latent_dim  # type: ignore[assignment]
        self.metrics = MetricCollection(
            {
                "frechet_distance": FrechetInceptionDistance(RandomFeatures()),
                "real_taken_for_real": MeanMetric(),
                "generated_taken_for_real": MeanMetric(),
            },
            compute_groups=False,
        )

    def noise(self, count: int) -> Tensor:
        """Latent vectors [count latent_dim], where the generator lies."""
        device = next(self.generator.parameters()).device
        return torch.randn(count, self.latent_dim, device=device)

    def losses(self, batch: Batch) -> Iterator[tuple[nn.Module, Tensor, int]]:
        real, count = batch["image"], len(batch["image"])
        fake = self.generator(self.noise(count))
        doubt = softplus(-self.discriminator(real)).sum() + softplus(self.discriminator(fake.detach())).sum()
        yield self.discriminator, doubt, count
        with frozen(self.discriminator):
            caught = softplus(-self.discriminator(fake)).sum()
        yield self.generator, caught, count

    def evaluate(self, batch: Batch) -> None:
        """As many generated images as real ones.

        frechet_distance: between real and generated in the features of a fixed random network (RandomFeatures), so not
        comparable with the FID of papers; 0 for the same distribution.   The other two: shares of images.
        """
        real = batch["image"]
        fake = self.generator(self.noise(len(real))).float()
        self.metrics["frechet_distance"].update(real, real=True)
        self.metrics["frechet_distance"].update(fake, real=False)
        self.metrics["real_taken_for_real"].update((self.discriminator(real) > 0).float())
        self.metrics["generated_taken_for_real"].update((self.discriminator(fake) > 0).float())

    @torch.inference_mode()
    def predict(self, inputs: Batch, *, seed: int = 0) -> dict[str, Any]:
        """image: new images [count channel height width] in [0, 1].   inputs: count, how many; the seed decides which"""
        count = float(inputs["count"])
        if not (count >= 1 and count.is_integer()):
            raise ValueError(f"count={count:g}: expected a whole number of images, at least 1")
        return {"image": self.generator(self._latent(int(count), seed)).float()}

    def draw(self, inputs: Batch, predicted: dict[str, Any]) -> Figure:
        return figures.image_grid(predicted["image"])

    def _latent(self, count: int, seed: int) -> Tensor:
        drawn = torch.randn(count, self.latent_dim, generator=torch.Generator().manual_seed(seed))
        return drawn.to(next(self.generator.parameters()).device)

    @torch.inference_mode()
    def figures(self, batch: Batch) -> dict[str, Figure]:
        """Samples of a fixed seed, and the way from one to another: smooth where images were not learned by heart."""
        ends = self._latent(16, seed=1)
        weight = torch.linspace(0, 1, 10, device=ends.device)[:, None]
        between = torch.cat([slerp(first, last, weight) for first, last in zip(ends[:8], ends[8:], strict=True)])
        return {
            "samples": figures.image_grid(self.predict({"count": torch.tensor(64)})["image"], columns=8),
            "interpolation": figures.image_grid(self.generator(between).float(), columns=10),
        }


def slerp(first: Tensor, last: Tensor, weight: Tensor) -> Tensor:
    """From one normal vector to another on an arc, so that the vectors between are as long as normal vectors are.

    sin((1 - w) a) / sin(a) first + sin(w a) / sin(a) last, a the angle between them.   [d], [d], [n 1] -> [n d]
    Shoemake 1985, "Animating rotation with quaternion curves".
    """
    angle = torch.acos(torch.cosine_similarity(first, last, dim=0))
    return (torch.sin((1 - weight) * angle) * first + torch.sin(weight * angle) * last) / torch.sin(angle)

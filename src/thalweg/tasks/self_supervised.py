"""Self-supervised learning: features from images alone.   LBDL 6.9.5, LEE GPT"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchmetrics import MeanMetric, MetricCollection

from thalweg import figures
from thalweg.metrics import LinearProbe, NearestNeighbours
from thalweg.training import Task
from thalweg.vocabulary import Batch


def perceptron(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    """One hidden layer: linear, batch normalisation, rectifier, linear."""
    return nn.Sequential(
        nn.Linear(in_dim, hidden_dim, bias=False), nn.BatchNorm1d(hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim)
    )


class BYOL(Task):
    """Bootstrap your own latent: foretells, from one view of an image, what a slow copy of itself makes of another view.

    loss = |q(g(f(v))) - g'(f'(v'))|^2 between vectors of length 1, summed over both orders of the views v, v' of an
    image. Encoder f, projector g and predictor q learn by it; the target f', g' gets no gradient but follows after every
    step: target = decay * target + (1 - decay) * online. Nothing pushes different images apart: that the target is slow
    and that only one side has a predictor keeps all images from collapsing into one vector.

    encoder: image -> [batch feature_dim].   batch: image, other_view [batch channel height width]; to evaluate image, label.
    Grill et al. 2020, arXiv:2006.07733.
    """

    def __init__(
        self,
        encoder: nn.Module,
        feature_dim: int,
        classes: Sequence[str] = (),
        projection_dim: int = 128,
        hidden_dim: int = 512,
        decay: float = 0.99,
    ):
        super().__init__()
        if not 0 <= decay <= 1:
            raise ValueError(f"decay={decay}: expected a number in [0, 1]")
        self.classes, self.decay = tuple(classes), decay
        self.encoder = encoder
        self.projector = perceptron(feature_dim, hidden_dim, projection_dim)
        self.predictor = perceptron(projection_dim, hidden_dim, projection_dim)
        self.target = nn.Sequential(deepcopy(encoder), deepcopy(self.projector)).requires_grad_(False)
        self.metrics = MetricCollection(
            {"linear_probe": LinearProbe(), "nearest_neighbours": NearestNeighbours(), "spread": MeanMetric()},
            compute_groups=False,
        )

    def losses(self, batch: Batch) -> Iterator[tuple[nn.Module, Tensor, int]]:
        views = torch.cat([batch["image"], batch["other_view"]])
        foretold = self.predictor(self.projector(self.encoder(views)))
        with torch.no_grad():
            first, second = self.target(views).chunk(2)
        distance = 2 - 2 * (normalize(foretold, dim=-1) * normalize(torch.cat([second, first]), dim=-1)).sum(-1)
        yield self, distance.sum(), len(batch["image"])
        self.follow()

    @torch.no_grad()
    def follow(self) -> None:
        """target = decay * target + (1 - decay) * online"""
        online: list[Tensor] = [*self.encoder.parameters(), *self.projector.parameters()]
        target: list[Tensor] = list(self.target.parameters())
        torch._foreach_lerp_(target, online, 1 - self.decay)

    def evaluate(self, batch: Batch) -> None:
        """linear_probe, nearest_neighbours: accuracy of simple classifiers on the features; spread: 0 where they collapsed."""
        features = self.encoder(batch["image"]).float()
        self.metrics["linear_probe"].update(features, batch["label"])
        self.metrics["nearest_neighbours"].update(features, batch["label"])
        projection = normalize(self.projector(features).float(), dim=-1)
        self.metrics["spread"].update(projection.std(0).mean() * projection.shape[1] ** 0.5)  # 1: evenly over the sphere

    @torch.inference_mode()
    def predict(self, inputs: Batch) -> dict[str, Any]:
        """features: [batch feature_dim]   inputs: image [batch channel height width]"""
        return {"features": self.encoder(inputs["image"]).float()}

    def figures(self, batch: Batch) -> dict[str, Figure]:
        seen = self.metrics["linear_probe"]
        assert isinstance(seen, LinearProbe)
        features, label = seen.seen()
        names = self.classes or [str(number) for number in range(int(label.max()) + 1)]
        return {
            "map of the features": figures.scatter(figures.principal_components(features[:3000]), label[:3000], names),
            "nearest neighbours": figures.nearest(batch["image"], self.predict(batch)["features"], batch["label"], names),
        }

"""What a spatial transformer is for: to read what lies anywhere, turned and of any size."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from thalweg.data.augmentation import scatter
from thalweg.data.sources import digits
from thalweg.data.streams import generator, take
from thalweg.layers.spatial_transformer import SpatialTransformer, look_first
from thalweg.models.classical.mlp import mlp

SIZE = 16
LIE = scatter(SIZE, degrees=30, smallest=0.8, largest=1.2)


def scattered(part, indices, random):
    batch = take(part, indices)
    return LIE({**batch, "image": batch["image"] / 255}, random)


def trained(model: nn.Module) -> tuple[nn.Module, float]:
    """The model after 250 steps, and how much of the test set it then reads."""
    splits, random = digits(), generator(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    for _ in range(250):
        batch = scattered(splits.train, torch.randint(len(splits.train["label"]), (128,), generator=random), random)
        loss = cross_entropy(model(batch["image"]), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    batch = scattered(splits.test, torch.arange(len(splits.test["label"])), generator(2))
    with torch.no_grad():
        return model.eval(), (model(batch["image"]).argmax(1) == batch["label"]).float().mean().item()


def centre(image: torch.Tensor) -> torch.Tensor:
    """Of the brightness, from -1 to 1 in each direction.   [batch 2]"""
    place = torch.linspace(-1, 1, image.shape[-1])
    mass = image[:, 0] / image[:, 0].sum((1, 2), keepdim=True)
    return torch.stack([mass.sum(1) @ place, mass.sum(2) @ place], 1)


def test_a_perceptron_reads_scattered_digits_through_a_transformer_and_hardly_without():
    _, without = trained(mlp(in_features=SIZE * SIZE, out_features=10, hidden_dims=[128]))
    seeing = mlp(in_features=64, out_features=10, hidden_dims=[128])
    model, through = trained(look_first(seeing, in_channels=1, image_size=SIZE, size=[8, 8], channels=[8, 16], hidden_dim=32))
    assert through > without + 0.15
    assert through > 0.75
    splits = digits()
    image = scattered(splits.test, torch.arange(300), generator(3))["image"]
    transformer = model.transformer
    assert isinstance(transformer, SpatialTransformer)
    with torch.no_grad():
        assert centre(transformer(image)).std() < 0.6 * centre(image).std()  # brought to one place

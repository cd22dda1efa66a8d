"""Classification through a spatial transformer: how much of a turn it takes back."""

import math

import torch
from torch.nn.functional import affine_grid, grid_sample

from thalweg.data.augmentation import scatter
from thalweg.data.streams import generator
from thalweg.layers.spatial_transformer import look_first
from thalweg.layers.standardize import standardize
from thalweg.models.classical.mlp import mlp
from thalweg.tasks.classification import Straightening

SIZE = 16


def turned(count: int, random: int = 1) -> dict[str, torch.Tensor]:
    image = torch.zeros(count, 1, 12, 12)
    image[:, :, 2:9, 5:8] = 1
    image[:, :, 7:9, 5:11] = 1
    return scatter(SIZE, degrees=60)({"image": image, "label": torch.zeros(count).long()}, generator(random))


def rotated(angle: torch.Tensor) -> torch.Tensor:
    """[batch 2 3]: reads every place at itself, turned by the angle."""
    still = torch.zeros_like(angle)
    return torch.stack(
        [torch.stack([angle.cos(), -angle.sin(), still], -1), torch.stack([angle.sin(), angle.cos(), still], -1)], 1
    )


def test_reading_along_the_opposite_angle_makes_an_image_upright():
    batch = turned(8)
    spread = {}
    for sign in (-1, 1):
        grid = affine_grid(rotated(sign * batch["angle"]), [8, 1, SIZE, SIZE], align_corners=False)
        seen = grid_sample(batch["image"], grid, align_corners=False)[:, 0]
        axis = torch.arange(SIZE) - 7.5
        mass = seen.sum((1, 2))
        y, x = (seen.sum(2) @ axis / mass)[:, None], (seen.sum(1) @ axis / mass)[:, None]
        both = torch.einsum("bij,bi,bj->b", seen, axis - y, axis - x) / mass
        spread[sign] = both.std()
    assert spread[-1] < 0.2 * spread[1]


def test_turned_back_is_the_share_of_the_turns_that_is_gone():
    torch.manual_seed(0)
    model = look_first(mlp(in_features=64, out_features=2, hidden_dims=[4]), in_channels=1, image_size=SIZE, size=[8, 8],
                       channels=[2, 2], hidden_dim=8)  # fmt: skip
    torch.nn.init.normal_(model.transformer.head.weight, std=0.3)
    task = Straightening(standardize(model, mean=[0.1], deviation=[0.3], size=[SIZE, SIZE]), classes=("a", "b")).eval()
    batch = turned(40)
    with torch.no_grad():
        task.evaluate(batch)
        affine = model.transformer.affine(task.model.standardize(batch["image"])).double()
    left = []
    for (a, b, _), (c, d, _), angle in zip(*affine.unbind(1), batch["angle"].tolist(), strict=True):
        left.append(angle + math.atan2(c - b, a + d))
    left, angle = torch.tensor(left), batch["angle"]
    expected = 1 - left.var(unbiased=False) / angle.var(unbiased=False)
    torch.testing.assert_close(task.metrics["turned_back"].compute(), expected.float(), rtol=1e-4, atol=1e-4)

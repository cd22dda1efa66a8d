"""The spatial transformer: a network decides where to look at its input, and how to turn it.   LEE: Spatial Transformer"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample


class SpatialTransformer(nn.Module):
    """Samples its input on a grid that the input itself has moved, turned, scaled and sheared.

    y[i, j] = x at (A (u_j, v_i) + b), bilinear between pixels, the border's value outside; u, v: the output's pixel centres
    from -1 to 1. The six numbers A (2x2), b (2) are a linear function of localization(x); at first A = I, b = 0.
    localization: a module from the input to [batch features].   size: height and width of the output, the input's where None.
    x: [batch channel height width] -> [batch channel height' width'].   Jaderberg et al. 2015, arXiv:1506.02025.
    """

    def __init__(self, localization: nn.Module, features: int, size: Sequence[int] | None = None):
        super().__init__()
        self.localization, self.size = localization, size
        self.head = nn.Linear(features, 6)
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            self.head.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]))

    def affine(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch 2 3"]:
        """A and, in the last column, b."""
        return self.head(self.localization(x)).unflatten(1, (2, 3))

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel rows columns"]:
        affine = self.affine(x)
        affine = affine.to(torch.promote_types(affine.dtype, torch.float32))
        with torch.autocast(x.device.type, enabled=False):  # eight bits of a place are no place
            grid = affine_grid(affine, [*x.shape[:2], *(self.size or x.shape[2:])], align_corners=False)
            return grid_sample(x.to(grid.dtype), grid, padding_mode="border", align_corners=False).to(x.dtype)


def look_first(
    model: nn.Module,
    *,
    in_channels: int,
    image_size: int,
    size: Sequence[int] | None = None,
    channels: Sequence[int] = (16, 32),
    hidden_dim: int = 64,
) -> nn.Sequential:
    """The model behind a spatial transformer whose localisation is a small convolutional network.

    image_size: extent of the images.   size: height and width of what the model sees.   channels: maps of each stage of the
    localisation, which halves the extent, hidden_dim: its features.
    """
    stages: list[nn.Module] = []
    width = in_channels
    for out in channels:
        stages += [nn.Conv2d(width, out, 5, padding=2), nn.MaxPool2d(2), nn.ReLU()]
        width = out
    flat = width * (image_size // 2 ** len(channels)) ** 2
    localization = nn.Sequential(*stages, nn.Flatten(), nn.Linear(flat, hidden_dim), nn.ReLU())
    transformer = SpatialTransformer(localization, hidden_dim, size)
    return nn.Sequential(OrderedDict(transformer=transformer, model=model))

"""A forecaster reads its own forecasts as if they had come true, and so looks further ahead."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def foretell(
    model: nn.Module, series: Float[Tensor, "batch time feature"], steps: int, context: int
) -> Float[Tensor, "batch steps feature"]:
    """The next `steps` values: each is foretold from at most `context` before it, of which some were foretold themselves.

    x'_{t+k} = model(..., x_t, x'_{t+1}, ..., x'_{t+k-1}): the k-step prediction, whose errors add up.   D2L 8.1
    ValueError if steps < 1.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: expected at least 1")
    for _ in range(steps):
        series = torch.cat([series, model(series[:, -context:])[:, -1:]], 1)
    return series[:, -steps:]

"""Where a token stands, for layers that see their inputs as a set."""

import torch
from jaxtyping import Float
from torch import Tensor


def rotation(start: int, time: int, dim: int, like: Tensor, base: float = 10000.0) -> Float[Tensor, "2 time dim"]:
    """Cosine and signed sine of the angles by which `rotate` turns the places start, ..., start + time - 1.

    angle(t, i) = t base^(-2 i / dim), i = 0, ..., dim / 2 - 1.   dim even.   like: gives type and device.
    ValueError if dim is odd.
    """
    if dim % 2:
        raise ValueError(f"dim={dim}: rotary positions turn pairs, so expected an even number")
    exact, device = torch.promote_types(like.dtype, torch.float32), like.device
    place, pair = (torch.arange(*ends, dtype=exact, device=device) for ends in ((start, start + time), (0, dim, 2)))
    angle = place[:, None] * base ** (-pair / dim)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.cat([cos, cos], 1), torch.cat([-sin, sin], 1)]).to(like.dtype)


def rotate(x: Float[Tensor, "*any time dim"], turn: Float[Tensor, "2 time dim"]) -> Float[Tensor, "*any time dim"]:
    """Turns each pair (x_i, x_{i + dim/2}) by an angle that grows with its place, so a dot product sees their distance.

    y_i = x_i cos(a_i) - x_{i + dim/2} sin(a_i),   y_{i + dim/2} = x_{i + dim/2} cos(a_i) + x_i sin(a_i).
    rotate(q, place s) . rotate(k, place t) depends on s - t alone.   Su et al. 2021, arXiv:2104.09864.
    Elsewhere: the paper turns neighbouring pairs (x_2i, x_2i+1); Hugging Face turns halves, as here.
    """
    cos, sin = turn
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)

"""Self-attention over an image, of which a convolution is a special case.   LEE: Self-Attention"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from thalweg.layers.attention import attention

SHARP = 8.0  # a head so sharp takes less than 1e-27 from the pixels beside the one that it looks at


class OffsetAttention(nn.Module):
    """Heads that look at what lies in a certain direction, at a pixel or a whole region, and at what a pixel asks for.

    y_i = b + W_o [h_1, ..., h_H],   h = sum_j a_ij W_v x_j,
    a_i = softmax_j(q_i . k_j / sqrt(dim) - sharpness^2 |place_j - place_i - centre|^2),
    q, k, sharpness and centre are a head's own.   centre: rows below and columns to the right.
    content: whether q and k count; else the places alone decide.
    dim: of a head's queries and keys, value_dim: of its values.   padding: pixels of zeros around the map, which are read.
    x: [batch channel height width] -> [batch out_channels height width].
    Cordonnier, Loukas, Jaggi 2019, arXiv:1911.03584, whose sharpness^2 is alpha.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_heads: int,
        dim: int = 16,
        value_dim: int = 16,
        content: bool = True,
        padding: int = 0,
    ):
        super().__init__()
        self.num_heads, self.padding = num_heads, padding
        self.query, self.key = (nn.Linear(in_channels, num_heads * dim) if content else None for _ in "qk")
        self.value = nn.Linear(in_channels, num_heads * value_dim, bias=False)  # so that padding stays zero
        self.output = nn.Linear(num_heads * value_dim, out_channels)
        self.centre = nn.Parameter(torch.randn(num_heads, 2))
        self.sharpness = nn.Parameter(torch.ones(num_heads))

    def nearness(self, height: int, width: int) -> Float[Tensor, "head place read"]:
        """- sharpness^2 |place_j - place_i - centre|^2 of all pixels i and j, row by row, the latter with the padding."""
        around, line = self.padding, self.centre
        squares = []
        for axis, length in enumerate((height, width)):
            own = torch.arange(length, device=line.device, dtype=line.dtype)
            read = torch.arange(-around, length + around, device=line.device, dtype=line.dtype)
            squares.append((read - own[:, None] - line[:, axis, None, None]).square())
        down, right = squares
        apart = down[:, :, None, :, None] + right[:, None, :, None, :]  # [head row column row column]
        return -self.sharpness.square()[:, None, None] * apart.flatten(3).flatten(1, 2)

    def split(self, x: Tensor) -> Tensor:
        """[batch place dim] -> [batch head place dim]"""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch out height width"]:
        extent = x.shape[2:]
        read = pad(x, (self.padding,) * 4).flatten(2).mT
        near, value = self.nearness(*extent), self.split(self.value(read))
        if self.query is None or self.key is None:
            y = near.softmax(-1).to(value) @ value  # the same weights for every image
        else:
            y = attention(self.split(self.query(x.flatten(2).mT)), self.split(self.key(read)), value, bias=near)
        return self.output(y.transpose(1, 2).flatten(2)).mT.unflatten(2, extent)


def as_attention(convolution: nn.Conv2d) -> OffsetAttention:
    """Self-attention that does what a convolution does: each head looks at one of its neighbours and takes all of it.

    A kernel of rows x columns takes as many heads. Each has its centre at one offset, is so sharp that no other pixel
    counts, and has the kernel's matrix of that offset as its part of the output. Exact up to rounding.
    ValueError unless the kernel has odd sides, stride 1, one group, and padding that keeps the extent.
    Cordonnier, Loukas, Jaggi 2019, arXiv:1911.03584, theorem 1.
    """
    weight, (down, right) = convolution.weight, convolution.dilation
    rows, columns = weight.shape[2:]
    around = [(rows // 2) * down, (columns // 2) * right]
    same = convolution.padding == "same" or list(convolution.padding) == around
    if rows % 2 == 0 or columns % 2 == 0 or set(convolution.stride) != {1} or convolution.groups > 1 or not same:
        raise ValueError(f"convolution={convolution}: expected odd sides, stride 1, one group, and an extent that is kept")
    channels = convolution.in_channels
    layer = OffsetAttention(channels, convolution.out_channels, rows * columns, value_dim=channels, content=False,
                            padding=max(around)).to(weight)  # fmt: skip
    with torch.no_grad():
        steps = [torch.arange(-(side // 2), side // 2 + 1) * step for side, step in ((rows, down), (columns, right))]
        layer.centre.copy_(torch.cartesian_prod(*steps))
        layer.sharpness.fill_(SHARP)
        layer.value.weight.copy_(torch.eye(channels).repeat(rows * columns, 1))
        layer.output.weight.copy_(weight.movedim(1, 3).flatten(1))
        nn.init.zeros_(layer.output.bias)
        if convolution.bias is not None:
            layer.output.bias.copy_(convolution.bias)
    return layer

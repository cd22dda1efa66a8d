"""Reversible layers: what went in is computed from what came out, so that nothing of the depth need be kept.   LBDL 3.4"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import grad
from torch.autograd.function import once_differentiable


class ReversibleBlock(nn.Module):
    """Each half of the channels is corrected by what the other says.

    y1 = x1 + f(x2),  y2 = x2 + g(y1);   inverse: x2 = y2 - g(y1),  x1 = y1 - f(x2), up to rounding.
    f, g: modules that keep the shape.   Gomez, Ren, Urtasun, Grosse 2017, arXiv:1707.04585.
    """

    def __init__(self, f: nn.Module, g: nn.Module):
        super().__init__()
        self.f, self.g = f, g

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        first = first + self.f(second)
        return first, second + self.g(first)

    def inverse(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        second = second - self.g(first)
        return first - self.f(second), second


class Reversible(nn.Module):
    """Reversible blocks one after the other: only the last output is kept, and the backward pass goes through the inverses.

    Memory does not grow with depth; a training step takes a forward pass more. The parts of the blocks run twice, so they
    may not be random (no dropout), and batch normalisation takes each batch into its running averages twice.
    dim: the axis whose halves are the two streams.   x: [...] with an even extent there -> the same shape.
    ValueError for parts with dropout or an odd extent.   Gomez, Ren, Urtasun, Grosse 2017, arXiv:1707.04585.
    """

    def __init__(self, blocks: Iterable[ReversibleBlock], dim: int = 1):
        super().__init__()
        self.blocks, self.dim = nn.ModuleList(blocks), dim
        for name, module in self.blocks.named_modules():
            if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
                raise ValueError(f"blocks: {name} is {module}, expected parts that give the same when they run again")

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(_ForgetInputs.apply(*self._halves(x), self.blocks, *self.blocks.parameters()), self.dim)

    def inverse(self, y: Tensor) -> Tensor:
        """The x of this y."""
        first, second = self._halves(y)
        for block in reversed(self.blocks):
            first, second = block.inverse(first, second)  # type: ignore[operator]
        return torch.cat([first, second], self.dim)

    def _halves(self, x: Tensor) -> tuple[Tensor, ...]:
        if x.shape[self.dim] % 2:
            raise ValueError(f"x: {tuple(x.shape)}, expected an even extent on axis {self.dim}")
        return x.chunk(2, self.dim)


class _ForgetInputs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, blocks: nn.ModuleList, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        device = first.device.type
        # what runs again must round as it did: the backward pass is outside the autocast of the loop
        ctx.autocast = {"device_type": device, "dtype": torch.get_autocast_dtype(device),
                        "enabled": torch.is_autocast_enabled(device)}  # fmt: skip
        ctx.blocks, ctx.parameters = blocks, parameters
        for block in blocks:
            first, second = block(first, second)
        ctx.save_for_backward(first, second)
        return first, second

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_first: Tensor, to_second: Tensor) -> tuple[Tensor | None, ...]:
        first, second = ctx.saved_tensors
        found: dict[Tensor, Tensor] = {}

        def undo(part: nn.Module, x: Tensor, y: Tensor, to_y: Tensor) -> tuple[Tensor, Tensor]:
            """y minus what the part made of x, and the gradient that comes back to x through the part."""
            inside = [parameter for parameter in part.parameters() if parameter.requires_grad]
            with torch.enable_grad(), torch.autocast(**ctx.autocast):
                x = x.detach().requires_grad_()
                made = part(x)
            to_x, *to_inside = grad(made, [x, *inside], to_y.to(made.dtype), allow_unused=True, materialize_grads=True)
            for parameter, gradient in zip(inside, to_inside, strict=True):
                found[parameter] = found[parameter] + gradient if parameter in found else gradient
            return y - made.detach(), to_x

        for block in reversed(ctx.blocks):
            second, back = undo(block.g, first, second, to_second)
            to_first = to_first + back
            first, back = undo(block.f, second, first, to_first)
            to_second = to_second + back
        return to_first, to_second, None, *(found.get(parameter) for parameter in ctx.parameters)

"""How weights start: what torch.nn.init has not.   LBDL 4.2, D2L 4.8, 13.11

A layer whose weights are too large or too small multiplies the size of what passes through it; fifty such layers explode
or vanish. All functions change the model in place and return it.
"""

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)


@torch.no_grad()
def initialise(model: M, scheme: str, *, gain: float = 1.0) -> M:
    """Draws the weights of every linear layer and convolution anew, so that signals keep their size; biases become 0.

    xavier: Var w = 2 gain^2 / (inputs + outputs), between what keeps values and what keeps gradients. Glorot, Bengio 2010.
    he: Var w = 2 gain^2 / inputs, for relu, which halves the mean square.   He et al. 2015, arXiv:1502.01852.
    lecun: Var w = gain^2 / inputs, for what is nearly linear around 0, such as tanh, and for SELU.   LeCun et al. 1998.
    orthogonal: W W' = gain^2, so that no direction is stretched.   Saxe et al. 2013, arXiv:1312.6120.
    inputs: how many one output is a sum of: those of a window; of a transposed convolution, of which 1 / stride overlap.
    ValueError for another scheme.
    """
    draws: dict[str, Callable[[Tensor], Tensor]] = {
        "xavier": nn.init.xavier_normal_,
        "he": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
        "lecun": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="linear"),
        "orthogonal": nn.init.orthogonal_,
    }
    if scheme not in draws:
        raise ValueError(f"scheme={scheme!r}: expected one of {list(draws)}")
    for module in model.modules():
        if isinstance(module, WEIGHTED):
            weight, scale = module.weight, gain
            if isinstance(module, TRANSPOSED):
                weight, scale = weight.transpose(0, 1), gain * math.sqrt(math.prod(module.stride) * module.groups)
            drawn = draws[scheme](torch.empty(weight.shape, dtype=weight.dtype, device=weight.device))
            weight.copy_(scale * drawn)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


@torch.no_grad()
def lsuv(model: M, *inputs: Tensor) -> M:
    """Orthogonal weights, each layer's then divided, in the order in which they run, so that it gives variance 1.

    w = w / sqrt(Var layer(x)), x what reaches the layer on a batch; once is enough, as a layer without bias is linear.
    Layer-sequential unit variance: right for every activation, with no formula for any. Biases become 0.
    inputs: what the model is called with, in evaluation mode.   ValueError if a layer gives the same for everything.
    Mishkin, Matas 2015, arXiv:1511.06422.
    """
    initialise(model, "orthogonal")
    scaled: set[nn.Module] = set()

    def scale(layer: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if layer in scaled:  # of a layer that runs twice, the first time counts
            return output
        scaled.add(layer)
        deviation = output.float().std()
        if not deviation > 0:
            raise ValueError(f"inputs: a {type(layer).__name__} gives the same for all of them; expected some variance")
        layer.weight.div_(deviation)  # type: ignore[operator, union-attr]
        return output / deviation

    hooks = [module.register_forward_hook(scale) for module in model.modules() if isinstance(module, WEIGHTED)]
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes:
            module.training = mode
    return model


@torch.no_grad()
def bilinear_(weight: Tensor) -> Tensor:
    """Makes a transposed convolution enlarge each channel by bilinear interpolation.   weight: [in out height width]

    w[c, c, i, j] = (1 - |i / s - m|) (1 - |j / s - m|), s = ceil(size / 2), m = (size - 1) / 2 / s; 0 between channels.
    With kernel_size 2 s - s % 2, stride s and padding (s - s % 2) / 2 it equals interpolation by s, but at the border,
    where there is nothing outside to average with.   ValueError for in != out unless out is 1.
    Long, Shelhamer, Darrell 2014, arXiv:1411.4038.
    """
    if weight.ndim != 4 or weight.shape[1] not in (1, weight.shape[0]):
        raise ValueError(f"weight: shape {tuple(weight.shape)}, expected [channel channel height width], or 1 for groups")
    channels, each, height, width = weight.shape
    between = torch.eye(channels).double() if each == channels else torch.ones(channels, 1).double()
    return weight.copy_(between[:, :, None, None] * torch.outer(_tent(height), _tent(width)))


def _tent(size: int) -> Tensor:
    """A triangle over the pixels of a kernel."""
    half = -(-size // 2)
    return 1 - ((torch.arange(size, dtype=torch.float64) - (size - 1) / 2) / half).abs()

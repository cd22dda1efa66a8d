"""Weights of few bits, unpacked while they are multiplied: a text is written at the speed at which its weights are read.

To write a token every weight is read once and multiplied once, so that a processor mostly waits for its memory, and a weight
of four bits is there four times as soon as one of sixteen. Where many tokens are read at a time the products take the time,
and the weights are multiplied as they were.
"""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

GROUP, FEW = 32, 16  # numbers that share a scale; rows up to which unpacking is the faster way
CANDIDATES = 256  # tokens whose logits are computed anew


def pack(weight: Float[Tensor, "out embed"]) -> tuple[Tensor, Float[Tensor, "group out 2"]]:
    """Four bits a weight, and of every 32 neighbouring weights of a row the scale s and the middle z.

    w = (q - 8) s + z, q = 0, ..., 15, s = (max - min) / 15, z = min + 8 s, in bf16. Weights that lie on such a grid, those of a
    GGUF file of type Q4_1, are only rounded in their s and z.
    """
    groups = weight.float().unflatten(1, (-1, GROUP))  # [out group 32]
    low, high = groups.amin(2), groups.amax(2)
    scale = ((high - low) / 15).clamp(min=1e-12)
    number = ((groups - low[..., None]) / scale[..., None]).round().flatten(1).int()
    scales = torch.stack([scale, low + 8 * scale], -1).transpose(0, 1)
    return torch._convert_weight_to_int4pack_for_cpu(number, 2), scales.bfloat16().contiguous()


class PackedLinear(nn.Module):
    """y = W x + b, for few rows by weights of four bits, see `pack`; for many by the same in bf16.   On a CPU, x in bf16."""

    packed: Tensor
    scales: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.detach().bfloat16(), False), bias
        for name, held in zip(("packed", "scales"), pack(weight.detach()), strict=True):
            self.register_buffer(name, held, persistent=False)

    def forward(self, x: Float[Tensor, "*any embed"]) -> Float[Tensor, "*any out"]:
        if x.numel() > FEW * x.shape[-1]:
            return linear(x, self.weight, self.bias)
        y = torch._weight_int4pack_mm_for_cpu(x.reshape(-1, x.shape[-1]), self.packed, GROUP, self.scales)
        y = y.view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


class PackedHead(PackedLinear):
    """Logits by weights of four bits; those of the CANDIDATES largest are then computed anew in bf16, for few rows as well.

    So what is likely is as likely as by the weights themselves, and only the improbable rest is rounded.
    """

    def forward(self, x: Float[Tensor, "*any embed"]) -> Float[Tensor, "*any vocab"]:
        y = super().forward(x)
        if x.numel() > FEW * x.shape[-1]:
            return y
        best = y.topk(min(CANDIDATES, y.shape[-1]), sorted=False).indices
        return y.scatter_(-1, best, (self.weight[best] @ x[..., None]).squeeze(-1))


def packed(model: nn.Module) -> nn.Module:
    """A language model to write with, changed in place: blocks and head in four bits, all else in bf16.

    Layers whose sizes are not multiples of 32 and 16 stay in bf16, and so does the head of a model that has none of its own.
    """

    def fits(weight: Tensor) -> bool:
        return not weight.shape[1] % GROUP and not weight.shape[0] % 16

    for block in cast(nn.ModuleList, model.blocks):
        for name, layer in list(block.named_modules()):
            if isinstance(layer, nn.Linear) and fits(layer.weight):
                place, _, attribute = name.rpartition(".")
                setattr(block.get_submodule(place), attribute, PackedLinear(layer.weight, layer.bias))
    if hasattr(model, "head"):
        weight = cast(nn.Linear, model.embedding if model.head is None else model.head).weight
        if fits(weight):
            model.head = PackedHead(weight)
    return model.to(torch.bfloat16)

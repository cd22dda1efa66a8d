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


class PackedLinear(nn.Module):
    """y = W x + b, of which every 32 neighbouring weights of a row are a scale, a middle and four bits each.

    w = (q - 8) s + z, q = 0, ..., 15, s = (max - min) / 15, z = min + 8 s; s and z in bf16, as x is. Weights that lie on such a
    grid, those of a GGUF file of type Q4_1, are only rounded in their s and z.   On a CPU.
    """

    packed: Tensor
    scales: Tensor

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.weight, self.bias = nn.Parameter(layer.weight.detach().bfloat16(), False), layer.bias
        groups = layer.weight.detach().float().unflatten(1, (-1, GROUP))  # [out group 32]
        low, high = groups.amin(2), groups.amax(2)
        scale = ((high - low) / 15).clamp(min=1e-12)
        number = ((groups - low[..., None]) / scale[..., None]).round().flatten(1).int()
        self.register_buffer("packed", torch._convert_weight_to_int4pack_for_cpu(number, 2), persistent=False)
        scales = torch.stack([scale, low + 8 * scale], -1).transpose(0, 1)  # [group out 2]
        self.register_buffer("scales", scales.bfloat16().contiguous(), persistent=False)

    def forward(self, x: Float[Tensor, "*any embed"]) -> Float[Tensor, "*any out"]:
        if x.numel() > FEW * x.shape[-1]:
            return linear(x, self.weight, self.bias)
        rows = x.reshape(-1, x.shape[-1])
        y = torch._weight_int4pack_mm_for_cpu(rows, self.packed, GROUP, self.scales).view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


class PackedHead(nn.Module):
    """Logits by an embedding of eight bits a weight, each row with a scale of its own, the largest |w| / 127."""

    packed: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight.bfloat16(), False)
        scale = weight.float().abs().amax(1).clamp(min=1e-12) / 127
        self.register_buffer("packed", (weight.float() / scale[:, None]).round().to(torch.int8), persistent=False)
        self.register_buffer("scale", scale.bfloat16(), persistent=False)

    def forward(self, x: Float[Tensor, "*any embed"]) -> Float[Tensor, "*any vocab"]:
        if x.numel() > FEW * x.shape[-1]:
            return linear(x, self.weight)
        rows = x.reshape(-1, x.shape[-1])
        return torch._weight_int8pack_mm(rows, self.packed, self.scale).view(*x.shape[:-1], -1)


def packed(model: nn.Module) -> nn.Module:
    """A language model to write with, changed in place: its blocks in four bits, its head in eight, all else in bf16.

    Layers whose sizes are not multiples of 32 and 16 stay in bf16, and so does the head of a model that has none of its own.
    """
    for block in cast(nn.ModuleList, model.blocks):
        for name, layer in list(block.named_modules()):
            if isinstance(layer, nn.Linear) and not layer.in_features % GROUP and not layer.out_features % 16:
                place, _, attribute = name.rpartition(".")
                setattr(block.get_submodule(place), attribute, PackedLinear(layer))
    if hasattr(model, "head"):
        weight = (model.embedding if model.head is None else model.head).weight
        model.head = PackedHead(cast(Tensor, weight).detach())
    return model.to(torch.bfloat16)

"""What a model consists of: modules, shapes, parameters, floating-point operations.   LBDL 3.4"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Row:
    """A module: where it is, what it is, the shape it gave, its parameters, and its operations an example."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    flops: int


@torch.no_grad()
def summary(model: nn.Module, *inputs: Any, depth: int = 3) -> list[Row]:
    """A row a module down to a depth, in the order in which they ran; the first row is the whole model.

    flops: two a multiplication with addition, one forward pass of one example of `inputs`.   inputs: a batch of one.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    hooks = []
    for name, module in model.named_modules():
        if name.count(".") < depth:

            def keep(module: nn.Module, arguments: Any, output: Any, name: str = name) -> None:
                if isinstance(output, Tensor):
                    shapes[name] = tuple(output.shape)

            hooks.append(module.register_forward_hook(keep))
    counter = FlopCounterMode(display=False)
    mode = model.training
    model.eval()
    try:
        with counter:
            model(*inputs)
    finally:
        model.train(mode)
        for hook in hooks:
            hook.remove()
    root = type(model).__name__
    counts = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    rows = []
    for name, module in model.named_modules():
        if name in shapes:
            flops = counts.get(f"{root}.{name}" if name else root, 0)
            rows.append(Row(name or root, type(module).__name__, shapes[name], count_parameters(module), flops))
    return rows


def count_parameters(module: nn.Module) -> int:
    """Trainable numbers; a shared one counts once."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)

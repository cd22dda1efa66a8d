"""How large the values and gradients of every layer are at the start: what explodes or vanishes is seen before training.

LBDL 4.2, D2L 4.8; Glorot, Bengio 2010
"""

from dataclasses import dataclass
from math import nan
from pathlib import Path

import torch
from torch import Tensor, nn

from thalweg.figures import curves
from thalweg.training import Experiment, Training


@dataclass
class Layer:
    """A layer that ran: the variance of what it gave, and the mean square of the gradient that came back to it.

    The gradient is that of the mean loss with respect to one value, times the number of examples: what one example says.
    """

    name: str
    kind: str
    activation: float
    gradient: float | None = None


def variances(experiment: Experiment) -> list[Layer]:
    """The layers with weights of their own, in the order in which they ran on a first batch; nothing is learned."""
    training = Training(experiment, precision="fp32")
    layers: list[Layer] = []
    hooks = []
    batch = training.place(next(experiment.train.batches(0)))
    size = len(next(iter(batch.values())))
    for name, module in experiment.task.named_modules():
        if next(module.children(), None) is None and next(module.parameters(recurse=False), None) is not None:

            def keep(module: nn.Module, _: tuple, output: Tensor, name: str = name) -> None:
                if not isinstance(output, Tensor):
                    return
                layer = Layer(name, type(module).__name__, float(output.detach().float().var()))
                layers.append(layer)
                if output.requires_grad:
                    output.register_hook(lambda back: setattr(layer, "gradient", float((size * back.float()).square().mean())))

            hooks.append(module.register_forward_hook(keep))
    try:
        for _, total, count in experiment.task.losses(batch):
            (total / count).backward()
    finally:
        for hook in hooks:
            hook.remove()
        experiment.task.zero_grad()
    return layers


def draw_variances(experiment: Experiment, path: Path) -> str:
    """Draws the sizes over the layers into a picture and returns them as text, a line a layer."""
    torch.manual_seed(0)
    layers = variances(experiment)
    sizes = {
        "variance of values": [(place, layer.activation) for place, layer in enumerate(layers, 1)],
        "mean square of gradients": [(place, layer.gradient or nan) for place, layer in enumerate(layers, 1)],
    }
    figure = curves(sizes, xlabel="layer, in the order of running", log=True)
    figure.savefig(path)
    return "\n".join(
        f"{place:3} {layer.name:40} {layer.kind:18} values {layer.activation:<10.3g}"
        + ("" if layer.gradient is None else f" gradients {layer.gradient:.3g}")
        for place, layer in enumerate(layers, 1)
    )

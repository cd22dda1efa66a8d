"""What a model computes on the way: the output of any of its modules, and pictures of maps.   LBDL 4.2"""

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from thalweg.figures import feature_maps


@torch.no_grad()
def activations(model: nn.Module, *inputs: Any, names: Sequence[str] | None = None) -> dict[str, Tensor]:
    """The tensors that modules gave, by their names as in named_modules, in the order in which they ran, in evaluation mode.

    names: of the modules; all that give a tensor where None. A module that runs twice is there with its last output.
    ValueError, with what is close, for a name that the model does not have.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    for name in names or ():
        if name not in modules:
            close = difflib.get_close_matches(name, modules, 3, 0.3)
            raise ValueError(f"names: the model has no module {name!r}{f', but {close}' if close else ''}")
    found: dict[str, Tensor] = {}
    hooks = []
    for name in modules if names is None else names:

        def keep(module: nn.Module, arguments: Any, output: Any, name: str = name) -> None:
            if isinstance(output, Tensor):
                found[name] = output.clone()  # what follows may work in place

        hooks.append(modules[name].register_forward_hook(keep))
    mode = model.training
    model.eval()
    try:
        model(*inputs)
    finally:
        model.train(mode)
        for hook in hooks:
            hook.remove()
    return found


def draw_maps(model: nn.Module, image: Tensor, name: str) -> Figure:
    """The maps, one a channel, that the module of that name makes of an image.   image: [1 channel height width]

    ValueError if the module is unknown or gives no maps.
    """
    maps = activations(model, image, names=[name]).get(name)
    if maps is None or maps.ndim != 4:
        gave = "no tensor" if maps is None else tuple(maps.shape)
        raise ValueError(f"name={name!r}: the module gave {gave}, expected maps [batch channel height width]")
    return feature_maps(maps[0])

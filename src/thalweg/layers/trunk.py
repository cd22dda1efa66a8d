"""A network that names what is on images, as the trunk of one that says where it is.   LBDL 6.4, D2L 13.11"""

import torch
from torch import nn


@torch.no_grad()
def trunk(backbone: nn.Module) -> list[tuple[int, int]]:
    """Drops the head of a backbone; the channels of each of its maps, and how many pixels of the image a side of theirs is.

    backbone: as in `thalweg.vocabulary.Backbone`; ValueError if it is none.
    """
    if not hasattr(backbone, "features"):
        raise ValueError(f"backbone: {type(backbone).__name__} has no features(image), which gives a map a stage")
    backbone.head = nn.Identity()  # it would never receive a gradient
    first = next(weight for weight in backbone.parameters() if weight.ndim == 4)
    mode = backbone.training
    maps = backbone.eval().features(first.new_zeros(1, first.shape[1], 128, 128))  # type: ignore[operator]
    backbone.train(mode)
    return [(x.shape[1], 128 // x.shape[-1]) for x in maps]

"""What several layers of a network say of the same thing, weighed by who reads it.   Peters et al. 2018, arXiv:1802.05365"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm


class LayerMix(nn.Module):
    """gamma sum_k softmax(w)_k norm(h^k), of as many layers; at first their mean.   [... dim] each -> [... dim]

    norm: to mean 0 and variance 1 over dim, so that no layer speaks louder than its weight.
    """

    def __init__(self, num_layers: int):
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.zeros(num_layers)), nn.Parameter(torch.ones(()))

    def forward(self, layers: list[Float[Tensor, "*any dim"]]) -> Float[Tensor, "*any dim"]:
        alike = [layer_norm(layer, layer.shape[-1:]) for layer in layers]
        return self.scale * sum(share * layer for share, layer in zip(self.weight.softmax(0), alike, strict=True))

"""What several layers of a network say of the same thing, weighed by who reads it.   Peters et al. 2018, arXiv:1802.05365"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LayerMix(nn.Module):
    """gamma sum_k softmax(w)_k h^k, of as many layers; at first their mean.   [... dim] each -> [... dim]"""

    def __init__(self, num_layers: int):
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.zeros(num_layers)), nn.Parameter(torch.ones(()))

    def forward(self, layers: list[Float[Tensor, "*any dim"]]) -> Float[Tensor, "*any dim"]:
        return self.scale * sum(share * layer for share, layer in zip(self.weight.softmax(0), layers, strict=True))

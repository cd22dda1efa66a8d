"""Copying: a word of the source is written again, whether or not the vocabulary has it.   LEE Transformer"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad


class Copying(nn.Module):
    """A gate decides between a word of the vocabulary and one of those read, as attention shares itself among them.

    p(y) = g softmax(logits)_y + (1 - g) sum_{s: x_s = y} a_s,   g = sigmoid(w . h + b).
    h: [rows time in_features], logits: [rows time vocab], weights: a, [rows time read], shares that add up to 1,
    tokens: x, [rows read], below vocab + strangers -> log p, [rows time vocab+strangers]; the last `strangers` tokens stand
    for words that the vocabulary has not: they can be copied, and nothing else.
    See, Liu, Manning 2017, arXiv:1704.04368; similar: Gu et al. 2016, arXiv:1603.06393, whose scores share one softmax.
    """

    def __init__(self, in_features: int, strangers: int = 0):
        super().__init__()
        self.gate, self.strangers = nn.Linear(in_features, 1), strangers

    def forward(
        self,
        h: Float[Tensor, "rows time features"],
        logits: Float[Tensor, "rows time vocab"],
        weights: Float[Tensor, "rows time read"],
        tokens: Int[Tensor, "rows read"],
    ) -> Float[Tensor, "rows time all"]:
        gate, logits, weights = (x.float() if x.dtype == torch.bfloat16 else x for x in (self.gate(h), logits, weights))
        generated = pad(gate.sigmoid() * logits.softmax(-1), (0, self.strangers))
        copied = (-gate).sigmoid() * weights
        probability = generated.scatter_add(2, tokens[:, None].expand_as(copied), copied)
        return probability.clamp(min=torch.finfo(probability.dtype).tiny).log()  # which no loss or search takes for -inf

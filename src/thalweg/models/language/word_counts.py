"""A bag of words: what a text says by how often it says each word, whatever the order.

logits = bias + sum_t weight[token_t]: softmax regression on the counts of words, what every reader of order must beat.
D2L 15.1
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class WordCounts(nn.Module):
    """tokens, mask: [batch time] -> logits [batch class]"""

    def __init__(self, vocab_size: int, num_classes: int):
        super().__init__()
        self.embedding, self.bias = nn.Embedding(vocab_size, num_classes), nn.Parameter(torch.zeros(num_classes))
        nn.init.zeros_(self.embedding.weight)

    def forward(self, tokens: Int[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]) -> Float[Tensor, "batch class"]:
        return self.bias + (self.embedding(tokens) * mask[..., None]).sum(1)

"""textCNN: detectors of phrases slide over a text, and of each only the strongest answer counts.

e = embedding(tokens), zero where there is padding;   c_k = relu(conv_k(e)) for windows of k words, those that reach over an end
too;   logits = head(dropout([max_t c_k for k in kernel_sizes])).
The maximum over time makes texts of any length one vector, and gives each detector as many places as it has.
A convolution over time with the embedding as channels is one of a single-channel image that is as high as the embedding.
Kim 2014, "Convolutional neural networks for sentence classification", arXiv:1408.5882.   D2L 15.3
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


def max_over_time(x: Float[Tensor, "batch channel time"], mask: Bool[Tensor, "batch time"]) -> Float[Tensor, "batch channel"]:
    """The largest value of each channel, of the places of each example that are real, at least one.   Collobert et al. 2011"""
    return x.masked_fill(~mask[:, None], -torch.inf).amax(-1)


class TextCNN(nn.Module):
    """tokens, mask: [batch time], a mask that is True up to the end of each text -> logits [batch class]

    kernel_sizes: words that a detector sees; num_channels: detectors of each size.
    static: a second embedding beside the first, which does not learn; for vectors that were learned on more text.
    """

    def __init__(
        self,
        vocab_size: int,
        num_classes: int,
        embed_dim: int = 100,
        kernel_sizes: Sequence[int] = (3, 4, 5),
        num_channels: int = 100,
        dropout: float = 0.5,
        static: bool = False,
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.static_embedding = nn.Embedding(vocab_size, embed_dim).requires_grad_(False) if static else None
        width = embed_dim * (1 + static)
        self.convs = nn.ModuleList(nn.Conv1d(width, num_channels, size, padding=size - 1) for size in kernel_sizes)
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(num_channels * len(kernel_sizes), num_classes)

    def forward(self, tokens: Int[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]) -> Float[Tensor, "batch class"]:
        x = self.embedding(tokens)
        if self.static_embedding is not None:
            x = torch.cat([x, self.static_embedding(tokens)], -1)
        x = (x * mask[..., None]).mT
        length, found = mask.sum(1, keepdim=True), []
        for conv in self.convs:
            answers = conv(x).relu()
            reach = answers.shape[-1] - x.shape[-1]  # of windows over either end
            found.append(max_over_time(answers, torch.arange(answers.shape[-1], device=x.device) < length + reach))
        return self.head(self.dropout(torch.cat(found, 1)))

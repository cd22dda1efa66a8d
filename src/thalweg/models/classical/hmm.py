"""A hidden Markov model of tagged sentences: labels follow each other, and each says its word.

p(x, y) = p(y_1) prod_t p(y_t | y_{t-1}) p(x_t | y_t);   it is fitted by counting.   LEE: Deep & Structured
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from thalweg.layers.chain import LinearChain


class HiddenMarkovModel(nn.Module):
    """tokens [batch time] -> log p(word | label) of each [batch time label]; chain: log p of first labels and of neighbours.

    So `chain.score` of these is log p(x, y), `chain.log_partition` is log p(x), and `chain.best` the most probable labels.
    """

    def __init__(self, vocab_size: int, num_labels: int):
        super().__init__()
        self.chain = LinearChain(num_labels)
        self.emission = nn.Parameter(torch.zeros(vocab_size, num_labels))

    def forward(self, tokens: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time label"]:
        return self.emission[tokens]

    @torch.no_grad()
    def fit(
        self,
        tokens: Int[Tensor, "batch time"],
        label: Int[Tensor, "batch time"],
        mask: Bool[Tensor, "batch time"],
        smoothing: float = 0.1,
    ) -> "HiddenMarkovModel":
        """The most probable parameters: shares of what was counted, every count increased by `smoothing`.

        p(word | label) = (count(label, word) + s) / (count(label) + s words), and so for first labels and for neighbours.
        """

        def shares(index: tuple[Tensor, ...], like: Tensor) -> Tensor:
            counts = torch.full_like(like, smoothing).index_put_(index, like.new_ones(()), accumulate=True)
            return (counts / counts.sum(-1, keepdim=True)).log()

        both = mask[:, 1:]
        self.emission.copy_(shares((label[mask], tokens[mask]), self.emission.mT.contiguous()).mT)
        self.chain.begin.copy_(shares((label[:, 0],), self.chain.begin))
        self.chain.transition.copy_(shares((label[:, :-1][both], label[:, 1:][both]), self.chain.transition))
        return self

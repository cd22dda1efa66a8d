"""GloVe: the vectors of two words multiply to the logarithm of how often the words stand together.   D2L 14.5

loss = sum_{ij} f(X_ij) (w_i . c_j + b_i + d_j - log X_ij)^2,   f(x) = min(x / most, 1)^power
X_ij: how often j stood near i (`cooccurrence`), symmetric, so that w and c mean the same and their sum is the word's vector.
Differences then tell ratios: (w_ice - w_steam) . c_k = log P(k | ice) / P(k | steam) + a constant, large for solid, small for
gas, and like for water and fashion.
Pennington, Socher, Manning 2014, doi:10.3115/v1/D14-1162.
"""

from jaxtyping import Float, Int
from torch import Tensor, nn

from thalweg.vocabulary import Batch


class GloVe(nn.Module):
    """batch: tokens, the words of cells that are not zero [batch 2]; target, X there [batch]."""

    def __init__(self, vocab_size: int, embed_dim: int = 100, most: float = 100.0, power: float = 0.75):
        super().__init__()
        self.most, self.power = most, power
        self.embedding, self.context = (nn.Embedding(vocab_size, embed_dim) for _ in range(2))
        self.embedding_bias, self.context_bias = (nn.Embedding(vocab_size, 1) for _ in range(2))
        for table in (self.embedding, self.context, self.embedding_bias, self.context_bias):
            nn.init.uniform_(table.weight, -0.5 / embed_dim, 0.5 / embed_dim)

    def forward(self, tokens: Int[Tensor, "batch 2"]) -> Float[Tensor, " batch"]:
        """What log X is taken to be."""
        one, other = tokens.unbind(1)
        return ((self.embedding(one) * self.context(other)).sum(-1) + self.embedding_bias(one)[:, 0]
                + self.context_bias(other)[:, 0])  # fmt: skip

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor | int]:
        """The sum over the cells and their number."""
        times = batch["target"]
        weight = (times / self.most).clamp(max=1) ** self.power
        return (weight * (self(batch["tokens"]).float() - times.log()) ** 2).sum(), len(times)

    def vectors(self) -> Float[Tensor, "word dim"]:
        """w + c of all words."""
        return self.embedding.weight + self.context.weight

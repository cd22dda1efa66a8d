"""Words that have their vectors already, learned elsewhere.   D2L 14.7"""

from jaxtyping import Float
from torch import Tensor, nn


class WordTable(nn.Module):
    """A vector a word, as it stands in a file."""

    def __init__(self, vocab_size: int, embed_dim: int):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embed_dim)

    def vectors(self) -> Float[Tensor, "word dim"]:
        """The vectors of all words."""
        return self.embedding.weight

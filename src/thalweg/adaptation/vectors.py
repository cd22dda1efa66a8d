"""A network starts from word vectors that were learned on other text.   D2L 15.2"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def start_from(embeddings: Sequence[nn.Embedding], words: Sequence[str], vector: Mapping[str, Tensor]) -> None:
    """The words that have a vector get it in every embedding; those of the others become as long as these, in the mean.

    words: in the order of their tokens.
    """
    rows = torch.tensor([place for place, word in enumerate(words) if word in vector])
    found = torch.stack([vector[words[row]] for row in rows.tolist()])
    for embedding in embeddings:
        with torch.no_grad():
            embedding.weight.mul_(found.std()).index_copy_(0, rows, found)

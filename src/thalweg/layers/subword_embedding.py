"""Vectors of words from their pieces, so that a word that was never seen has one too.   D2L 14.6"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding_bag


def fnv(text: str) -> int:
    """A number below 2^32 for a text, the same everywhere (Fowler, Noll, Vo)."""
    number = 2166136261
    for byte in text.encode():
        number = (number ^ byte) * 16777619 % 2**32
    return number


def ngrams(word: str, least: int, most: int) -> list[str]:
    """The pieces of <word> of so many characters each, the whole left out.   cat, 3, 4 -> <ca cat at> <cat cat>"""
    marked = f"<{word}>"
    return [marked[start : start + length] for length in range(least, most + 1)
            for start in range(len(marked) - length + 1) if length < len(marked)]  # fmt: skip


class SubwordEmbedding(nn.Module):
    """The vector of a word is that of itself and those of its n-grams together: cats and catlike know of cat.

    v_w = 1 / sqrt(n) sum_{g in {w, n-grams of <w>}} z_g,   n: how many there are. (By the root a step on the z moves a word of
    many pieces as far as one of few; the paper sums without it.) An n-gram has one of `buckets` vectors, by a hash of it.
    words: with spaces between them, in the order of their numbers.   least, most: characters of an n-gram.
    Bojanowski, Grave, Joulin, Mikolov 2016, arXiv:1607.04606.
    """

    pieces: Tensor
    size: Tensor

    def __init__(self, words: str, embed_dim: int, buckets: int = 50_000, least: int = 3, most: int = 6):
        super().__init__()
        listed = words.split()
        if not 1 <= least <= most or buckets < 1 or not listed:
            raise ValueError(f"least={least}, most={most}, buckets={buckets}, {len(listed)} words: expected 1 <= least <= "
                             "most, at least one bucket and one word")  # fmt: skip
        self.buckets, self.least, self.most = buckets, least, most
        self.weight = nn.Parameter(torch.empty(len(listed) + buckets, embed_dim))
        found = [[number, *self.numbers(word, len(listed))] for number, word in enumerate(listed)]
        longest = max(map(len, found))
        padded = torch.tensor([row + [0] * (longest - len(row)) for row in found], dtype=torch.int32)
        self.register_buffer("pieces", padded)
        self.register_buffer("size", torch.tensor([len(row) for row in found], dtype=torch.int32))
        nn.init.uniform_(self.weight, -0.5 / embed_dim, 0.5 / embed_dim)

    def numbers(self, word: str, known: int) -> list[int]:
        """The rows of weight of the n-grams of a word."""
        return [known + fnv(piece) % self.buckets for piece in ngrams(word, self.least, self.most)]

    def forward(self, tokens: Int[Tensor, "*any"]) -> Float[Tensor, "*any dim"]:
        rows, share = self.parts(tokens.reshape(-1))
        return embedding_bag(rows, self.weight, mode="sum", per_sample_weights=share).view(*tokens.shape, -1)

    def parts(self, tokens: Int[Tensor, "*any"]) -> tuple[Int[Tensor, "*any piece"], Float[Tensor, "*any piece"]]:
        """The rows of weight that words are put together from, and the share of each, 0 where there is none."""
        size = self.size[tokens][..., None]
        real = torch.arange(self.pieces.shape[1], device=size.device) < size
        return self.pieces[tokens], real / size.to(self.weight).sqrt()

    def spelled(self, word: str) -> Float[Tensor, " dim"]:
        """The vector of any word, by its n-grams alone.   ValueError if it is too short to have one."""
        rows = self.numbers(word, len(self.pieces))
        if not rows:
            raise ValueError(f"{word!r} has no piece of {self.least} to {self.most} letters")
        return self.weight[rows].sum(0) / len(rows) ** 0.5

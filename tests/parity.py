"""Weights that are a formula of their public names, so that a golden file need hold the outputs of a peer only.

Values are of order one: with small smooth weights a wrong epsilon or a wrong GELU would hardly move an output, and the
test would have no power.
"""

import math
import zlib
from collections.abc import Mapping

import torch
from torch import Tensor


def noise(name: str, size: int) -> Tensor:
    """Numbers of mean 0 and variance 1 that look random: a hash of place and name in integers, so equal on every machine."""
    x = torch.arange(size) * 0x9E3779B1 + zlib.crc32(name.encode()) & 0xFFFFFFFF
    for _ in range(2):
        x = (x >> 16 ^ x) * 0x45D9F3B & 0xFFFFFFFF
    return ((x >> 16 ^ x).double() / 2**32 - 0.5) * math.sqrt(12)


def fill(name: str, like: Tensor) -> Tensor:
    """The values of a public tensor of that name and shape."""
    if not like.is_floating_point():
        return torch.zeros_like(like)
    values = noise(name, like.numel()).reshape(like.shape)
    if name.endswith("running_var"):
        return 1 + 0.5 * values.abs()
    if name.endswith(("cls_token", "position_embeddings", "pos_embed")):
        return values
    if like.ndim == 1:
        return 1 + 0.3 * values if name.endswith("weight") else 0.3 * values
    fan = like[0].numel()
    return values * (math.sqrt(2 / fan) if like.ndim == 4 else 1.5 / math.sqrt(fan))


def filled(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Values for every public tensor."""
    return {name: fill(name, tensor) for name, tensor in tensors.items()}


def images(*shape: int) -> Tensor:
    """Images for a golden output."""
    return noise("image", math.prod(shape)).reshape(shape)


def tokens(*shape: int, vocab_size: int) -> Tensor:
    """Tokens for a golden output."""
    return (noise("tokens", math.prod(shape)) * 1e6).long().remainder(vocab_size).reshape(shape)


def half_as_long(batch: int, time: int) -> Tensor:
    """A mask of texts of which every second one is half as long.   [batch time]"""
    return torch.arange(time) < torch.tensor([time, time // 2]).repeat(batch)[:batch, None]


SENTENCES = ["A cat sits on the mat.", "a kitten rests on a rug", "Stock prices fell sharply on Monday.", "",
             "Größe – 中文 ½ ﬁ … naïve café", "word " * 400, "He sat on the bank of the river.",
             "The bank lends money to builders."]  # fmt: skip

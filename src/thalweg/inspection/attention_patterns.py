"""What the ways of attending really read, as pictures: the matrix that each puts between values and answers."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from thalweg.figures import matrices
from thalweg.layers.attention import attention
from thalweg.layers.clustered_attention import RoutedAttention, hashed_attention
from thalweg.layers.linear_attention import (
    Linformer,
    elu_features,
    linear_attention,
    orthogonal_directions,
    softmax_features,
)
from thalweg.layers.mixing import fourier_mixing
from thalweg.layers.sinkhorn_attention import SinkhornAttention
from thalweg.layers.sparse_attention import random_blocks, sparse_attention, strided_attention

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # query, key, value, [batch head time dim] each


def attention_matrix(
    attend: Attend, query: Float[Tensor, "time dim"], key: Float[Tensor, "time dim"]
) -> Float[Tensor, "time time"]:
    """How much each place (row) takes from each (column): the answer to one-hot values, in which all ways are linear."""
    with torch.no_grad():
        return attend(query[None, None], key[None, None], torch.eye(len(key)).to(key)[None, None])[0, 0]


def attention_patterns(time: int = 64, dim: int = 16, seed: int = 0) -> "Figure":
    """The matrices of the ways in `thalweg.layers`, all from the same queries and keys, which are of four kinds in turn.

    What is random or would be learned is as it was drawn.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kinds = torch.randn(4, dim)[torch.randint(4, (time // 4,))].repeat_interleave(4, 0)
        query, key = (normalize(kinds + 0.3 * torch.randn(time, dim)) * dim**0.5 for _ in range(2))
        chosen, window = random_blocks(time, 4, 2), 4
        directions, rotations = orthogonal_directions(4 * dim, dim), torch.randn(2, dim, 4)

        def by_features(phi: Callable[[Tensor, bool], Tensor]) -> Attend:
            return lambda q, k, v: linear_attention(phi(q, True), phi(k, False), v)

        ways: dict[str, Attend] = {
            "all": attention,
            "causal": partial(attention, causal=True),
            "window": partial(sparse_attention, window=window),
            "strided": partial(strided_attention, stride=8),
            "Longformer": partial(sparse_attention, window=window, tokens=2),
            "Big Bird": partial(sparse_attention, window=window, tokens=2, chosen=chosen),
            "Reformer": lambda q, _, v: hashed_attention(q, v, rotations, chunk=8),
            "Routing": RoutedAttention(1, dim, clusters=4).eval(),
            "Sinkhorn": SinkhornAttention(dim, time, block=8, temperature=0.1).eval(),
            "Linformer": Linformer(time, 8),
            "linear, elu + 1": by_features(lambda x, _: elu_features(x)),
            "Performer": by_features(lambda x, query: softmax_features(x, directions, query)),
            "random Synthesizer": lambda q, k, v: torch.randn(time, time).softmax(-1) @ v,
            "Fourier, of one channel": lambda q, k, v: torch.stack(
                [fourier_mixing(column[None, :, None])[0, :, 0] for column in v[0, 0].T], 1
            )[None, None],
        }
        return matrices({name: attention_matrix(attend, query, key) for name, attend in ways.items()})

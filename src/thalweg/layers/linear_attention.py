"""Attention whose cost grows as the length of the text: fewer keys, or a softmax that is taken apart into features.

Attention is a product of three matrices, (Q K') V. Without the softmax between, Q (K' V) is the same and never as large as the
text is long squared; features phi with phi(q) . phi(k) in place of exp(q . k) give back what the softmax was for.
LEE "Attention Variant"
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import elu, pad

from thalweg.layers.attention import attention

CHUNK = 64  # places whose pairs are computed as a matrix; those before come as one sum


class Linformer(nn.Module):
    """Attention to a few mixtures of keys instead of to all keys.

    y_t = sum_j a_tj (F v)_j,   a_t = softmax_j(q_t . (E k)_j / sqrt(dim)),   E, F: [keys context], learned, for all heads.
    query, key, value: [batch head time dim] -> [batch head time dim], time at most `context`: a shorter text has the first
    columns of E and F.   mask: True where a place is real; padding enters no mixture.   Not causal: a mixture knows the future.
    share: one matrix is both E and F.   ValueError if time > context.   Wang et al. 2020, arXiv:2006.04768.
    """

    def __init__(self, context: int, keys: int, share: bool = False):
        super().__init__()
        self.key = nn.Parameter(torch.randn(keys, context) / keys**0.5)
        self.value = self.key if share else nn.Parameter(torch.randn(keys, context) / keys**0.5)

    def forward(
        self,
        query: Float[Tensor, "batch head time dim"],
        key: Float[Tensor, "batch head time dim"],
        value: Float[Tensor, "batch head time out"],
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch head time out"]:
        time, context = key.shape[2], self.key.shape[1]
        if time > context:
            raise ValueError(f"key: {time} places, made for at most context={context}")
        if mask is not None:
            key, value = (x * mask[:, None, :, None] for x in (key, value))
        return attention(query, self.key[:, :time] @ key, self.value[:, :time] @ value)


Features = Callable[[Tensor], Tensor]


def elu_features(x: Float[Tensor, "*any dim"]) -> Float[Tensor, "*any dim"]:
    """phi(x) = elu(x) + 1: positive, and all that is asked of it.   Katharopoulos et al. 2020, arXiv:2006.16236."""
    return elu(x) + 1


def softmax_features(
    x: Float[Tensor, "*any time dim"], directions: Float[Tensor, "feature dim"], query: bool
) -> Float[Tensor, "*any time feature"]:
    """Random features whose product is on average that of the softmax, E[phi(q) . phi(k)] = c exp(q . k / sqrt(dim)).

    phi_i(x) = exp(w_i . z - |z|^2 / 2) / sqrt(features),   z = x / dim^(1/4).
    directions: the w_i, see `orthogonal_directions`.   query: of a query the largest exponent is taken out, of keys the largest
    of all places, so that nothing overflows: the c above, which the division by the sum of the weights takes away.
    Positive, so a sum of weights is not nearly zero (FAVOR+, the Performer).   Choromanski et al. 2020, arXiv:2009.14794.
    """
    z = x / x.shape[-1] ** 0.25
    exponent = z @ directions.to(z).mT - z.square().sum(-1, keepdim=True) / 2
    largest = exponent.detach().amax(-1 if query else (-1, -2), keepdim=True)
    return (exponent - largest).exp() / len(directions) ** 0.5


def orthogonal_directions(features: int, dim: int, generator: torch.Generator | None = None) -> Float[Tensor, "features dim"]:
    """Normal directions, of which each `dim` are at right angles: their errors do not add up.

    As long as independent normal vectors are.   Choromanski et al. 2020, arXiv:2009.14794.
    """
    squares = torch.randn(-(-features // dim), dim, dim, generator=generator)
    turned, triangle = torch.linalg.qr(squares)
    turned = turned * triangle.diagonal(dim1=-2, dim2=-1).sign()[:, None]  # without it some directions would be likelier
    return turned.mT.flatten(0, 1)[:features] * torch.randn(features, dim, generator=generator).norm(dim=1, keepdim=True)


def linear_attention(
    query: Float[Tensor, "batch head time feature"],
    key: Float[Tensor, "batch head time feature"],
    value: Float[Tensor, "batch head time out"],
    mask: Bool[Tensor, "batch time"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "batch head time out"]:
    """Attention whose weights are products of features: time and memory grow as the length.

    y_t = sum_s (phi(q_t) . phi(k_s)) v_s / sum_s (phi(q_t) . phi(k_s)),   causal: over s <= t.
    query, key: the features phi(q), phi(k), not negative.   mask: True where a place is real.
    causal: chunks of 64 places, of each the pairs inside and one sum over all the chunks before.
    Who may read nothing gets zeros. In float32 at least.   Katharopoulos et al. 2020, arXiv:2006.16236.
    """
    kind = query.dtype
    query, key, value = (x.to(torch.promote_types(kind, torch.float32)) for x in (query, key, value))
    value = pad(value, (0, 1), value=1.0)  # one more, whose sum is that of the weights
    if mask is not None:
        key = key * mask[:, None, :, None]
    if not causal:
        return _divided(query @ (key.mT @ value)).to(kind)
    time = query.shape[2]
    size = min(CHUNK, time)
    query, key, value = (pad(x, (0, 0, 0, -time % size)).unflatten(2, (-1, size)) for x in (query, key, value))
    sums = (key.mT @ value).cumsum(2)
    before = pad(sums[:, :, :-1], (0, 0, 0, 0, 1, 0))
    y = query @ before + (query @ key.mT).tril() @ value
    return _divided(y.flatten(2, 3)[:, :, :time]).to(kind)


def linear_attention_step(
    query: Float[Tensor, "batch head feature"],
    key: Float[Tensor, "batch head feature"],
    value: Float[Tensor, "batch head out"],
    state: Float[Tensor, "batch head feature more"] | None = None,
) -> tuple[Float[Tensor, "batch head out"], Float[Tensor, "batch head feature more"]]:
    """Causal `linear_attention` as a recurrent network: a place at a time, and all that was read in a state of one size.

    S_t = S_{t-1} + phi(k_t) [v_t, 1]',   y_t = phi(q_t)' S_t, divided by its last component.
    state: S_{t-1}, or None before the first place -> y_t, S_t.   Katharopoulos et al. 2020, arXiv:2006.16236.
    """
    new = key[..., None] * pad(value, (0, 1), value=1.0)[..., None, :]
    state = new if state is None else state + new
    return _divided((query[..., None, :] @ state).squeeze(-2)), state


def _divided(y: Tensor) -> Tensor:
    total = y[..., -1:]
    return y[..., :-1] / torch.where(total > 0, total, 1)

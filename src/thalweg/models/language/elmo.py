"""ELMo: a language model that reads both ways, and whose layers together say what a word means in its sentence.

f^0_t = b^0_t = embedding(token_t);   f^k_t = lstm_k(f^{k-1}_t, f^k_{t-1}),   b^k_t = lstm'_k(b^{k-1}_t, b^k_{t+1}), and for
k > 1 what the layer below says is added;
p(token_{t+1} | those before) = softmax(E f^K_t + c),   p(token_{t-1} | those after) = softmax(E b^K_t + c), E the embedding
The two directions never meet, or a word could see itself; each layer of the one stands beside the same of the other:
h^k_t = [f^k_t, b^k_t], and what a task reads is gamma sum_k softmax(w)_k norm(h^k_t), with w and gamma its own to learn.
Peters et al. 2018, "Deep contextualized word representations", arXiv:1802.05365.   D2L 14.8, LEE: ELMo
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import dropout, linear


class ELMo(nn.Module):
    """tokens, mask: [batch time], a mask that is True up to the end of each text -> two logits, each [batch time vocab]

    The first at t are of token t + 1, the second of token t - 1.   embed_dim: of words and of what a direction of a layer says;
    hidden_dim: of its cells.   dropout: in training as a language model, on words and on what layers say.
    state_dim, num_states: the size of a row of `layers`, and how many of them there are.
    """

    def __init__(self, vocab_size: int, embed_dim: int = 100, hidden_dim: int = 400, num_layers: int = 2, dropout: float = 0.3):
        super().__init__()
        self.embedding, self.bias = nn.Embedding(vocab_size, embed_dim), nn.Parameter(torch.zeros(vocab_size))
        self.dropout = dropout
        nn.init.normal_(self.embedding.weight, std=embed_dim**-0.5)
        sides: Any = ([nn.LSTM(embed_dim, hidden_dim, batch_first=True, proj_size=embed_dim) for _ in range(num_layers)]
                      for _ in range(2))  # fmt: skip
        self.forward_rnns, self.backward_rnns = (nn.ModuleList(side) for side in sides)
        self.state_dim, self.num_states = 2 * embed_dim, 1 + num_layers

    def _read(self, rnns: nn.ModuleList, x: Tensor, rate: float) -> list[Tensor]:
        """What each layer says, of words in the order in which it reads them."""
        layers = [x]
        for number, rnn in enumerate(rnns):
            said = dropout(rnn(layers[-1])[0], rate, rate > 0)
            layers.append(said + layers[-1] if number else said)
        return layers

    def _sides(self, tokens: Tensor, mask: Tensor, rate: float) -> tuple[list[Tensor], list[Tensor]]:
        """The layers of both directions, each word at its place."""
        place, length = torch.arange(tokens.shape[1], device=tokens.device), mask.sum(1, keepdim=True)
        turned = torch.where(mask, length - 1 - place, place)[..., None]  # each text back to front, padding where it was
        x = dropout(self.embedding(tokens), rate, rate > 0)
        after = self._read(self.backward_rnns, x.gather(1, turned.expand_as(x)), rate)
        return self._read(self.forward_rnns, x, rate), [layer.gather(1, turned.expand_as(layer)) for layer in after]

    def layers(
        self, tokens: Int[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]
    ) -> list[Float[Tensor, "batch time dim"]]:
        """h^0, ..., h^K; what is said of padding is nothing to go by."""
        return [torch.cat(pair, -1) for pair in zip(*self._sides(tokens, mask, 0.0), strict=True)]

    def forward(
        self, tokens: Int[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]
    ) -> tuple[Float[Tensor, "batch time vocab"], Float[Tensor, "batch time vocab"]]:
        before, after = self._sides(tokens, mask, self.dropout if self.training else 0.0)
        return linear(before[-1], self.embedding.weight, self.bias), linear(after[-1], self.embedding.weight, self.bias)

"""A bidirectional language model: what stands in a gap, by what is before it and by what is after it.

f_t = gru(x_t, f_{t-1}),   b_t = gru'(x_t, b_{t+1}),   p(x_t | all others) = softmax(head([f_{t-1}, b_{t+1}])).
Neither state has seen x_t itself, so that every place is a gap at once. It fills in; it cannot write a text from its start.
Schuster, Paliwal 1997, "Bidirectional recurrent neural networks".   D2L 9.4
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad


class BothSides(nn.Module):
    """tokens [batch time] -> logits of the token at each place, by all others [batch time vocab]

    sides: "both", or "before" for one that knows only what is before the gap.   ValueError for another.
    """

    def __init__(self, vocab_size: int, embed_dim: int = 64, hidden_dim: int = 128, sides: str = "both"):
        super().__init__()
        if sides not in ("both", "before"):
            raise ValueError(f"sides={sides!r}: expected both or before")
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.forward_rnn = nn.GRU(embed_dim, hidden_dim, batch_first=True)
        self.backward_rnn = nn.GRU(embed_dim, hidden_dim, batch_first=True) if sides == "both" else None
        self.head = nn.Linear((1 + (sides == "both")) * hidden_dim, vocab_size)

    def forward(self, tokens: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time vocab"]:
        x = self.embedding(tokens)
        states = pad(self.forward_rnn(x)[0], (0, 0, 1, -1))
        if self.backward_rnn is not None:
            after = self.backward_rnn(x.flip(1))[0].flip(1)
            states = torch.cat([states, pad(after, (0, 0, -1, 1))], -1)
        return self.head(states)

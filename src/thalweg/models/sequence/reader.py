"""A recurrent reader, and the shapes of its answers: one at the end, or one at every place.

h_t = rnn(x_t, h_{t-1});   many to one: y = head(h_T);   many to many: y_t = head(h_t), or, where it reads both ways,
y_t = head([h_t, g_t]) with g_t = rnn'(x_t, g_{t+1}).   One to one is a sequence of one place; one to many and answers of any
length are written by a decoder, see `Seq2Seq`.   LBDL 6.9, D2L 8.4, 9.4, LEE RNN, Self-Attention
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thalweg.layers.recurrence import irnn

CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM, "irnn": irnn}


class Reader(nn.Module):
    """[batch time in_features] -> [batch out_features], or with each [batch time out_features]

    cell: "rnn", "gru", "lstm" or "irnn" (rectifiers that start as the identity).   bidirectional: reads both ways.
    ValueError for another cell, or an irnn that reads both ways.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden_dim: int = 64,
        cell: str = "gru",
        each: bool = False,
        bidirectional: bool = False,
    ):
        super().__init__()
        if cell not in CELLS or (cell == "irnn" and bidirectional):
            raise ValueError(f"cell={cell!r}: expected one of {', '.join(CELLS)}, irnn in one direction")
        self.each, sides = each, 2 if bidirectional else 1
        if cell == "irnn":
            self.rnn: nn.Module = irnn(in_features, hidden_dim)
        else:
            self.rnn = CELLS[cell](in_features, hidden_dim, batch_first=True, bidirectional=bidirectional)  # type: ignore[operator]
        self.head = nn.Linear(sides * hidden_dim, out_features)

    def forward(self, x: Float[Tensor, "batch time input"]) -> Float[Tensor, "batch *time out"]:
        states, last = self.rnn(x)
        if self.each:
            return self.head(states)
        last = last[0] if isinstance(last, tuple) else last  # [side batch hidden]: each where it has read all
        return self.head(torch.cat(last.unbind(), -1))

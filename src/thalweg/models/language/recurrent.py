"""A recurrent language model: a state is all that it remembers of what it has read.

h_t = rnn(embedding(x_t), h_{t-1}),   p(x_{t+1} | x_1 ... x_t) = softmax(head(h_t)); with several layers each reads the states
of the one below. The same weights at every place: a longer text needs no more of them.   D2L 8.4-8.6, 9.1-9.3, LEE RNN
"""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import dropout, one_hot

from thalweg.layers.dropout import ByteDropout
from thalweg.layers.recurrence import QRNN, SCRN, irnn

CELLS: dict[str, type[nn.RNN] | type[nn.GRU] | type[nn.LSTM]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
OWN = ("irnn", "scrn", "qrnn")


class Layers(nn.Module):
    """Recurrent layers that torch has not, each reading the outputs of the one below.

    x: [batch time in], state: of each layer its parts, [1 batch size] each -> [batch time hidden], state
    Of an SCRN a quarter of the units are the slow ones of its context.
    """

    layers: Sequence[nn.Module]

    def __init__(self, cell: str, input_size: int, hidden_size: int, num_layers: int, dropout: float):
        super().__init__()
        self.cell, self.dropout, slow = cell, dropout, hidden_size // 4
        inputs = [input_size, *[hidden_size] * (num_layers - 1)]
        make = {"irnn": irnn, "scrn": lambda size, hidden: SCRN(size, hidden - slow, slow), "qrnn": QRNN}[cell]
        self.layers = nn.ModuleList(make(size, hidden_size) for size in inputs)  # type: ignore[assignment]
        parts = {"irnn": (hidden_size,), "scrn": (hidden_size - slow, slow), "qrnn": (0, hidden_size)}[cell]
        self.sizes = [[part or size for part in parts] for size in inputs]

    def forward(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        held, after = iter(state), list[Tensor]()
        for number, (layer, sizes) in enumerate(zip(self.layers, self.sizes, strict=True)):
            first, *more = (next(held)[0] for _ in sizes)
            if number:
                x = dropout(x, self.dropout, self.training)
            if self.cell == "irnn":
                x, last = layer(x, first[None])
                after.append(last)
            else:
                x, (last, *rest) = layer(x, (first[:, None] if self.cell == "qrnn" else first, *more))
                after += [last.view(1, len(x), -1), *(part[None] for part in rest)]
        return x, after


class RecurrentLanguageModel(nn.Module):
    """tokens [batch time] -> logits of the next one [batch time vocab]

    cell: "rnn" (Elman's), "gru" or "lstm"; "irnn", "scrn" or "qrnn", see thalweg.layers.recurrence.
    embed_dim: if None, what is read is one-hot, as in D2L.   dropout: on what each layer reads, in training, and on what
    the head reads (Zaremba, Sutskever, Vinyals 2014, arXiv:1409.2329).
    tied: the head has the embedding's weights (Inan et al. 2016, arXiv:1611.01462; Press, Wolf 2016, arXiv:1608.05859).
    ValueError for another cell, or if embedding and states that are to be tied are not of one width.
    cache: the state, each part [layer batch hidden]; it is changed to the one after the last token.
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int | None = None,
        hidden_dim: int = 256,
        num_layers: int = 1,
        cell: str = "gru",
        dropout: float = 0.0,
        tied: bool = False,
    ):
        super().__init__()
        if tied and embed_dim != hidden_dim:
            raise ValueError(f"tied=True, embed_dim={embed_dim}: expected hidden_dim={hidden_dim}")
        if cell not in (*CELLS, *OWN):
            raise ValueError(f"cell={cell!r}: expected one of {', '.join((*CELLS, *OWN))}")
        self.embedding, self.dropout = nn.Embedding(vocab_size, embed_dim) if embed_dim else None, ByteDropout(dropout)
        between = dropout if num_layers > 1 else 0.0
        if cell in OWN:
            self.rnn: Any = Layers(cell, embed_dim or vocab_size, hidden_dim, num_layers, between)
        else:
            self.rnn = CELLS[cell](embed_dim or vocab_size, hidden_dim, num_layers, batch_first=True, dropout=between)
        self.head = nn.Linear(hidden_dim, vocab_size)
        if tied and self.embedding:
            self.head.weight = self.embedding.weight
            nn.init.uniform_(self.head.weight, -0.1, 0.1)
            nn.init.zeros_(self.head.bias)

    def forward(
        self, tokens: Int[Tensor, "batch time"], cache: list[Tensor] | None = None
    ) -> Float[Tensor, "batch time vocab"]:
        state = self.new_cache(*tokens.shape) if cache is None else cache
        weight = self.head.weight
        x = self.dropout(self.embedding(tokens) if self.embedding else one_hot(tokens, len(weight)).to(weight))
        if isinstance(self.rnn, Layers):
            outputs, state[:] = self.rnn(x, state)
        else:
            outputs, after = self.rnn(x, tuple(state) if len(state) > 1 else state[0])
            state[:] = after if len(state) > 1 else [after]
        return self.head(self.dropout(outputs))

    def new_cache(self, batch: int, time: int) -> list[Tensor]:
        """The state before anything is read, zeros; it takes as much memory for a long text as for a short one."""
        if isinstance(self.rnn, Layers):
            return [self.head.weight.new_zeros(1, batch, size) for sizes in self.rnn.sizes for size in sizes]
        parts = 2 if isinstance(self.rnn, nn.LSTM) else 1
        return [self.head.weight.new_zeros(self.rnn.num_layers, batch, self.rnn.hidden_size) for _ in range(parts)]

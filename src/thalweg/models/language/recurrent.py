"""A recurrent language model: a state is all that it remembers of what it has read.

h_t = rnn(embedding(x_t), h_{t-1}),   p(x_{t+1} | x_1 ... x_t) = softmax(head(h_t)); with several layers each reads the states
of the one below. The same weights at every place: a longer text needs no more of them.   D2L 8.4-8.6, 9.1-9.3, LEE RNN
"""

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import one_hot

CELLS: dict[str, type[nn.RNN] | type[nn.GRU] | type[nn.LSTM]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class RecurrentLanguageModel(nn.Module):
    """tokens [batch time] -> logits of the next one [batch time vocab]

    cell: "rnn" (Elman's), "gru" or "lstm".   embed_dim: if None, what is read is one-hot, as in D2L.
    dropout: on what each layer reads, in training.   ValueError for another cell.
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
    ):
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"cell={cell!r}: expected one of {', '.join(CELLS)}")
        self.embedding, self.dropout = nn.Embedding(vocab_size, embed_dim) if embed_dim else None, nn.Dropout(dropout)
        self.rnn = CELLS[cell](embed_dim or vocab_size, hidden_dim, num_layers, batch_first=True,
                               dropout=dropout if num_layers > 1 else 0.0)  # fmt: skip
        self.head = nn.Linear(hidden_dim, vocab_size)

    def forward(
        self, tokens: Int[Tensor, "batch time"], cache: list[Tensor] | None = None
    ) -> Float[Tensor, "batch time vocab"]:
        state = self.new_cache(*tokens.shape) if cache is None else cache
        weight = self.head.weight
        x = self.embedding(tokens) if self.embedding else one_hot(tokens, len(weight)).to(weight)
        outputs, after = self.rnn(self.dropout(x), tuple(state) if len(state) > 1 else state[0])
        state[:] = after if len(state) > 1 else [after]
        return self.head(self.dropout(outputs))

    def new_cache(self, batch: int, time: int) -> list[Tensor]:
        """The state before anything is read, zeros; it takes as much memory for a long text as for a short one."""
        parts = 2 if isinstance(self.rnn, nn.LSTM) else 1
        return [self.head.weight.new_zeros(self.rnn.num_layers, batch, self.rnn.hidden_size) for _ in range(parts)]

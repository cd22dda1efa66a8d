"""What stood n places ago? A recurrent network has what its last state still holds, attention has everything that was read.

LSTM:       h_T = lstm(x_1 ... x_T),               logits of lag n = W_n h_T: whatever is to be said passes through one vector.
Attention:  y_n = sum_t a_nt v(x_t, t), a_n = softmax_t(q_n . k_t),  logits = head(y_n): each place is one step away.
LEE: Self-Attention, RNN; LBDL 6.9
"""

from jaxtyping import Float, Int
from torch import Tensor, nn

from thalweg.layers.attention import MultiHeadAttention


class LSTMRecall(nn.Module):
    """tokens [batch time] -> logits of what stood at the last place, at the one before ... [batch time vocab]"""

    def __init__(self, vocab_size: int, time: int, hidden_dim: int = 128):
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(vocab_size, hidden_dim), nn.LSTM(hidden_dim, hidden_dim, batch_first=True)
        self.head = nn.Linear(hidden_dim, time * vocab_size)

    def forward(self, tokens: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time vocab"]:
        states, _ = self.rnn(self.embedding(tokens))
        return self.head(states[:, -1]).view(len(tokens), -1, self.embedding.num_embeddings)


class AttentionRecall(nn.Module):
    """tokens [batch time] -> logits of what stood at the last place, at the one before ... [batch time vocab]

    A vector for each place, counted from the last, is what the tokens are told apart by and what is asked for.
    """

    def __init__(self, vocab_size: int, time: int, hidden_dim: int = 128, num_heads: int = 4):
        super().__init__()
        self.embedding, self.position = nn.Embedding(vocab_size, hidden_dim), nn.Embedding(time, hidden_dim)
        self.attention = MultiHeadAttention(hidden_dim, num_heads)
        self.head = nn.Linear(hidden_dim, vocab_size)

    def forward(self, tokens: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time vocab"]:
        position = self.position.weight[: tokens.shape[1]]
        memory = self.embedding(tokens) + position.flip(0)
        return self.head(self.attention(position.expand(len(tokens), -1, -1), memory))

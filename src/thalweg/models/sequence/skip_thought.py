"""Skip-Thought: what a sentence says is whatever helps to write the sentence before it and the one after it.

v = the last state of a network that reads the sentence, and two others write from it, each word after those before:
logits_t = head(gru([embedding(y_{t-1}), v], s_{t-1})), s_0 = v. Nobody labels anything: text that goes on is enough.
Kiros, Zhu, Salakhutdinov, Zemel, Torralba, Urtasun, Fidler 2015, arXiv:1506.06726.   LEE BERT
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from thalweg.models.sequence.seq2seq import Encoder


class SkipThought(nn.Module):
    """A sentence becomes a vector, and this the words of both its neighbours.

    tokens, mask: [batch read], the sentence; before_tokens, after_tokens: [batch time], its neighbours up to any word
    -> logits of the next word of the one before, and of the one after, [batch time vocab_size].
    The sentence is read in both directions, each with half of hidden_dim; all three networks share the embedding of words, and
    the two that write share the head.   arXiv:1506.06726
    """

    def __init__(self, vocab_size: int, embed_dim: int = 128, hidden_dim: int = 256):
        super().__init__()
        self.encoder = Encoder(vocab_size, embed_dim, hidden_dim, num_layers=1, dropout=0.0)
        for name, bias in self.encoder.rnn.named_parameters():
            if name.startswith("bias_ih"):  # of the gate that keeps: 1 / (1 - sigmoid(3)) = 21 words; else v is the last few
                nn.init.constant_(bias.chunk(3)[1], 3.0)
        self.before, self.after = (nn.GRU(embed_dim + hidden_dim, hidden_dim, batch_first=True) for _ in range(2))
        self.head = nn.Linear(hidden_dim, vocab_size)

    def forward(
        self,
        tokens: Int[Tensor, "batch read"],
        mask: Bool[Tensor, "batch read"],
        before_tokens: Int[Tensor, "batch time"],
        after_tokens: Int[Tensor, "batch later"],
    ) -> tuple[Float[Tensor, "batch time vocab"], Float[Tensor, "batch later vocab"]]:
        v = self.encode(tokens, mask)
        return self._written(self.before, before_tokens, v), self._written(self.after, after_tokens, v)

    def encode(self, tokens: Int[Tensor, "batch read"], mask: Bool[Tensor, "batch read"]) -> Float[Tensor, "batch hidden"]:
        """v, the vector of each sentence."""
        _, (state,) = self.encoder(tokens, mask)
        return state[:, -1]

    def _written(self, rnn: nn.GRU, tokens: Tensor, v: Tensor) -> Tensor:
        x = torch.cat([self.encoder.embedding(tokens), v[:, None].expand(-1, tokens.shape[1], -1)], -1)
        return self.head(rnn(x, v[None].contiguous())[0])

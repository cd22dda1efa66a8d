"""A recurrent network reads a text both ways, and its states at both ends say what the text is about.

h_t = lstm(x_t, h_{t-1}),   g_t = lstm'(x_t, g_{t+1}), in several layers, each reading both of the one below;
logits = head(dropout([h_1, g_1, h_T, g_T])), T the last word, not the padding: each direction as it starts and as it ends.
Graves, Schmidhuber 2005, "Framewise phoneme classification with bidirectional LSTM".   D2L 15.2
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from thalweg.layers.layer_mix import LayerMix


class BiRNN(nn.Module):
    """tokens, mask: [batch time], a mask that is True up to the end of each text -> logits [batch class]

    hidden_dim: of one direction.   dropout: of the words, between the layers and before the head.
    encoder: frozen, with the same tokens; its `layers`, mixed as the task likes, are read too: of a translation, or `ELMo`.
    """

    def __init__(
        self,
        vocab_size: int,
        num_classes: int,
        embed_dim: int = 100,
        hidden_dim: int = 100,
        num_layers: int = 2,
        dropout: float = 0.5,
        encoder: nn.Module | None = None,
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.encoder = encoder.requires_grad_(False) if encoder is not None else None
        self.mix = LayerMix(encoder.num_states) if encoder is not None else None  # type: ignore[arg-type]
        self.rnn = nn.LSTM(embed_dim + getattr(encoder, "state_dim", 0), hidden_dim, num_layers, batch_first=True,
                           bidirectional=True, dropout=dropout if num_layers > 1 else 0.0)  # fmt: skip
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(4 * hidden_dim, num_classes)

    def forward(self, tokens: Int[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]) -> Float[Tensor, "batch class"]:
        length, x = mask.sum(1), self.embedding(tokens)
        if self.encoder is not None and self.mix is not None:
            x = torch.cat([x, self.mix(self.encoder.layers(tokens, mask))], -1)  # type: ignore[operator]
        packed = pack_padded_sequence(self.dropout(x), length.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        last = states[torch.arange(len(states), device=states.device), length - 1]
        return self.head(self.dropout(torch.cat([states[:, 0], last], -1)))

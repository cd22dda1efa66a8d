"""A tagger says of each word what it is, by its letters, by itself, and by the words around it.

e_t = [embedding(word_t), embedding(affixes_t), max over places of relu(conv(embedding(letters_t)))],
logits_t = head(context(e)_t);   convolutions with kernels of 3 and of 5 letters; affixes are the first and the last few letters
context: a bidirectional LSTM sees the whole sentence, a recurrent network in reading direction what came before, attention the
whole at once, a window its neighbours.
Chiu, Nichols 2015, arXiv:1511.08308; Ma, Hovy 2016, arXiv:1603.01354.   D2L 9.4, LEE: RNN, Self-Attention
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from thalweg.data.pairs import UNK
from thalweg.layers.layer_mix import LayerMix
from thalweg.layers.position import sinusoidal

KERNELS = (3, 5)  # letters: of the longer, "tion" and the end of the word are one pattern
BUCKETS = 2048  # for affixes of each kind
CONTEXTS = ("both", "before", "elman", "attention", "window")


def affixes(letters: Int[Tensor, "*any letter"], buckets: int) -> Int[Tensor, "*any affix"]:
    """Numbers below 6 buckets for the first 2, 3 and 4 letters of a word and for its last, by hashing.

    letters: of words, 0 behind their end.
    """
    place = (letters > 0).sum(-1, keepdim=True) - torch.arange(1, 5, device=letters.device)  # of the last, the one before ...
    backward = letters.gather(-1, place.clamp(min=0)) * (place >= 0)
    numbers = list[Tensor]()
    for side in (letters[..., :4], backward):
        number = side[..., 0]
        for letter in side[..., 1:].unbind(-1):
            number = (number * 1_000_003 + letter) % buckets
            numbers.append(number + len(numbers) * buckets)
    return torch.stack(numbers, -1)


class Tagger(nn.Module):
    """tokens, mask: [batch time], letters: [batch time letter] (0 is padding) -> logits [batch time label]

    context: "both" (bidirectional LSTM), "before" (LSTM), "elman" (a plain recurrent network), "attention" (a block of a
    Transformer) or "window": `window` words either side, 0 for the word alone.
    hidden_dim: of the context, both directions together.   letter_dim: of what either kernel tells, affix_dim: each affix.
    unknown: share of the words that are taken for unknown in training, so that letters and neighbours must tell.
    encoder: frozen, with the same tokens; its `layers`, mixed as the task likes, are read too, see `ELMo`.
    ValueError for another context, or if 4 does not divide hidden_dim.
    """

    def __init__(
        self,
        vocab_size: int,
        num_letters: int,
        num_labels: int,
        embed_dim: int = 100,
        letter_dim: int = 64,
        affix_dim: int = 16,
        hidden_dim: int = 256,
        context: str = "both",
        window: int = 2,
        dropout: float = 0.5,
        unknown: float = 0.0,
        encoder: nn.Module | None = None,
    ):
        super().__init__()
        if context not in CONTEXTS or hidden_dim % 4:
            raise ValueError(f"context={context!r}, hidden_dim={hidden_dim}: expected one of {', '.join(CONTEXTS)}, and a "
                             "multiple of 4")  # fmt: skip
        self.embedding = nn.Embedding(vocab_size, embed_dim, padding_idx=0)
        self.letter_embedding = nn.Embedding(num_letters, 25, padding_idx=0)
        self.letter_convs = nn.ModuleList(nn.Conv1d(25, letter_dim, size, padding=size // 2) for size in KERNELS)
        self.affix_embedding = nn.Embedding(6 * BUCKETS, affix_dim)
        self.dropout, self.unknown = nn.Dropout(dropout), unknown
        self.encoder = encoder.requires_grad_(False) if encoder is not None else None
        self.mix = LayerMix(encoder.num_states) if encoder is not None else None  # type: ignore[arg-type]
        width = embed_dim + 6 * affix_dim + len(KERNELS) * letter_dim + getattr(encoder, "state_dim", 0)
        self.input = nn.Linear(width, hidden_dim) if context == "attention" else nn.Identity()
        if context == "window":
            self.context: nn.Module = nn.Conv1d(width, hidden_dim, 2 * window + 1, padding=window)
        elif context == "attention":
            self.context = nn.TransformerEncoderLayer(hidden_dim, 4, 2 * hidden_dim, dropout / 2, "gelu", batch_first=True,
                                                      norm_first=True)  # fmt: skip
        elif context == "both":
            self.context = nn.LSTM(width, hidden_dim // 2, batch_first=True, bidirectional=True)
        else:
            self.context = (nn.RNN if context == "elman" else nn.LSTM)(width, hidden_dim, batch_first=True)
        self.head = nn.Linear(hidden_dim, num_labels)

    def forward(
        self, tokens: Int[Tensor, "batch time"], letters: Int[Tensor, "batch time letter"], mask: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time label"]:
        if self.training and self.unknown:
            tokens = tokens.masked_fill(torch.rand(tokens.shape, device=tokens.device) < self.unknown, UNK)
        read = [self.embedding(tokens)]
        if self.encoder is not None and self.mix is not None:
            read.append(self.mix(self.encoder.layers(tokens, mask)))  # type: ignore[operator]
        spelt = self.letter_embedding(letters.flatten(0, 1)).mT
        told = [conv(spelt).relu().amax(-1).unflatten(0, tokens.shape) for conv in self.letter_convs]
        told.append(self.affix_embedding(affixes(letters, BUCKETS)).flatten(2))
        x = self.dropout(torch.cat([*read, *told], -1)) * mask[..., None]
        if isinstance(self.context, nn.Conv1d):
            seen = self.context(x.mT).mT.relu()
        elif isinstance(self.context, nn.TransformerEncoderLayer):
            x = self.input(x)
            x = x + sinusoidal(0, x.shape[1], x.shape[2], x)
            seen = self.context(x, src_key_padding_mask=~mask)
        else:
            packed = pack_padded_sequence(x, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
            seen, _ = pad_packed_sequence(self.context(packed)[0], batch_first=True, total_length=tokens.shape[1])
        return self.head(self.dropout(seen))

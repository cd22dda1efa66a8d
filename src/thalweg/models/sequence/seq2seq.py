"""A sentence is read by one recurrent network and written by another: once all from one state, once with an eye on the words.

The encoder reads the source in both directions and leaves a state s_0. The decoder starts there, and at every step reads the
word before and a context: s_t = rnn([embedding(y_{t-1}), c_t], s_{t-1}).
Seq2Seq: c_t is s_0, so a long sentence must fit into one vector; all steps of a known target are one call of torch's layer.
AttentionSeq2Seq: c_t = sum_s a_ts h_s, the encoder's outputs weighted by how well they answer s_{t-1}: another one each step.
It may look forward only, and it may copy words of the source, also such as no vocabulary has.

Sutskever, Vinyals, Le 2014, arXiv:1409.3215; Cho et al. 2014, arXiv:1406.1078, the context at every step; Bahdanau, Cho,
Bengio 2014, arXiv:1409.0473, the attention.   D2L 9.6-9.7, 10.4, LEE RNN
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from thalweg.data.pairs import UNK
from thalweg.layers.attention import AdditiveAttention, MovingWindow
from thalweg.layers.copying import Copying

LAYERS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}


class States(list[Tensor]):
    """Where a recurrent network is in each of its rows: the cache of a decoder that keeps nothing else."""

    def reorder(self, rows: Int[Tensor, " rows"]) -> None:
        """Row r goes on from where row rows[r] is."""
        self[:] = [state.index_select(0, rows) for state in self]


class Encoder(nn.Module):
    """Reads a sentence in both directions; each has half of hidden_dim, so that side by side they are the decoder's state.

    tokens, mask: [batch read], padding at the end -> outputs [batch read hidden], and the state after the last real word (an
    LSTM's has two parts), each [batch layer hidden].
    """

    def __init__(self, vocab_size: int, embed_dim: int, hidden_dim: int, num_layers: int, dropout: float, cell: str = "gru"):
        super().__init__()
        if cell not in LAYERS or hidden_dim % 2:
            raise ValueError(f"cell={cell!r}, hidden_dim={hidden_dim}: expected gru or lstm, and an even number")
        self.embedding, self.dropout = nn.Embedding(vocab_size, embed_dim), nn.Dropout(dropout)
        self.state_dim, self.num_states = hidden_dim, 1  # of `layers`
        self.rnn = LAYERS[cell](embed_dim, hidden_dim // 2, num_layers, batch_first=True, bidirectional=True,
                                dropout=dropout if num_layers > 1 else 0.0)  # fmt: skip

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, lengths = self.dropout(self.embedding(tokens)), mask.sum(1).cpu()  # torch packs by lengths on the CPU
        packed, state = self.rnn(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        outputs, _ = pad_packed_sequence(packed, batch_first=True, total_length=tokens.shape[1])
        parts = state if isinstance(state, tuple) else (state,)  # [layer x direction, batch, hidden/2]
        return outputs, [part.unflatten(0, (-1, 2)).permute(2, 0, 1, 3).flatten(2) for part in parts]

    def layers(self, tokens: Tensor, mask: Tensor) -> list[Tensor]:
        """The outputs: what each word means in its sentence, to who must translate it, and so to others too (CoVe).

        McCann, Bradbury, Xiong, Socher 2017, "Learned in translation", arXiv:1708.00107.
        """
        return [self(tokens, mask)[0]]


class Seq2Seq(nn.Module):
    """Two recurrent networks, joined by the state of the first.   logits_t = head(rnn([embedding(y_{t-1}), s_0], s_{t-1}))

    source_tokens, source_mask: [batch read], target_tokens: [batch time] -> logits [batch time target_vocab_size].
    cell: "gru" or "lstm".   dropout: on embeddings, between layers and before the head, in training.
    """

    def __init__(
        self,
        source_vocab_size: int,
        target_vocab_size: int,
        embed_dim: int = 256,
        hidden_dim: int = 256,
        num_layers: int = 2,
        dropout: float = 0.2,
        cell: str = "gru",
    ):
        super().__init__()
        self.encoder = Encoder(source_vocab_size, embed_dim, hidden_dim, num_layers, dropout, cell)
        self.embedding, self.dropout = nn.Embedding(target_vocab_size, embed_dim), nn.Dropout(dropout)
        self.rnn = LAYERS[cell](embed_dim + hidden_dim, hidden_dim, num_layers, batch_first=True,
                                dropout=dropout if num_layers > 1 else 0.0)  # fmt: skip
        self.head = nn.Linear(hidden_dim, target_vocab_size)

    def forward(
        self,
        source_tokens: Int[Tensor, "batch read"],
        source_mask: Bool[Tensor, "batch read"],
        target_tokens: Int[Tensor, "batch time"],
    ) -> Float[Tensor, "batch time vocab"]:
        return self.decode(target_tokens, self.encode(source_tokens, source_mask))

    def encode(self, source_tokens: Int[Tensor, "batch read"], source_mask: Bool[Tensor, "batch read"]) -> list[Tensor]:
        """s_0, each part [batch layer hidden]."""
        return self.encoder(source_tokens, source_mask)[1]

    def decode(
        self, target_tokens: Int[Tensor, "rows time"], memory: list[Tensor], cache: States | None = None
    ) -> Float[Tensor, "rows time vocab"]:
        rows, time = target_tokens.shape
        state = self.new_cache(memory, rows // len(memory[0]), time) if cache is None else cache
        context = memory[0][:, None, -1].repeat_interleave(rows // len(memory[0]), 0).expand(-1, time, -1)
        x = torch.cat([self.dropout(self.embedding(target_tokens)), context], -1)
        parts = [part.transpose(0, 1).contiguous() for part in state]
        outputs, after = self.rnn(x, tuple(parts) if len(parts) > 1 else parts[0])
        state[:] = [part.transpose(0, 1) for part in (after if len(parts) > 1 else (after,))]
        return self.head(self.dropout(outputs))

    def new_cache(self, memory: list[Tensor], copies: int, time: int) -> States:
        """s_0 for each target: the cache is the state."""
        return States(part.repeat_interleave(copies, 0) for part in memory)


class Memory(NamedTuple):
    """What the attention reads: tokens, outputs and projections of these [batch read hidden], where they are real, and s_0."""

    tokens: Tensor
    outputs: Tensor
    projected: Tensor
    mask: Tensor
    state: Tensor


class AttentionSeq2Seq(nn.Module):
    """A decoder that looks back at the words of the source before it writes one.

    c_t = attention(query s_{t-1}, keys and values the encoder's outputs),   s_t = gru([embedding(y_{t-1}), c_t], s_{t-1}),
    logits_t = head(tanh(W [s_t, c_t, embedding(y_{t-1})])).
    source_tokens, source_mask: [batch read], target_tokens: [batch time] -> logits [batch time target_vocab_size].
    num_layers: of the encoder; the decoder has one.   dropout: on embeddings, between layers and before the head, in training.
    attention: "additive", or "monotone", which goes forward only, see `MovingWindow`.
    copies: words of the source can be written again, see `Copying`; then the two vocabularies are one.
    strangers: the last so many tokens are the words of a source that are unknown; they are read alike, and can be copied.
    shared: one embedding for source and target, whose tokens are the same then.
    ValueError for another attention, if two vocabularies are to be one, and where copies would need shares that there are not.
    """

    def __init__(
        self,
        source_vocab_size: int,
        target_vocab_size: int,
        embed_dim: int = 256,
        hidden_dim: int = 256,
        num_layers: int = 1,
        dropout: float = 0.2,
        attention: str = "additive",
        copies: bool = False,
        strangers: int = 0,
        shared: bool = False,
    ):
        super().__init__()
        if attention not in ("additive", "monotone"):
            raise ValueError(f"attention={attention!r}: expected additive or monotone")
        if copies and (source_vocab_size != target_vocab_size or attention != "additive"):
            raise ValueError(f"copies=True, attention={attention!r}: expected additive, and one vocabulary, not "
                             f"{source_vocab_size} and {target_vocab_size} tokens")  # fmt: skip
        if shared and source_vocab_size != target_vocab_size:
            raise ValueError(f"shared=True: the vocabularies have {source_vocab_size} and {target_vocab_size} tokens")
        if strangers and not copies:
            raise ValueError(f"strangers={strangers}: expected copies=True, nothing else writes them")
        self.known = source_vocab_size - strangers
        self.encoder = Encoder(self.known, embed_dim, hidden_dim, num_layers, dropout)
        self.embedding = self.encoder.embedding if shared else nn.Embedding(target_vocab_size - strangers, embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.attention: AdditiveAttention | MovingWindow = (
            AdditiveAttention(hidden_dim, hidden_dim, hidden_dim) if attention == "additive" else MovingWindow(hidden_dim)
        )
        self.rnn = nn.GRUCell(embed_dim + hidden_dim, hidden_dim)
        self.readout = nn.Linear(2 * hidden_dim + embed_dim, embed_dim)
        self.head = nn.Linear(embed_dim, target_vocab_size - strangers)
        self.copying = Copying(2 * hidden_dim + embed_dim, strangers) if copies else None

    def forward(
        self,
        source_tokens: Int[Tensor, "batch read"],
        source_mask: Bool[Tensor, "batch read"],
        target_tokens: Int[Tensor, "batch time"],
    ) -> Float[Tensor, "batch time vocab"]:
        return self.decode(target_tokens, self.encode(source_tokens, source_mask))

    def encode(self, source_tokens: Int[Tensor, "batch read"], source_mask: Bool[Tensor, "batch read"]) -> Memory:
        """What all steps read, and what does not change with them."""
        outputs, (state,) = self.encoder(self.familiar(source_tokens), source_mask)
        projected = self.attention.key(outputs) if isinstance(self.attention, AdditiveAttention) else outputs
        return Memory(source_tokens, outputs, projected, source_mask, state[:, -1])

    def decode(
        self, target_tokens: Int[Tensor, "rows time"], memory: Memory, cache: States | None = None
    ) -> Float[Tensor, "rows time vocab"]:
        x, looked = self._steps(target_tokens, memory, cache)
        logits = self.head(self.dropout(torch.tanh(self.readout(x))))
        if self.copying is None:
            return logits
        return self.copying(x, logits, looked, memory.tokens.repeat_interleave(len(x) // len(memory.tokens), 0))

    def familiar(self, tokens: Tensor) -> Tensor:
        """The tokens as they are read: a stranger is an unknown word."""
        return tokens.masked_fill(tokens >= self.known, UNK) if self.copying is not None else tokens

    def new_cache(self, memory: Memory, copies: int, time: int) -> States:
        """s_0 for each target: the cache is the state, and where the windows are, if there are any."""
        state = memory.state.repeat_interleave(copies, 0)
        if isinstance(self.attention, AdditiveAttention):
            return States([state])
        return States([state, state.new_zeros(len(state), self.attention.windows)])

    def alignment(
        self,
        source_tokens: Int[Tensor, "batch read"],
        source_mask: Bool[Tensor, "batch read"],
        target_tokens: Int[Tensor, "batch time"],
    ) -> Float[Tensor, "batch time read"]:
        """The a_ts: where the decoder looks in the source before it writes the word that follows each of the target."""
        return self._steps(target_tokens, self.encode(source_tokens, source_mask))[1]

    def _steps(self, target_tokens: Tensor, memory: Memory, cache: States | None = None) -> tuple[Tensor, Tensor]:
        """[s_t, c_t, embedding(y_{t-1})] and a_ts of every step."""
        (rows, time), batch = target_tokens.shape, len(memory.state)
        held = self.new_cache(memory, rows // batch, time) if cache is None else cache
        (state, *moved), steps, looked = held, [], []
        for word in self.dropout(self.embedding(self.familiar(target_tokens))).unbind(1):
            # the targets of a source ask side by side, as if they were its times: the memory is not copied for them
            query = state.view(batch, -1, state.shape[-1])
            if isinstance(self.attention, AdditiveAttention):
                weights = self.attention.weights(query, memory.projected, memory.mask)
            else:
                weights, kappa = self.attention(query, moved[0].view(batch, len(moved[0]) // batch, -1), memory.mask)
                moved = [kappa.flatten(0, 1)]
            context = (weights @ memory.outputs).flatten(0, 1)
            state = self.rnn(torch.cat([word, context], 1), state)
            steps.append(torch.cat([state, context, word], 1))
            looked.append(weights.flatten(0, 1))
        held[:] = [state, *moved]
        return torch.stack(steps, 1), torch.stack(looked, 1)

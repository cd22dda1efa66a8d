"""A pointer network: what it writes are places of what it read, however many there are.

e_1 ... e_n = lstm(points), e_0 the end;   d_t = lstm(point that was pointed at last, d_{t-1});
p(place s at step t) = softmax_s(v . tanh(W_1 e_s + W_2 d_t)): an attention that is not a means but the answer.
Vinyals, Fortunato, Jaitly 2015, arXiv:1506.03134.   LEE: Pointer Network
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class PointerNetwork(nn.Module):
    """points: [batch read in_features], mask: [batch read], target: [batch time] -> logits [batch time 1+read]

    target: what was pointed at before, which is read for the next: 1 + place; 0 or less: nothing (before the first).
    Place 0 is the end; padding has -inf.
    """

    def __init__(self, in_features: int = 2, hidden_dim: int = 128):
        super().__init__()
        self.encoder = nn.LSTM(in_features, hidden_dim, batch_first=True)
        self.decoder = nn.LSTM(in_features, hidden_dim, batch_first=True)
        self.start, self.end = nn.Parameter(torch.zeros(in_features)), nn.Parameter(torch.zeros(hidden_dim))
        self.key, self.query = (nn.Linear(hidden_dim, hidden_dim, bias=False) for _ in range(2))
        self.score = nn.Linear(hidden_dim, 1, bias=False)
        nn.init.normal_(self.start)
        nn.init.normal_(self.end)

    def forward(
        self,
        points: Float[Tensor, "batch read feature"],
        mask: Bool[Tensor, "batch read"],
        target: Int[Tensor, "batch time"],
    ) -> Float[Tensor, "batch time place"]:
        memory, state = self.encode(points, mask)
        return self.point(target, points, mask, memory, state)[0]

    def encode(self, points: Tensor, mask: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The keys of all places [batch 1+read hidden], and the state from which the decoder starts."""
        packed = pack_padded_sequence(points, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        outputs, state = self.encoder(packed)
        seen, _ = pad_packed_sequence(outputs, batch_first=True, total_length=points.shape[1])
        return self.key(torch.cat([self.end.expand(len(seen), 1, -1).to(seen), seen], 1)), state

    def point(
        self, target: Tensor, points: Tensor, mask: Tensor, memory: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Where to point after each of these, and the state then."""
        before = points.take_along_dim((target - 1).clamp(min=0)[..., None], 1)
        before = torch.where((target > 0)[..., None], before, self.start)
        steps, state = self.decoder(before, state)
        logits = self.score((memory[:, None] + self.query(steps)[:, :, None]).tanh()).squeeze(-1)
        real = torch.cat([torch.ones_like(mask[:, :1]), mask], 1)
        return logits.masked_fill(~real[:, None], -torch.inf), state

    @torch.no_grad()
    def write(self, points: Tensor, mask: Tensor) -> Int[Tensor, "batch time"]:
        """The places that it points at, each time the most probable, up to the end; then 0."""
        memory, state = self.encode(points, mask)
        place = torch.zeros(len(points), 1, dtype=torch.long, device=points.device)
        places, ended = [], torch.zeros_like(place, dtype=torch.bool)
        for _ in range(points.shape[1] + 1):
            logits, state = self.point(place, points, mask, memory, state)
            place = logits.argmax(-1).masked_fill(ended, 0)
            ended |= place == 0
            places.append(place)
        return torch.cat(places, 1)

"""A reading head: what it has found so far says where in the memory it reads next, until it can answer.

Memory: a vector of each sentence, m_i = sum_j p_j e(word j of sentence i) + age_i.   Question: q_0 = sum_j p_j e(word j).
Step:   a = softmax_i(W q_{t-1} . m_i): where the head is;   r = sum_i a_i m_i: what it reads;   q_t = gru(r, q_{t-1}).
Answer: logits = head(q_T).   Sukhbaatar, Szlam, Weston, Fergus 2015, arXiv:1503.08895; a controller that decides:
Kumar et al. 2015, arXiv:1506.07285.   LEE: Attention-based Model
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class ReadingHead(nn.Module):
    """tokens [batch sentence word], question [batch word], 0: padding -> logits [batch vocab], heads [batch step sentence]

    hops: how often it reads before it answers.   longest: sentences of a story at most; their age is counted from the last.
    words: of a sentence at most; p_j is a vector for each place, so that it matters who gives and who takes.
    An empty sentence is never read.
    """

    def __init__(self, vocab_size: int, hidden_dim: int = 64, hops: int = 3, longest: int = 32, words: int = 5):
        super().__init__()
        self.hops = hops
        self.embedding = nn.Embedding(vocab_size, hidden_dim, padding_idx=0)
        self.place = nn.Parameter(1 + 0.5 * torch.randn(words, hidden_dim))
        self.age = nn.Embedding(longest, hidden_dim)  # what was said last may be what still holds
        self.query = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.controller = nn.GRUCell(hidden_dim, hidden_dim)
        self.head = nn.Linear(hidden_dim, vocab_size)

    def read(self, tokens: Int[Tensor, "*any word"]) -> Float[Tensor, "*any hidden"]:
        """A sentence as the sum of its words."""
        return (self.embedding(tokens) * self.place[: tokens.shape[-1]]).sum(-2)

    def forward(
        self, tokens: Int[Tensor, "batch sentence word"], question: Int[Tensor, "batch word"]
    ) -> tuple[Float[Tensor, "batch vocab"], Float[Tensor, "batch step sentence"]]:
        real: Bool[Tensor, "batch sentence"] = tokens[..., 0] > 0
        age = (real.sum(1, keepdim=True) - real.cumsum(1)).clamp(min=0)
        memory = self.read(tokens) + self.age(age)
        state, heads = self.read(question), []
        for _ in range(self.hops):
            score = (memory @ self.query(state)[..., None]).squeeze(2)
            heads.append(score.masked_fill(~real, -torch.inf).softmax(1))
            state = self.controller((heads[-1][:, None] @ memory).squeeze(1), state)
        return self.head(state), torch.stack(heads, 1)

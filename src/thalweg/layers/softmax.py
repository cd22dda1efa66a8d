"""Probabilities of many words without a product for each."""

import heapq
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding, logsigmoid


def huffman(counts: Sequence[int]) -> tuple[list[list[int]], list[list[int]]]:
    """The binary tree whose leaves are reached in the fewest turns on average, the frequent ones soonest.

    Of each leaf: the inner nodes on the way from the root, which is 0, and the turn at each, 1 or -1.
    The two rarest are joined, again and again (Huffman 1952). ValueError for fewer than two counts, or for one below zero.
    """
    if len(counts) < 2 or min(counts) < 0:
        raise ValueError(f"counts: {len(counts)} of them, expected two at least, none below zero")
    root, parent = 2 * len(counts) - 2, {}
    waiting = [(count, leaf) for leaf, count in enumerate(counts)]
    heapq.heapify(waiting)
    for node in range(len(counts), root + 1):
        (one, left), (other, right) = heapq.heappop(waiting), heapq.heappop(waiting)
        parent[left], parent[right] = (node, 1), (node, -1)
        heapq.heappush(waiting, (one + other, node))
    ways: dict[int, tuple[list[int], list[int]]] = {root: ([], [])}
    for child in range(root - 1, -1, -1):  # a node is made after its children
        node, turn = parent[child]
        path, turns = ways[node]
        ways[child] = [*path, root - node], [*turns, turn]
    return [ways[leaf][0] for leaf in range(len(counts))], [ways[leaf][1] for leaf in range(len(counts))]


class FullSoftmax(nn.Linear):
    """The probability of a word among all, a product for each.   log p(w | x) = x . v_w + b_w - log sum_u exp(x . v_u + b_u)

    x: [*any dim], target: word indices [*any].
    """

    def loss(
        self, x: Float[Tensor, "*any dim"], target: Int[Tensor, "*any"], ignore_index: int = -100
    ) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
        """-log p summed over the targets that are not ignore_index, and their number."""
        lost = cross_entropy(
            self(x).flatten(0, -2).float(), target.flatten().long(), ignore_index=ignore_index, reduction="sum"
        )
        return lost, (target != ignore_index).sum()

    def log_prob(self, x: Float[Tensor, "*any dim"]) -> Float[Tensor, "*any word"]:
        """Log-probabilities of all words."""
        return self(x).float().log_softmax(-1)


class NegativeSampling(nn.Module):
    """A word is told from `negatives` words drawn at random, instead of from all: k + 1 products instead of V.

    loss = - log sigmoid(s_w) - sum_{i=1}^k log sigmoid(-s_{n_i}),
    s_u = x . v_u,   n_i drawn with p(u) = c_u^power / sum_t c_t^power
    counts: c, how often each word occurs. A word that is drawn and is the target does not count.
    contrastive: s_u = x . v_u + b_u - log(k p(u)), noise-contrastive estimation, whose x . v_u + b_u becomes log p(u | x)
    without a sum over all words; here every drawn word counts.
    x: [*any dim], target: word indices [*any].   ValueError for fewer than two counts, one below zero, or negatives below 1.
    Mikolov, Sutskever, Chen, Corrado, Dean 2013, arXiv:1310.4546; Gutmann, Hyvärinen 2010; Mnih, Teh 2012, arXiv:1206.6426.
    """

    URN = 2**20  # numbers in it: a word in proportion to its p, so that a draw is one look

    noise: Tensor

    def __init__(
        self, in_features: int, counts: Sequence[int], negatives: int = 5, power: float = 0.75, contrastive: bool = False
    ):
        super().__init__()
        if len(counts) < 2 or min(counts) < 0 or negatives < 1:
            raise ValueError(f"counts: {len(counts)} of them, negatives={negatives}: expected two at least, none below zero, "
                             "and at least 1")  # fmt: skip
        self.negatives, self.contrastive = negatives, contrastive
        self.words = nn.Embedding(len(counts), in_features)
        nn.init.zeros_(self.words.weight)
        share = torch.tensor(counts, dtype=torch.float64) ** power
        self.register_buffer("noise", share / share.sum())
        self.bias = nn.Parameter(self.noise.log().float()) if contrastive else None
        self._urn = torch.empty(0, dtype=torch.int32)

    @property
    def urn(self) -> Int[Tensor, " number"]:
        """Words to draw from, each in proportion to its p."""
        if self._urn.device != self.noise.device or not len(self._urn):
            place = (torch.arange(self.URN, dtype=torch.float64) + 0.5) / self.URN
            words = torch.searchsorted(self.noise.cpu().cumsum(0), place).clamp(max=len(self.noise) - 1)
            self._urn = words.int().to(self.noise.device)
        return self._urn

    def forward(self, x: Float[Tensor, "*any dim"], words: Int[Tensor, "*any word"]) -> Float[Tensor, "*any word"]:
        """x . v_u + b_u of some words each."""
        score = (self.words(words) @ x[..., None])[..., 0]
        return score if self.bias is None else score + self.bias[words]

    def loss(self, x: Float[Tensor, "*any dim"], target: Int[Tensor, "*any"]) -> tuple[Float[Tensor, ""], int]:
        """The loss, summed over the targets, and their number."""
        drawn = torch.randint(self.URN, (*target.shape, self.negatives), device=target.device)
        return self.against(x, target, self.urn[drawn]), target.numel()

    def against(
        self, x: Float[Tensor, "*any dim"], target: Int[Tensor, "*any"], drawn: Int[Tensor, "*any negative"]
    ) -> Float[Tensor, ""]:
        """The loss if these were drawn."""
        words = torch.cat([target[..., None], drawn], -1)
        score = self(x, words).float()
        if self.contrastive:
            score = score - (self.negatives * self.noise[words]).log().float()
        false = logsigmoid(-score[..., 1:])
        if not self.contrastive:
            false = false * (drawn != target[..., None])
        return -logsigmoid(score[..., 0]).sum() - false.sum()


def sampled_softmax(
    x: Float[Tensor, "place dim"],
    weight: Float[Tensor, "word dim"],
    target: Int[Tensor, " place"],
    drawn: Int[Tensor, " draw"],
    chance: Float[Tensor, " word"],
) -> Float[Tensor, " place"]:
    """-log p of each target, estimated by words that are drawn once for all places, instead of by all words.

    loss = - s_w + log(exp s_w + sum of exp s_u over the drawn u that are not w),   s_u = x . v_u - log p(u)
    weight: v.   drawn: different words.   chance: p(u), by which each word is drawn or not, whatever else is drawn.
    So p(w | the drawn and w) is learned, which is right if x . v_u is log p(u | x) up to a constant; all words drawn by a
    chance of 1 are the loss itself.   Jean, Cho, Memisevic, Bengio 2014, arXiv:1412.2007.
    """
    seldom = chance.log()
    own = (x * embedding(target, weight)).sum(-1).float() - seldom[target]
    others = (x @ embedding(drawn, weight).T).float() - seldom[drawn]
    others = others.masked_fill(drawn == target[:, None], -torch.inf)
    return torch.logaddexp(own, others.logsumexp(-1)) - own


class HierarchicalSoftmax(nn.Module):
    """A word is a leaf of a binary tree, its probability that of all the turns on the way: log V products instead of V.

    log p(w | x) = sum_j log sigmoid(turn_j(w) x . v_{node_j(w)}) over the inner nodes on the way to w, turn = 1 or -1.
    The tree is Huffman's of `counts`, how often each word occurs; at the start every turn is as likely.
    sparse: as in nn.Embedding, gradients hold the nodes alone that were met, so that a step too costs log V.
    x: [*any dim], target: word indices [*any].   ValueError as in `huffman`, IndexError for a target that is no word.
    Morin, Bengio 2005, AISTATS; Mikolov, Sutskever, Chen, Corrado, Dean 2013, arXiv:1310.4546.
    """

    path: Tensor
    turn: Tensor

    def __init__(self, in_features: int, counts: Sequence[int], sparse: bool = False):
        super().__init__()
        paths, turns = huffman(counts)
        depth = max(map(len, paths))
        self.nodes = nn.Embedding(len(counts) - 1, in_features, sparse=sparse)
        nn.init.zeros_(self.nodes.weight)
        # beyond the leaf the turn is 0, and the node the root, which is on every way
        self.register_buffer("path", torch.tensor([path + [0] * (depth - len(path)) for path in paths], dtype=torch.int32))
        self.register_buffer("turn", torch.tensor([turn + [0] * (depth - len(turn)) for turn in turns], dtype=torch.int8))

    def forward(self, x: Float[Tensor, "*any dim"], target: Int[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Log-probabilities of the targets."""
        path, turn = embedding(target, self.path), embedding(target, self.turn)
        score = torch.linalg.vecdot(self.nodes(path), x[..., None, :])
        return (logsigmoid(turn * score) * (turn != 0)).sum(-1)

    def loss(
        self, x: Float[Tensor, "*any dim"], target: Int[Tensor, "*any"], ignore_index: int = -100
    ) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
        """-log p summed over the targets that are not ignore_index, and their number."""
        real = target != ignore_index
        return -self(x, target.where(real, 0)).where(real, 0).sum(), real.sum()

    def log_prob(self, x: Float[Tensor, "*any dim"]) -> Float[Tensor, "*any word"]:
        """Log-probabilities of all words."""
        score, total = x @ self.nodes.weight.T, x.new_zeros(())
        for node, turn in zip(self.path.T, self.turn.T, strict=True):  # a level at a time, since all take as much more memory
            total = total + logsigmoid(turn * score[..., node]) * (turn != 0)
        return total

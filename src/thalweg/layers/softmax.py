"""Probabilities of many words without a product for each."""

import heapq
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding, logsigmoid


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

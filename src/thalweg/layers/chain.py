"""Labels of a sequence that depend on each other: a score of each at its place, and one of each pair of neighbours.

score(y) = begin[y_1] + sum_t emission_t[y_t] + sum_t transition[y_{t-1}, y_t] + end[y_T]

Of the many sequences of labels three things are known exactly, in time T labels^2: the best (Viterbi 1967), the few best, and
the sum over all of exp score (forward algorithm), of which p(y) = exp score(y) / sum is a conditional random field.
Lafferty, McCallum, Pereira 2001.   LEE: Deep & Structured
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import one_hot


class LinearChain(nn.Module):
    """Scores of first labels, of last ones, and of pairs of neighbours, all 0 at the start: then labels do not care.

    emission: [batch time label], mask: [batch time], True where a place is real; padding stands at the end.
    """

    def __init__(self, num_labels: int):
        super().__init__()
        self.begin, self.end = nn.Parameter(torch.zeros(num_labels)), nn.Parameter(torch.zeros(num_labels))
        self.transition = nn.Parameter(torch.zeros(num_labels, num_labels))  # [before after]

    def score(
        self, emission: Float[Tensor, "batch time label"], label: Int[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, " batch"]:
        """The score of one sequence of labels for each example."""
        label = label * mask
        own = emission.to(self.begin).take_along_dim(label[..., None], -1).squeeze(-1) * mask
        pairs = self.transition[label[:, :-1], label[:, 1:]] * mask[:, 1:]
        last = label.take_along_dim(mask.sum(1, keepdim=True) - 1, 1).squeeze(1)
        return self.begin[label[:, 0]] + own.sum(1) + pairs.sum(1) + self.end[last]

    def log_partition(
        self, emission: Float[Tensor, "batch time label"], mask: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, " batch"]:
        """log sum_y exp score(y) over all sequences of labels: the forward algorithm."""
        first, *others = emission.to(self.begin).unbind(1)
        total = self.begin + first
        for now, real in zip(others, mask[:, 1:, None].unbind(1), strict=True):
            after = (total[:, :, None] + self.transition).logsumexp(1) + now
            total = torch.where(real, after, total)
        return (total + self.end).logsumexp(1)

    def cost(
        self,
        emission: Float[Tensor, "batch time label"],
        label: Int[Tensor, "batch time"],
        mask: Bool[Tensor, "batch time"],
        objective: str,
    ) -> Float[Tensor, " batch"]:
        """How far the labels y of each example are from being the best, by one of three losses.

        crf           log sum_y' exp score(y') - score(y): a conditional random field
        perceptron    max_y' score(y') - score(y): the structured perceptron, Collins 2002
        svm           max_y' (score(y') + wrong labels of y') - score(y): the structured SVM, Tsochantaridis et al. 2005
        """
        emission = emission.to(self.begin)
        true = self.score(emission, label, mask)
        if objective == "crf":
            return self.log_partition(emission, mask) - true
        rival = emission
        if objective == "svm":
            rival = emission + (1 - one_hot(label, emission.shape[-1])) * mask[..., None]
        worst, _ = self.best(rival, mask)
        return (self.score(rival, worst[:, 0], mask) - true).clamp(min=0)  # rounding may make it less than the truth's

    def marginals(
        self, emission: Float[Tensor, "batch time label"], mask: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time label"]:
        """p(y_t = label), given the whole sequence: the slope of log_partition, whose backward pass is forward-backward."""
        with torch.enable_grad():
            emission = emission.detach().to(self.begin).requires_grad_()
            return torch.autograd.grad(self.log_partition(emission, mask).sum(), emission)[0]

    @torch.no_grad()
    def best(
        self, emission: Float[Tensor, "batch time label"], mask: Bool[Tensor, "batch time"], count: int = 1
    ) -> tuple[Int[Tensor, "batch count time"], Float[Tensor, "batch count"]]:
        """The `count` sequences of labels of highest score, best first, 0 at padding, and their scores: Viterbi's algorithm.

        The score is -inf where there are no more.
        """
        emission = emission.to(self.begin)
        labels = emission.shape[-1]
        score = emission.new_full((len(emission), labels, count), -torch.inf)  # of the best that end in each label
        score[..., 0] = self.begin + emission[:, 0]
        stay = torch.arange(labels * count, device=emission.device).view(labels, count)
        before = []
        for now, real in zip(emission[:, 1:].unbind(1), mask[:, 1:, None, None].unbind(1), strict=True):
            ways = (score[..., None] + self.transition[:, None]).flatten(1, 2)  # [batch label*count label]
            top, place = ways.topk(count, 1)
            score = torch.where(real, top.mT + now[..., None], score)
            before.append(torch.where(real, place.mT, stay))
        score, place = (score + self.end[:, None]).flatten(1).topk(count, 1)
        found = [place // count]
        for came in reversed(before):
            place = came.flatten(1).gather(1, place)
            found.append(place // count)
        return torch.stack(found[::-1], -1) * mask[:, None], score

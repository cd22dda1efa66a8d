"""Metrics that torchmetrics has not."""

import string
from collections import Counter
from collections.abc import Iterable, Sequence
from math import exp, log
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, normalize, one_hot
from torchmetrics import MeanMetric, Metric
from torchmetrics.functional.classification import binary_auroc, binary_average_precision
from torchmetrics.text import ROUGEScore, SacreBLEUScore
from torchmetrics.utilities import dim_zero_cat

from thalweg.vocabulary import scaled


class MeanLoss(MeanMetric):
    """The mean of the terms of a loss, of which less is better."""

    higher_is_better = False  # type: ignore[assignment]


class Share(MeanMetric):
    """The mean of zeros and ones, or of shares, of which more is better."""

    higher_is_better = True  # type: ignore[assignment]


class Perplexity(MeanLoss):
    """exp of the mean loss in nats: among how many equally probable tokens one would be as unsure.   LBDL 3.2, D2L 8.4"""

    def compute(self) -> Tensor:
        return super().compute().exp()


class CachedPerplexity(Perplexity):
    """Perplexity with a continuous cache: words that were read lately come again, most of all where as much was known as now.

    p(x_t) = (1 - share) p_model(x_t) + share sum_{i: x_i = x_t} exp(theta h_i . h_t) / sum_i exp(theta h_i . h_t), over the
    last `size` words x_i, h_i the state by which the model foretold x_i. Nothing is learned for it.
    update: log p_model [n], states h [n state] and words x [n], in the order of the text; reset forgets what was read.
    Grave, Joulin, Usunier 2016, arXiv:1612.04426.
    """

    def __init__(self, size: int = 2000, theta: float = 0.05, share: float = 0.2, **arguments: Any):
        super().__init__(**arguments)
        if size < 1 or not 0 <= share <= 1:
            raise ValueError(f"size={size}, share={share}: expected at least 1, and 0 to 1")
        self.size, self.theta, self.share = size, theta, share
        self.read: tuple[Tensor, Tensor] | None = None

    def update(self, log_probability: Tensor, state: Tensor, token: Tensor) -> None:  # type: ignore[override]
        states, tokens, held = state.float(), token, 0
        if self.read is not None:
            held = len(self.read[1])
            states, tokens = torch.cat([self.read[0], states]), torch.cat([self.read[1], token])
        place = torch.arange(len(tokens), device=token.device)
        now = place[held:, None]
        seen = (place < now) & (place >= now - self.size)
        alike = (self.theta * states[held:] @ states.T).masked_fill(~seen, -torch.inf)
        again = (alike.softmax(1) * (tokens == token[:, None])).sum(1)
        mixed = (1 - self.share) * log_probability.exp() + self.share * again
        super().update(-mixed.log().where(seen.any(1), log_probability))
        self.read = states[-self.size :], tokens[-self.size :]

    def reset(self) -> None:
        super().reset()
        self.read = None


class BitsPerByte(Metric):
    """What a text takes, by a model's surprise: sum_t - log2 p(x_t) / bytes; so texts in any tokens are measured alike.

    surprise: - log p of each token, in nats.   size: bytes of each, as many.   2 to the power of it is the perplexity a byte.
    """

    higher_is_better = False
    full_state_update = False
    nats: Tensor
    bytes: Tensor

    def __init__(self, **arguments: Any):
        super().__init__(**arguments)
        for name in ("nats", "bytes"):
            self.add_state(name, torch.zeros(()), dist_reduce_fx="sum")

    def update(self, surprise: Tensor, size: Tensor) -> None:
        self.nats += surprise.sum()
        self.bytes += size.sum()

    def compute(self) -> Tensor:
        return self.nats / (log(2) * self.bytes)


class PhraseBLEU(MeanMetric):
    """How many of the words, pairs ... of `longest` words of a translation stand in the reference; the mean over sentences.

    exp(min(0, 1 - |reference| / |translation|)) prod_n p_n^(1 / 2^n), n = 1 ... longest, p_n the share of the n-grams of the
    translation that are in the reference, each counted there once; those too long for the translation do not count.
    For phrases of a few words, where BLEU itself, of torchmetrics (BLEUScore), is 0 without four right in a row.   D2L 9.7
    """

    def __init__(self, longest: int = 2, **arguments: Any):
        super().__init__(**arguments)
        self.longest = longest

    def update(self, translations: Sequence[str], references: Sequence[str]) -> None:  # type: ignore[override]
        for translation, reference in zip(translations, references, strict=True):
            super().update(self.score(translation.split(), reference.split()))

    def score(self, words: Sequence[str], reference: Sequence[str]) -> float:
        if not words:
            return 0.0
        score = exp(min(0.0, 1 - len(reference) / len(words)))
        for n in range(1, min(self.longest, len(words)) + 1):
            found, known = (Counter(zip(*(side[k:] for k in range(n)), strict=False)) for side in (words, reference))
            score *= ((found & known).total() / found.total()) ** 0.5**n
        return score


def gleu(words: Sequence[str], reference: Sequence[str], longest: int = 4) -> float:
    """How much of a sentence is right and how much of the reference is said: the lesser of precision and recall, counted over
    all runs of one to `longest` words together, each in the reference once; 0 to 1. It goes with BLEU, and is of one sentence.

    Wu et al. 2016, "Google's neural machine translation system", arXiv:1609.08144, 4.
    """
    said, right = (Counter(tuple(side[place : place + n]) for n in range(1, longest + 1) for place in range(len(side) - n + 1))
                   for side in (words, reference))  # fmt: skip
    return (said & right).total() / max(1, said.total(), right.total())


class SacreBLEU(SacreBLEUScore):
    """BLEU by which translations are compared, in percent: of texts as they are, cut into words in one agreed way.

    100 exp(min(0, 1 - |references| / |translations|)) (p_1 p_2 p_3 p_4)^(1/4), p_n the share of all n-grams of words that
    are in their reference, each counted there once; lengths and shares over the whole corpus.
    signature: as the program sacreBLEU says how it counted.   Papineni et al. 2002; Post 2018, arXiv:1804.08771
    """

    signature = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:none"
    plot_upper_bound = 100.0

    def compute(self) -> Tensor:
        return 100 * super().compute()


class ROUGE(ROUGEScore):
    """How much a summary shares with the one a person wrote: F1 of words (rouge1), of pairs of words (rouge2), or of the
    longest sequence of words that both have in the same order (rougeL); the mean over texts, 0 to 1.

    F1 = 2 shared / (written + right), each counted in words or pairs; words are runs of letters and digits in lower case.
    ValueError for another kind.   Lin 2004
    """

    kinds = ("rouge1", "rouge2", "rougeL")

    def __init__(self, kind: str = "rougeL", **arguments: Any):
        super().__init__(rouge_keys=kind, **arguments)
        self.kind = kind

    def compute(self) -> Tensor:  # type: ignore[override]
        return super().compute()[f"{self.kind}_fmeasure"]


class ErrorByPlace(Metric):
    """The share of wrong tokens at every place of a sequence: whether errors grow with length.   -> [time]

    wrong, mask: [batch time], True where a token is wrong, and where it counts. Places beyond `longest` do not.
    """

    higher_is_better = None
    full_state_update = False
    wrong: Tensor
    count: Tensor

    def __init__(self, longest: int = 256, **arguments: Any):
        super().__init__(**arguments)
        for name in ("wrong", "count"):
            self.add_state(name, torch.zeros(longest), dist_reduce_fx="sum")

    def update(self, wrong: Tensor, mask: Tensor) -> None:
        time = min(wrong.shape[1], len(self.count))
        self.wrong[:time] += (wrong & mask)[:, :time].sum(0)
        self.count[:time] += mask[:, :time].sum(0)

    def compute(self) -> Tensor:
        seen = self.count > 0
        return self.wrong[seen] / self.count[seen]


class Skill(Metric):
    """By how much the squared error is less than that of a simple answer: 1 is perfect, 0 no better, below 0 worse.

    1 - sum (said - true)^2 / sum (simple - true)^2, over all numbers.
    """

    higher_is_better = True
    full_state_update = False
    error: Tensor
    simple_error: Tensor

    def __init__(self, **arguments: Any):
        super().__init__(**arguments)
        for name in ("error", "simple_error"):
            self.add_state(name, torch.zeros(()), dist_reduce_fx="sum")

    def update(self, said: Tensor, true: Tensor, simple: Tensor) -> None:
        self.error += (said - true).square().sum()
        self.simple_error += (simple - true).square().sum()

    def compute(self) -> Tensor:
        return 1 - self.error / self.simple_error


class LabelF1(Metric):
    """How well any number of labels an example are given: F1 of each label, the mean over the labels that occur.

    F1 = 2 right / (given + true), right: the examples that were given the label and have it.
    said, label: [batch class] of zeros and ones.   van Rijsbergen 1979; the mean is called macro-averaged.
    Elsewhere: torchmetrics and scikit-learn count a label that never occurs as an F1 of 0.
    """

    higher_is_better = True
    full_state_update = False
    counts: Tensor
    total: Tensor

    def __init__(self, classes: int, **arguments: Any):
        super().__init__(**arguments)
        self.add_state("counts", torch.zeros(3, classes, dtype=torch.long), dist_reduce_fx="sum")  # right, given, true
        self.add_state("total", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, said: Tensor, label: Tensor) -> None:
        self.counts += torch.stack([(said * label).sum(0), said.sum(0), label.sum(0)])
        self.total += len(label)

    def table(self) -> Tensor:
        """F1 of every label, and of giving it to every example, 2 true / (examples + true).   [class 2]"""
        right, given, true = self.counts.double()
        return 2 * torch.stack([right / (given + true).clamp(min=1), true / (self.total + true).clamp(min=1)], 1)

    def compute(self) -> Tensor:
        return self.table()[self.counts[2] > 0, 0].mean().float()


class LabelsAboveFrequency(LabelF1):
    """The share of the labels that occur whose F1 is above that of giving them always, the best that needs no looking."""

    def compute(self) -> Tensor:
        f1, always = self.table()[self.counts[2] > 0].T
        return (f1 > always).float().mean()


class LabelPrecision(Metric):
    """Mean average precision: how well each label ranks the examples, whatever probability is enough to give it.

    AP = sum_k (r_k - r_{k-1}) p_k, p_k and r_k the precision and recall of the examples down to the k-th probability, equal
    ones together; the mean over the labels that occur. Ranked at random it is about their frequency.
    probability, label: [batch class].
    """

    higher_is_better = True
    full_state_update = False
    probability: list[Tensor]
    label: list[Tensor]

    def __init__(self, **arguments: Any):
        super().__init__(**arguments)
        self.add_state("probability", [], dist_reduce_fx="cat")
        self.add_state("label", [], dist_reduce_fx="cat")

    def update(self, probability: Tensor, label: Tensor) -> None:
        self.probability.append(probability)
        self.label.append(label)

    def compute(self) -> Tensor:
        probability, label = dim_zero_cat(self.probability), dim_zero_cat(self.label)
        occurs = label.any(0)
        each = [binary_average_precision(p, y) for p, y in zip(probability.T[occurs], label.T[occurs], strict=True)]
        return torch.stack(each).mean() if each else probability.new_tensor(torch.nan)


class Worst(Metric):
    """Keeps the rows of the largest loss, of tensors of these names.

    What a model gets most wrong is where the data are wrong, or where it has something to learn.
    """

    higher_is_better = None
    full_state_update = False

    def __init__(self, *names: str, kept: int = 24, **arguments: Any):
        super().__init__(**arguments)
        self.kept = kept
        for name in ("loss", *names):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, loss: Tensor, **tensors: Tensor) -> None:
        new = {"loss": loss, **tensors}
        rows = {name: torch.cat([*held, new[name]]) for name, held in self.metric_state.items()}
        for name, value in self._worst(rows).items():
            setattr(self, name, [value])

    def compute(self) -> dict[str, Tensor]:
        return self._worst({name: dim_zero_cat(held) for name, held in self.metric_state.items()})

    def _worst(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        worst = rows["loss"].topk(min(self.kept, len(rows["loss"]))).indices
        return {name: value[worst] for name, value in rows.items()}


class MostWrong(Worst):
    """Keeps the examples of the largest loss of a classifier: input, label, prediction and its probability."""

    def __init__(self, kept: int = 24, **arguments: Any):
        super().__init__("label", "predicted", "probability", "image", kept=kept, **arguments)

    def update(self, logits: Tensor, label: Tensor, image: Tensor) -> None:  # type: ignore[override]
        logits = logits.float()
        loss = torch.nn.functional.cross_entropy(logits, label, reduction="none")
        probability, predicted = logits.softmax(-1).max(-1)
        super().update(loss, label=label, predicted=predicted, probability=probability, image=image)


class BoundaryScore(Metric):
    """How well the borders between classes are drawn: an area may be nearly all right and its outline all wrong.

    F = 2 P R / (P + R), the mean over the classes that have a border somewhere; P: the share of a class's predicted border
    that is within `tolerance` pixels of its true border, R: the share of the true that is within so many of the predicted;
    over all images. A border is of pixels of a class with another class next to them, above, below, left or right. Where
    the truth is ignore_index there is no border, nor next to it.
    predicted, true: [batch height width].   Csurka, Larlus, Perronnin 2013, with images pooled.
    """

    higher_is_better = True
    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int, tolerance: float = 2.0, ignore_index: int = 255, **arguments: Any):
        super().__init__(**arguments)
        self.num_classes, self.ignore_index = num_classes, ignore_index
        offset = torch.arange(-int(tolerance), int(tolerance) + 1)
        self.disc = (offset[:, None] ** 2 + offset**2 <= tolerance**2).float()
        # hits among the predicted, the predicted, hits among the true, the true
        self.add_state("counts", torch.zeros(4, num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, true: Tensor) -> None:
        counted = true != self.ignore_index
        alone = max_pool2d((~counted).float()[:, None], 3, 1, 1)[:, 0] == 0
        of = [_border(x.where(counted, -1)) & alone for x in (predicted, true)]
        for label in range(self.num_classes):
            found, wanted = ((border & (x == label))[:, None].float() for border, x in zip(of, (predicted, true), strict=True))
            near = [conv2d(x, self.disc.to(x)[None, None], padding="same") > 0 for x in (wanted, found)]
            self.counts[:, label] += torch.stack(
                [(found * near[0]).sum(), found.sum(), (wanted * near[1]).sum(), wanted.sum()]
            ).long()

    def compute(self) -> Tensor:
        hits, predicted, found, true = self.counts.double()
        precision, recall = hits / predicted.clamp(min=1), found / true.clamp(min=1)
        score = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
        return score[true + predicted > 0].mean().float()


def _border(label: Tensor) -> Tensor:
    """Pixels with another number next to them.   [batch height width]"""
    border = torch.zeros_like(label, dtype=torch.bool)
    for axis in (1, 2):
        differs = label.diff(dim=axis) != 0
        border.narrow(axis, 0, differs.shape[axis]).logical_or_(differs)
        border.narrow(axis, 1, differs.shape[axis]).logical_or_(differs)
    return border


class _Features(Metric):
    """Keeps features and labels; a subclass says how well classes are told apart by them.

    Examples in even places are known, those in odd places are asked for: what is measured was not learned from.
    """

    higher_is_better = True
    full_state_update = False
    features: list[Tensor]
    label: list[Tensor]

    def __init__(self, **arguments: Any):
        super().__init__(**arguments)
        self.add_state("features", [], dist_reduce_fx="cat")
        self.add_state("label", [], dist_reduce_fx="cat")

    def update(self, features: Tensor, label: Tensor) -> None:
        self.features.append(features)
        self.label.append(label)

    def seen(self) -> tuple[Tensor, Tensor]:
        """All features [example feature] and labels [example]."""
        return dim_zero_cat(self.features), dim_zero_cat(self.label)


class LinearProbe(_Features):
    """Accuracy of a linear classifier by ridge regression on standardised features, ahead of which nothing is tuned.

    W = (X'X + ridge n I)^-1 X'Y, Y one-hot, n the number of known examples.   Hoerl, Kennard 1970.   D2L 3.1
    """

    def __init__(self, ridge: float = 1e-2, **arguments: Any):
        super().__init__(**arguments)
        self.ridge = ridge

    def compute(self) -> Tensor:
        features, label = self.seen()
        deviation, mean = torch.std_mean(features[::2].double(), 0)
        x = (features.double() - mean) / deviation.clamp(min=1e-6)
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        known, y = x[::2], one_hot(label[::2], int(label.max()) + 1).double()
        gram = known.T @ known + self.ridge * len(known) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        answer = x[1::2] @ torch.linalg.solve(gram, known.T @ y)
        return (answer.argmax(1) == label[1::2]).float().mean()


class NearestNeighbours(_Features):
    """Accuracy of the most frequent class among the `neighbours` known examples of the most similar direction."""

    def __init__(self, neighbours: int = 10, **arguments: Any):
        super().__init__(**arguments)
        self.neighbours = neighbours

    def compute(self) -> Tensor:
        features, label = self.seen()
        unit = normalize(features.float(), dim=-1)
        nearest = (unit[1::2] @ unit[::2].T).topk(min(self.neighbours, len(label[::2]))).indices
        return (label[::2][nearest].mode(1).values == label[1::2]).float().mean()


class Verification(_Features):
    """How well "are these two of one class?" is answered by the similarity of the directions of their features.

    The area under the ROC curve over all pairs of a known example and one asked for: the chance that two of one class are
    more similar than two of different classes; 1/2 by guessing. Classes need not have been seen before.   LBDL 3.1
    """

    def compute(self) -> Tensor:
        features, label = self.seen()
        unit = normalize(features.float(), dim=-1)
        similarity = unit[1::2] @ unit[::2].T
        return binary_auroc((1 + similarity.flatten()) / 2, (label[1::2, None] == label[::2]).flatten().long())


MARKS = {"B": True, "I": False, "E": False, "L": False, "S": True, "U": True}  # of a word of a name: whether it begins one


def of_names(classes: Iterable[str]) -> bool:
    """Whether labels are those of names: O, B-kind and I-kind, or with E or L for the last word, S or U for a single one."""
    return any(label[:1] in MARKS and label[1:2] == "-" for label in classes)


def spans(labels: Sequence[str]) -> set[tuple[int, int, str]]:
    """Begin, end and kind of every name in labels of names, see `of_names`; an I-kind after another kind begins one too."""
    found, start, kind = set[tuple[int, int, str]](), 0, ""
    for place, label in enumerate([*labels, "O"]):
        mark, _, now = label.partition("-")
        if kind and (MARKS.get(mark, True) or now != kind):
            found.add((start, place, kind))
            kind = ""
        if now and not kind:
            start, kind = place, now
    return found


class SpanF1(Metric):
    """2 right / (found + there): names of which begin, end and kind are right, those found, and those that are there.

    classes: see `of_names`.   Tjong Kim Sang, De Meulder 2003, as conlleval counts.
    """

    higher_is_better = True
    full_state_update = False
    counts: Tensor

    def __init__(self, classes: Sequence[str], **arguments: Any):
        super().__init__(**arguments)
        self.classes = tuple(classes)
        self.add_state("counts", torch.zeros(3, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, said: Tensor, label: Tensor, mask: Tensor) -> None:
        """Labels that were given, the true ones, and where words are, each [batch time]."""
        for one, true, real in zip(said, label, mask, strict=True):
            found, there = (spans([self.classes[number] for number in row[real].tolist()]) for row in (one, true))
            self.counts += self.counts.new_tensor([len(found & there), len(found), len(there)])

    def compute(self) -> Tensor:
        return 2 * self.counts[0] / self.counts[1:].sum().clamp(min=1)


def brackets(tree: str) -> Counter[tuple[str, int, int]]:
    """The phrases of a written tree: name, first word and the word after its last. One that does not end is none."""
    found, open_, words, before = Counter[tuple[str, int, int]](), list[tuple[str, int]](), 0, ""
    for token in tree.split():
        if before == "(":
            open_.append((token, words))
        elif token == ")":
            if open_:
                name, start = open_.pop()
                found[name, start, words] += 1
        elif token != "(":
            words += 1
        before = token
    return found


class BracketF1(Metric):
    """2 right / (written + there): phrases of written trees of which name, begin and end are right, as PARSEVAL counts.

    Black et al. 1991, "A procedure for quantitatively comparing the syntactic coverage of English grammars".
    """

    higher_is_better = True
    full_state_update = False
    counts: Tensor

    def __init__(self, **arguments: Any):
        super().__init__(**arguments)
        self.add_state("counts", torch.zeros(2, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, trees: Sequence[str], references: Sequence[str]) -> None:
        for written, true in zip(map(brackets, trees), map(brackets, references), strict=True):
            self.counts += self.counts.new_tensor([(written & true).total(), written.total() + true.total()])

    def compute(self) -> Tensor:
        return 2 * self.counts[0] / self.counts[1].clamp(min=1)


class AveragePrecision(Metric):
    """Mean average precision of a detector by COCO's rules, from what its boxes, or masks, share with the true ones.

    From the most to the least probable, a detection is right if, of the true objects of its class in its image that no
    other has found, the most similar has an intersection over union of at least t. P(r): the best precision at recall r
    or more. AP = mean of P over r = 0, 0.01 .. 1; then the mean over t (0.5, 0.55 .. 0.95, unless given) and over classes.
    most: detections of a class and image that count, the most probable.   Lin et al. 2014, arXiv:1405.0312.
    Elsewhere: torchmetrics asks pycocotools, and counts crowds, areas and numbers of detections apart.
    """

    higher_is_better = True
    full_state_update = False
    score: list[Tensor]
    label: list[Tensor]
    right: list[Tensor]
    present: Tensor

    def __init__(self, classes: int, thresholds: Sequence[float] | None = None, most: int = 100, **arguments: Any):
        super().__init__(**arguments)
        self.thresholds = [0.5 + 0.05 * step for step in range(10)] if thresholds is None else list(thresholds)
        self.most = most
        for name in ("score", "label", "right"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.add_state("present", torch.zeros(classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, overlap: Tensor, score: Tensor, label: Tensor, true_label: Tensor) -> None:
        """Of one image: intersection over union [detection true], score and label of detections, label of what is there."""
        order = score.argsort(descending=True, stable=True)
        before = torch.stack([(label[order] == c).cumsum(0) for c in range(len(self.present))], 1)  # of its class, with it
        order = order[before.gather(1, label[order, None])[:, 0] <= self.most]
        score, label = score[order], label[order]
        similar = overlap[order].masked_fill(label[:, None] != true_label, -1).double().cpu()
        least = torch.tensor(self.thresholds, dtype=torch.float64)
        right = torch.zeros(len(order), len(least), dtype=torch.bool)
        free = torch.ones(len(least), len(true_label), dtype=torch.bool)
        able = similar.amax(1) >= least.min() if len(true_label) else torch.zeros(0)
        for detection in able.nonzero()[:, 0].tolist():
            most, index = similar[detection].where(free, -1).flip(1).max(1)  # of equal ones the last, as COCO has it
            right[detection] = most >= least
            free[right[detection], len(true_label) - 1 - index[right[detection]]] = False
        self.score.append(score)
        self.label.append(label)
        self.right.append(right.to(score.device))
        self.present += true_label.bincount(minlength=len(self.present))

    def table(self) -> Tensor:
        """Average precision of every class at every threshold, nan for a class that is nowhere.   [class threshold]"""
        score, label, right = (dim_zero_cat(held).cpu() for held in (self.score, self.label, self.right))
        order = score.argsort(descending=True, stable=True)
        recall = torch.arange(101, dtype=torch.float64) * 0.01  # as COCO rounds it: 0.57 is a little more
        rows = []
        for number, count in enumerate(self.present.tolist()):
            hit = right[order[label[order] == number]].double().cumsum(0)  # [detection threshold]
            precision = hit / torch.arange(1, len(hit) + 1)[:, None]
            best = torch.cat([precision.flip(0).cummax(0).values.flip(0), hit.new_zeros(1, hit.shape[1])])
            wanted = recall.expand(hit.shape[1], -1).contiguous()
            place = torch.searchsorted((hit / max(count, 1)).T.contiguous(), wanted).T  # the first of at least this recall
            rows.append(best.gather(0, place).mean(0) if count else hit.new_full(hit.shape[1:], torch.nan))
        return torch.stack(rows)

    def compute(self) -> Tensor:
        return self.table().nanmean().float()


class RandomFeatures(nn.Module):
    """What a fixed random network sees: the mean of each of its 224 maps, at a half, a quarter and an eighth of the extent.

    Not trained on anything, so it knows no classes; but the Frechet distance between two sets of images in it grows with
    noise, with blur, with images that only share mean and covariance, and with classes left out.
    image: [batch 1 or 3 height width] uint8 or float in [0, 1] -> [batch 224]
    Naeem et al. 2020, arXiv:2002.09797, for networks with random weights where no trained one fits the images.
    """

    num_features = 224

    def __init__(self, seed: int = 0):
        super().__init__()
        random, channels = torch.Generator().manual_seed(seed), 3
        for stage, out in enumerate((32, 64, 128)):
            weight = torch.randn(out, channels, 3, 3, generator=random) * (2 / (9 * channels)) ** 0.5
            bias = torch.randn(out, generator=random) / 2
            self.register_buffer(f"weight{stage}", weight, persistent=False)  # a function of the seed: nothing to save
            self.register_buffer(f"bias{stage}", bias, persistent=False)
            channels = out

    def forward(self, image: Tensor) -> Tensor:
        means = []
        with torch.autocast(image.device.type, enabled=False):
            x = (2 * scaled(image).float() - 1).expand(-1, 3, -1, -1)
            for stage in range(3):
                x = conv2d(x, getattr(self, f"weight{stage}"), getattr(self, f"bias{stage}"), stride=2, padding=1).relu()
                means.append(x.mean((2, 3)))
        return torch.cat(means, 1)


class ReciprocalRank(Metric):
    """How soon the right answer is found: the mean of 1 / its rank among all second vectors, by the first one of its pair.

    1 where each is found at once, about ln(n) / n by guessing among n. Ranks are by the product of the two vectors; what is as
    near counts as nearer, so that vectors that are all the same find nothing.
    first, second: [batch dim], pairs side by side.
    """

    higher_is_better = True
    full_state_update = False
    first: list[Tensor]
    second: list[Tensor]

    def __init__(self, **arguments: Any):
        super().__init__(**arguments)
        self.add_state("first", [], dist_reduce_fx="cat")
        self.add_state("second", [], dist_reduce_fx="cat")

    def update(self, first: Tensor, second: Tensor) -> None:
        self.first.append(first)
        self.second.append(second)

    def compute(self) -> Tensor:
        return (1 / self.ranks()).mean()

    def ranks(self) -> Tensor:
        """That of each right answer, from 1.   [pair]"""
        first, second = dim_zero_cat(self.first), dim_zero_cat(self.second)
        ranks = []
        for start in range(0, len(first), 1000):
            scores = first[start : start + 1000] @ second.T
            own = scores.diagonal(start)[:, None]
            ranks.append((scores >= own).sum(1))
        return torch.cat(ranks)


class RecallAtOne(ReciprocalRank):
    """The share of right answers that are found at once, see `ReciprocalRank`: 1 / n by guessing among n."""

    def compute(self) -> Tensor:
        return (self.ranks() == 1).float().mean()


def plain_words(answer: str) -> list[str]:
    """The words of an answer in lower case, without punctuation and articles, as SQuAD compares them."""
    letters = "".join(letter for letter in answer.lower() if letter not in string.punctuation)
    return [word for word in letters.split() if word not in ("a", "an", "the")]


class ExactAnswer(MeanMetric):
    """The share of answers that are the right one, but for case, punctuation and articles.   Rajpurkar et al. 2016"""

    higher_is_better = True  # type: ignore[assignment]

    def update(self, said: Sequence[str | None], right: Sequence[str | None]) -> None:  # type: ignore[override]
        """None is right by nothing."""
        for one, other in zip(said, right, strict=True):
            super().update(self.score(*map(plain_words, (one, other))) if one is not None and other is not None else 0.0)

    def score(self, said: list[str], right: list[str]) -> float:
        return float(said == right)


class AnswerF1(ExactAnswer):
    """The mean over answers of 2 precision recall / (precision + recall) of their words, in whatever order."""

    def score(self, said: list[str], right: list[str]) -> float:
        if not said or not right:
            return float(said == right)
        return 2 * (Counter(said) & Counter(right)).total() / (len(said) + len(right))

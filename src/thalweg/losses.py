"""Losses that torch has not: each gives a sum and the number of its terms, so that uneven batches add up.   LBDL 3.1

All of them calculate in float32 at least, whatever the type of their input, and stay finite for logits of a thousand.
Where there is nothing to count, sum and count are 0 and so is every gradient: a padded or wholly ignored batch teaches
nothing and breaks nothing.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, logsigmoid, mse_loss, one_hot, pad, softplus


def _wide(x: Tensor) -> Tensor:
    """float32 for what has half the bits: sums of many terms need more than its 8 or 11."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _ranking(cost: Tensor, first: Tensor, last: Tensor, margin: float) -> Tensor:
    """sum_f sum_l max(0, margin + cost_f - cost_l) over every pair of an item of `first` and one of `last` of a row.

    By sorting: with k items of `last` below t = margin + cost_f, of sum s, the terms of f are k t - s. n log n, not n^2,
    a row.   all [row item]
    """
    cost = cost - cost.detach().mean(-1, keepdim=True)  # a common shift changes no term, but keeps the sums short
    ordered = cost.masked_fill(~last, math.inf).sort(-1).values
    threshold = cost + margin
    below = torch.searchsorted(ordered.detach(), threshold.detach())
    sums = pad(ordered.cumsum(-1), (1, 0)).gather(-1, below)
    return (below * threshold - sums).masked_fill(~first, 0).sum()


def triplet(
    distance: Float[Tensor, "batch batch"],
    label: Int[Tensor, " batch"],
    margin: float = 1.0,
    mining: str = "all",
) -> tuple[Tensor, Tensor]:
    """Ranks distances: what belongs together shall be nearer, by a margin, than what does not.

    sum over (a, b, c), label_a = label_b != label_c, b != a, of max(0, margin + distance[a, b] - distance[a, c]); 0 once
    every such distance[a, c] >= margin + distance[a, b].
    mining: "all" takes every triplet, "hard" for each a only its farthest b and its nearest c: one term an example.
    distance: of any kind, such as torch.cdist(features, features).   Counts triplets, or examples that have a b and a c.
    Schroff et al. 2015, arXiv:1503.03832; mining: Hermans et al. 2017, arXiv:1703.07737.   LBDL 3.1
    Elsewhere: torch.nn.TripletMarginLoss takes triplets that somebody has chosen.
    """
    if mining not in ("all", "hard"):
        raise ValueError(f"mining={mining!r}: expected all or hard")
    distance = _wide(distance)
    same = label[:, None] == label
    apart, together = ~same, same ^ torch.eye(len(label), dtype=torch.bool, device=label.device)
    if mining == "all":
        return _ranking(distance, together, apart, margin), (together.sum(1) * apart.sum(1)).sum()
    has_both = together.any(1) & apart.any(1)
    farthest = distance.masked_fill(~together, -math.inf).amax(1)
    nearest = distance.masked_fill(~apart, math.inf).amin(1)
    return (margin + farthest - nearest).relu().sum(), has_both.sum()  # where one is missing, relu(-inf) = 0


def contrastive(distance: Float[Tensor, "*pair"], same: Bool[Tensor, "*pair"], margin: float = 1.0) -> tuple[Tensor, int]:
    """Draws pairs that belong together to distance 0 and pushes other pairs to the margin.

    sum over pairs of distance^2 / 2 where same, max(0, margin - distance)^2 / 2 elsewhere.
    Hadsell, Chopra, LeCun 2006, CVPR.
    """
    distance = _wide(distance)
    return (torch.where(same, distance, (margin - distance).relu()).square() / 2).sum(), distance.numel()


def multilabel_margin(logits: Float[Tensor, "batch class"], label: Tensor, margin: float = 1.0) -> tuple[Tensor, int]:
    """Every class that an example has shall score higher, by a margin, than every class that it has not.

    sum over examples of 1/C sum_{y in label} sum_{i not in label} max(0, margin - logits_y + logits_i), C classes.
    label: [batch class], 1 or True where the example has the class; an example with all classes or none has the loss 0.
    Elsewhere: torch.nn.MultiLabelMarginLoss fixes the margin at 1 and takes lists of class numbers ended by -1.
    """
    has = label.bool()
    return _ranking(-_wide(logits), has, ~has, margin) / logits.shape[1], len(logits)


def focal(
    logits: Float[Tensor, "batch class *place"],
    label: Int[Tensor, "batch *place"],
    gamma: float = 2.0,
    ignore_index: int = -100,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy that turns away from what is already easy.

    sum of -(1 - p)^gamma log p, p = softmax(logits)[label]; cross-entropy at gamma = 0. Labels of ignore_index count not.
    Lin et al. 2017, arXiv:1708.02002.
    """
    logits, counted = _wide(logits), label != ignore_index
    surprise = cross_entropy(logits, label, ignore_index=ignore_index, reduction="none")
    # log(1 - p), by the other classes: 1 - p itself has no slope that can be calculated where p rounds to 1
    own = one_hot(label.masked_fill(~counted, 0), logits.shape[1]).bool().movedim(-1, 1)
    doubt = logits.masked_fill(own, -math.inf).logsumexp(1) - logits.logsumexp(1)
    return ((gamma * doubt).exp() * surprise).sum(), counted.sum()


def binary_focal(
    logits: Float[Tensor, "*item"],
    target: Tensor,
    gamma: float = 2.0,
    alpha: float | None = None,
    mask: Bool[Tensor, "*item"] | None = None,
) -> tuple[Tensor, Tensor | int]:
    """Focal loss of yes-or-no questions, such as whether there is an object in each of 100,000 boxes.

    sum of -a (1 - p)^gamma log p; p = sigmoid(logits), a = alpha where the target is 1; 1 - sigmoid(logits), 1 - alpha
    where it is 0; a = 1 without alpha.   mask: True where an item counts.
    Lin et al. 2017, arXiv:1708.02002.   Elsewhere: RetinaNet divides by the number of boxes whose target is 1.
    """
    yes = target.bool()
    right = torch.where(yes, _wide(logits), -_wide(logits))
    terms = softplus(-right) * (gamma * logsigmoid(-right)).exp()
    if alpha is not None:
        terms = terms * torch.where(yes, alpha, 1 - alpha)
    return (terms.sum(), terms.numel()) if mask is None else (terms.masked_fill(~mask, 0).sum(), mask.sum())


def quality_focal(logits: Float[Tensor, "*item"], target: Float[Tensor, "*item"], gamma: float = 2.0) -> tuple[Tensor, Tensor]:
    """Focal loss whose targets are numbers from 0 to 1, such as how well the box fits of which a score is asked.

    sum of -|t - p|^gamma (t log p + (1 - t) log(1 - p)), p = sigmoid(logits); counts sum t, how much there is to find.
    Li et al. 2020, arXiv:2006.04388.
    """
    logits, target = _wide(logits), _wide(target)
    surprise = binary_cross_entropy_with_logits(logits, target, reduction="none")
    return ((target - logits.sigmoid()).abs() ** gamma * surprise).sum(), target.sum()


def dice(
    logits: Float[Tensor, "batch class place *more"],
    label: Int[Tensor, "batch place *more"],
    smooth: float = 1.0,
    ignore_index: int = -100,
) -> tuple[Tensor, Tensor]:
    """One minus the overlap of predicted and true area, a class and image: a small area weighs as much as a large one.

    sum over images and classes of 1 - (2 sum p g + smooth) / (sum p + sum g + smooth), sums over the places of the image
    that are not ignore_index; p = softmax(logits), g = 1 where the label is that class. An image with no such place
    counts not.   smooth: above 0, keeps a class that is nowhere from dividing 0 by 0.
    Milletari et al. 2016, arXiv:1606.04797, with p^2 and g^2 in the denominator.
    """
    if smooth <= 0:
        raise ValueError(f"smooth={smooth}: expected more than 0")
    counted = label != ignore_index
    true = one_hot(label.masked_fill(~counted, 0), logits.shape[1]).movedim(-1, 1) * counted[:, None]
    predicted = _wide(logits).softmax(1) * counted[:, None]
    overlap, area = (x.flatten(2).sum(2) for x in (predicted * true, predicted + true))
    terms = 1 - (2 * overlap + smooth) / (area + smooth)  # 0 where nothing counts
    return terms.sum(), counted.flatten(1).any(1).sum() * logits.shape[1]


def jensen_shannon(
    logits: Float[Tensor, "*batch outcome"], other_logits: Float[Tensor, "*batch outcome"]
) -> tuple[Tensor, int]:
    """How far two distributions are from the one halfway between them: 0 where they agree, log 2 where they never meet.

    sum of KL(p | m) / 2 + KL(q | m) / 2, m = (p + q) / 2, in nats, p and q softmax of the logits; -inf is an outcome that
    never comes. It stays log 2 however far apart they are, so it draws them no nearer.   Lin 1991.   LEE GAN
    """
    least = torch.finfo(_wide(logits).dtype).min  # 0 log 0 is 0, where 0 times infinity is none
    p, q = (_wide(x).log_softmax(-1).clamp(min=least) for x in (logits, other_logits))
    middle = torch.logaddexp(p, q) - math.log(2)
    terms = (p.exp() * (p - middle) + q.exp() * (q - middle)).sum(-1) / 2
    return terms.sum(), terms.numel()


def wasserstein(x: Float[Tensor, "*batch sample"], y: Float[Tensor, "*batch other_sample"]) -> tuple[Tensor, int]:
    """How far earth must be moved, on average, to make one heap of samples on a line into the other, by the best plan.

    integral of |F - G|, F and G the shares of x and of y up to a number; of equally many samples the mean of
    |x_(i) - y_(i)|, both sorted. It falls as they come nearer, however far apart they are. Sums over the batch.
    ValueError without samples.   Arjovsky et al. 2017, arXiv:1701.07875.   LEE GAN
    """
    x, y = (_wide(samples).sort(-1).values for samples in (x, y))
    if not x.shape[-1] or not y.shape[-1]:
        raise ValueError(f"x, y: {x.shape[-1]} and {y.shape[-1]} samples, expected at least one of each")
    places = torch.cat([x, y], -1).sort(-1).values
    held = places.detach()[..., :-1].contiguous()
    f, g = (torch.searchsorted(s.detach(), held, right=True).to(s.dtype) / s.shape[-1] for s in (x, y))
    terms = ((f - g).abs() * places.diff(dim=-1)).sum(-1)
    return terms.sum(), terms.numel()


def guided_attention(
    weights: Float[Tensor, "batch time read"],
    mask: Bool[Tensor, "batch time"],
    source_mask: Bool[Tensor, "batch read"],
    width: float = 0.2,
) -> tuple[Tensor, Tensor]:
    """Keeps attention near the diagonal, where source and target say the same in the same order, as text and speech do.

    sum_ts a_ts (1 - exp(-(t/T - s/S)^2 / (2 width^2))), T and S the lengths of the target and of the source; counts times.
    Tachibana, Uenoyama, Aihara 2017, arXiv:1710.08969, there the mean over t and s.   LEE Transformer
    """
    if width <= 0:
        raise ValueError(f"width={width}: expected more than 0")
    weights = _wide(weights)
    place, read = (torch.arange(real.shape[1], device=real.device) / real.sum(1, keepdim=True).clamp(min=1).to(weights)
                   for real in (mask, source_mask))  # fmt: skip
    away = 1 - (-(place[:, :, None] - read[:, None]).square() / (2 * width**2)).exp()
    counted = mask[:, :, None] & source_mask[:, None]
    return (weights * away).masked_fill(~counted, 0).sum(), mask.sum()


def policy_gradient(
    logits: Float[Tensor, "batch time vocab"],
    target: Int[Tensor, "batch time"],
    advantage: Float[Tensor, " batch"],
    ignore_index: int = -100,
) -> tuple[Tensor, int]:
    """What was drawn and turned out well becomes more probable (REINFORCE): - advantage sum_t log p(target_t); counts rows.

    For target drawn from p and advantage = r(target) - b, b anything that does not depend on target, the expectation of the
    gradient is that of -E[r], though r has none: grad E[r(y)] = E[(r(y) - b) grad log p(y)].
    Williams 1992, "Simple statistical gradient-following algorithms for connectionist reinforcement learning".
    """
    logits = _wide(logits)
    surprise = cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=ignore_index, reduction="none")
    return (advantage * surprise.view_as(target).sum(1)).sum(), len(target)


def gram_matrix(features: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel channel"]:
    """Which channels are strong together, wherever in the image: its style.

    G = X X' / (channel height width), X [channel height*width]. Every rearrangement of the places has the same.
    Gatys et al. 2015, arXiv:1508.06576.   D2L 13.12
    """
    with torch.autocast(features.device.type, enabled=False):
        x = _wide(features).flatten(2)
        return x @ x.mT / (x.shape[1] * x.shape[2])


def style(
    features: Float[Tensor, "batch channel height width"], gram: Float[Tensor, "... channel channel"]
) -> tuple[Tensor, int]:
    """Squared difference of the Gram matrix of features from that of the wanted style.   D2L 13.12

    sum of (gram_matrix(features) - gram)^2.   gram: of each image, or one for all.   Gatys et al. 2015, arXiv:1508.06576.
    """
    own = gram_matrix(features)
    return mse_loss(own, _wide(gram).expand_as(own), reduction="sum"), own.numel()


def total_variation(image: Float[Tensor, "... height width"]) -> tuple[Tensor, int]:
    """How much neighbouring pixels differ: 0 on a plain image, large on noise.

    sum of |x[i+1, j] - x[i, j]| and |x[i, j+1] - x[i, j]|; counts pairs of neighbours.
    Rudin, Osher, Fatemi 1992, Physica D 60.   D2L 13.12
    """
    differences = [_wide(image).diff(dim=axis).abs() for axis in (-2, -1)]
    return sum(d.sum() for d in differences), sum(d.numel() for d in differences)  # type: ignore[return-value]

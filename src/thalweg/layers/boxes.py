"""Boxes: what two have in common, what is told of one by its offset from another, which of many are kept.   D2L 13.3, 13.4

A box is left, top, right, bottom in pixels, from the upper left corner of the image; a box of no extent has no area.
"""

from collections.abc import Sequence
from importlib.util import find_spec

import numpy
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def to_centres(boxes: Float[Tensor, "*box 4"]) -> Float[Tensor, "*box 4"]:
    """left, top, right, bottom -> centre x, centre y, width, height.   D2L 13.3"""
    first, last = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(first + last) / 2, last - first], -1)


def to_corners(boxes: Float[Tensor, "*box 4"]) -> Float[Tensor, "*box 4"]:
    """centre x, centre y, width, height -> left, top, right, bottom.   D2L 13.3"""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def area(boxes: Float[Tensor, "*box 4"]) -> Float[Tensor, "*box"]:
    """Width times height, 0 for a box whose corners have changed places."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def iou(first: Float[Tensor, "*batch n 4"], second: Float[Tensor, "*batch m 4"]) -> Float[Tensor, "*batch n m"]:
    """Intersection over union of every box of `first` with every box of `second`: 1 where they are the same, 0 apart.

    J(A, B) = |A and B| / |A or B|; 0 where both are empty.   Jaccard 1901.   D2L 13.4
    """
    return _iou(first[..., :, None, :], second[..., None, :, :])


def _iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of boxes that broadcast against each other."""
    wide = torch.minimum(first[..., 2], second[..., 2]) - torch.maximum(first[..., 0], second[..., 0])
    tall = torch.minimum(first[..., 3], second[..., 3]) - torch.maximum(first[..., 1], second[..., 1])
    both = wide.clamp(min=0) * tall.clamp(min=0)
    union = area(first) + area(second) - both
    return both / torch.where(union > 0, union, 1)


def mask_iou(first: Bool[Tensor, "n height width"], second: Bool[Tensor, "m height width"]) -> Float[Tensor, "n m"]:
    """Intersection over union of every mask of `first` with every mask of `second`; 0 where both are empty."""
    one, other = first.flatten(1).float(), second.flatten(1).float()
    both = one @ other.T
    return both / (one.sum(1)[:, None] + other.sum(1) - both).clamp(min=1)


def encode(
    boxes: Float[Tensor, "*box 4"],
    anchors: Float[Tensor, "*#box 4"],
    deviation: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
) -> Float[Tensor, "*box 4"]:
    """Where boxes lie as seen from their anchors: numbers of order one for a network to give.

    ((x - x_a) / w_a, (y - y_a) / h_a, log(w / w_a), log(h / h_a)) / deviation, x and y of the centres; widths and heights
    below 1e-6 count as that.   D2L 13.4; Girshick et al. 2013, arXiv:1311.2524.
    """
    box, anchor = to_centres(boxes), to_centres(anchors)
    extent = anchor[..., 2:].clamp(min=1e-6)
    moved, grown = (box[..., :2] - anchor[..., :2]) / extent, (box[..., 2:].clamp(min=1e-6) / extent).log()
    return torch.cat([moved, grown], -1) / boxes.new_tensor(deviation)


def decode(
    offsets: Float[Tensor, "*box 4"],
    anchors: Float[Tensor, "*#box 4"],
    deviation: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
) -> Float[Tensor, "*box 4"]:
    """The boxes of such offsets: the inverse of encode. No side grows more than a thousand times: exp stays finite."""
    anchor, scaled = to_centres(anchors), offsets * offsets.new_tensor(deviation)
    centre = anchor[..., :2] + scaled[..., :2] * anchor[..., 2:]
    return to_corners(torch.cat([centre, anchor[..., 2:] * scaled[..., 2:].clamp(max=6.9).exp()], -1))


def clip(boxes: Float[Tensor, "*box 4"], height: float, width: float) -> Float[Tensor, "*box 4"]:
    """The part of each box inside the image, without extent where there is none."""
    return boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))


def anchors(
    map_size: Sequence[int],
    image_size: Sequence[int],
    sizes: Sequence[float],
    ratios: Sequence[float] = (1.0,),
    *,
    every: bool = False,
    device: torch.device | str | None = None,
) -> Float[Tensor, "box 4"]:
    """Boxes of several sizes and ratios around every pixel of a map, in pixels of the image; they may stick out of it.

    Width s sqrt(r), height s / sqrt(r) for size s (pixels) and ratio r; of n sizes and m ratios the n + m - 1 pairs that
    hold the first size or the first ratio, (s_1, r_1) .. (s_n, r_1), (s_1, r_2) .. (s_1, r_m), or, with `every`, all n m,
    the ratios of a size together. In the order of the map's rows, columns, pairs: [height * width * pairs 4].
    map_size, image_size: height and width.   D2L 13.4
    """
    if not sizes or not ratios or min(*sizes, *ratios) <= 0:
        raise ValueError(f"sizes={sizes}, ratios={ratios}: expected at least one of each, all above 0")
    pairs = [(size, ratio) for size in sizes for ratio in ratios]
    if not every:
        pairs = [(size, ratios[0]) for size in sizes] + [(sizes[0], ratio) for ratio in ratios[1:]]
    y, x = ((torch.arange(cells, device=device) + 0.5) * (pixels / cells)
            for cells, pixels in zip(map_size, image_size, strict=True))  # fmt: skip
    centre = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 1, 2)
    size, ratio = torch.tensor(pairs, device=device).T
    half = torch.stack([size * ratio.sqrt(), size / ratio.sqrt()], -1) / 2
    return torch.cat([centre - half, centre + half], -1).reshape(-1, 4)


def match(
    anchors: Float[Tensor, "anchor 4"] | Float[Tensor, "batch anchor 4"],
    boxes: Float[Tensor, "batch box 4"],
    box_label: Int[Tensor, "batch box"],
    threshold: float = 0.5,
    background: float | None = None,
    *,
    rescue: bool = True,
) -> tuple[Int[Tensor, "batch anchor"], Int[Tensor, "batch anchor"]]:
    """Which box each anchor shall find: index of the box, and its label, -1 for no object, -2 for neither.

    1. rescue: of all pairs of a box and an anchor that overlap the one of the largest intersection over union is matched,
    then the largest of the remaining boxes with the remaining anchors, till every box has an anchor of its own.
    2. An anchor that is left goes to its most similar box, if their intersection over union is at least the threshold.
    3. It is no object below `background` (the threshold, unless given), and counts not between them.
    box_label: -1 is padding.   The index is 0 where there is no box.   D2L 13.4
    """
    if not boxes.shape[1]:
        none = boxes.new_zeros(len(boxes), anchors.shape[-2], dtype=torch.long)
        return none, none - 1
    real = box_label >= 0
    overlap = iou(boxes, anchors.expand(len(boxes), -1, -1)).masked_fill(~real[..., None], -1)  # [batch box anchor]
    best, index = overlap.max(1)
    found = best >= threshold
    if rescue:
        rank, anchor = overlap.topk(min(boxes.shape[1], anchors.shape[-2]), -1)  # the others leave each box one of these
        row = torch.arange(len(boxes), device=boxes.device)
        for _ in range(boxes.shape[1]):
            most, place = rank.flatten(1).max(1)
            box, taken = place // rank.shape[-1], anchor.flatten(1)[row, place]
            some = most > 0
            index[row, taken] = torch.where(some, box, index[row, taken])
            found[row, taken] |= some
            rank = rank.masked_fill(anchor == taken[:, None, None], -1)
            rank[row, box] = -1
    label = torch.where(found, box_label.gather(1, index), -1)
    if background is not None:
        label = label.masked_fill(~found & (best >= background), -2)
    return torch.where(best > -1, index, 0), label


COMPILED = find_spec("numba") is not None
BLOCK = 256  # boxes decided at a time
TILE = 64  # neighbouring boxes that are compared with another such tile, or not, together


def nms(boxes: Float[Tensor, "box 4"], score: Float[Tensor, " box"], threshold: float = 0.5) -> Int[Tensor, " kept"]:
    """Non-maximum suppression: of boxes around the same thing only the one of the highest score is kept.

    From the best to the worst: a box is kept unless its intersection over union with one that is kept is above the
    threshold.   The indices of those kept, best first; of equal scores the first.   D2L 13.4
    """
    return _nms(boxes, score, None, threshold)


def class_nms(
    boxes: Float[Tensor, "box 4"], score: Float[Tensor, " box"], label: Int[Tensor, " box"], threshold: float = 0.5
) -> Int[Tensor, " kept"]:
    """Non-maximum suppression in which only boxes of one class suppress each other; the indices of all kept, best first."""
    return _nms(boxes, score, label, threshold)


def _nms(boxes: Tensor, score: Tensor, label: Tensor | None, threshold: float) -> Tensor:
    """Block by block: the best that remain settle it among themselves, and those of them that are kept clear the rest.

    On a processor, where numba is installed, many boxes are told box by box instead: see `suppression`.
    """
    order = score.argsort(descending=True, stable=True)
    if len(order) > BLOCK and boxes.device.type == "cpu" and boxes.dtype == torch.float32 and threshold >= 0 and COMPILED:
        from thalweg.layers.suppression import kept as compiled

        best = boxes.detach()[order]
        labels = torch.zeros_like(order) if label is None else label[order]
        return order[torch.from_numpy(compiled(best.numpy(), area(best).numpy(), labels.numpy(), numpy.float32(threshold)))]
    kept = [order[:0]]
    while len(order):
        block, rest = order[:BLOCK], order[BLOCK:]
        block = block[_settled(_clash(boxes, label, block, block, threshold))]
        order = rest[~_clash(boxes, label, block, rest, threshold).any(0)]
        kept.append(block)
        if len(order) > max(2 * BLOCK, 0.8 * len(rest)):  # they are many, and a block clears few
            kept.append(order[_kept_by_place(boxes[order], None if label is None else label[order], threshold)])
            break
    return torch.cat(kept)


def _kept_by_place(boxes: Tensor, label: Tensor | None, threshold: float) -> Tensor:
    """Which of boxes, best first, are kept, where few clash: each is compared with those near it only.

    An intersection over union above t takes an intersection wider than t times either width, and so centres that are
    nearer than (1 - t) times half the sum of the widths: boxes shrunk by 1 - t overlap.
    """
    centres = to_centres(boxes.double())
    by_row = centres[:, 1].argsort()
    row = torch.arange(len(boxes), device=boxes.device) // round((TILE * len(boxes)) ** 0.5)  # as many rows as tiles in each
    by_column = centres[by_row, 0].argsort()
    place = by_row[by_column[row[by_column].argsort(stable=True)]]
    tiles = torch.cat([place, place[-1:].expand(-len(place) % TILE)]).view(-1, TILE)
    shrunk = to_corners(torch.cat([centres[:, :2], centres[:, 2:] * (1 - threshold) * 1.0001], 1))[tiles]
    first, last = shrunk[..., :2].amin(1), shrunk[..., 2:].amax(1)  # of the hull of a tile
    meet = (torch.maximum(first, first[:, None]) <= torch.minimum(last, last[:, None])).all(-1)
    better, worse = [], []
    for pairs in meet.triu().nonzero().split(64):  # so few that the intermediate results stay in the cache
        one, other = tiles[pairs[:, 0]], tiles[pairs[:, 1]]
        pair, i, j = (_iou(boxes[one][:, :, None], boxes[other][:, None]) > threshold).nonzero(as_tuple=True)
        i, j = one[pair, i], other[pair, j]
        clash = i != j if label is None else (i != j) & (label[i] == label[j])
        better.append(torch.minimum(i, j)[clash])
        worse.append(torch.maximum(i, j)[clash])
    above, below = torch.cat(better), torch.cat(worse)
    order, alive = above.argsort(), [True] * len(boxes)
    for i, j in zip(above[order].tolist(), below[order].tolist(), strict=True):  # when i's turn comes, it is settled
        if alive[i]:
            alive[j] = False
    return torch.tensor(alive, device=boxes.device)


def _clash(boxes: Tensor, label: Tensor | None, first: Tensor, second: Tensor, threshold: float) -> Tensor:
    """Whether one of two boxes suppresses the other.   [first second]"""
    above = iou(boxes[first], boxes[second]) > threshold
    return above if label is None else above & (label[first, None] == label[second])


def ordered_nms(boxes: Float[Tensor, "batch box 4"], threshold: float = 0.5) -> Bool[Tensor, "batch box"]:
    """Non-maximum suppression in every image at once, of boxes that are in order, best first: which of them are kept."""
    return _settled(iou(boxes, boxes) > threshold)


def _settled(clash: Tensor) -> Tensor:
    """Which of boxes, best first, are kept, if of two that clash the worse goes.   bool [... box box] -> [... box]"""
    clash = clash.triu(1).float()  # [better worse]
    alive, before = torch.ones_like(clash[..., :1, :]), None
    while before is None or not torch.equal(alive, before):  # each pass settles at least the best that is open
        alive, before = (alive @ clash == 0).float(), alive
    return alive.squeeze(-2).bool()


def soft_nms(
    boxes: Float[Tensor, "box 4"],
    score: Float[Tensor, " box"],
    sigma: float = 0.5,
    least: float = 1e-3,
) -> tuple[Int[Tensor, " kept"], Float[Tensor, " kept"]]:
    """Non-maximum suppression that doubts instead of deleting: what overlaps a better box loses score, by how much it does.

    The best that remains is kept; the score of every other is multiplied by exp(-iou^2 / sigma); until none has `least`.
    The indices of those kept, best first, and their new scores.   Bodla et al. 2017, arXiv:1704.04503.
    """
    score, kept, scores = score.clone(), [], []
    while len(score) and (best := score.max(0)).values >= least:
        kept.append(best.indices)
        scores.append(best.values)
        score *= (-iou(boxes[best.indices][None], boxes)[0].square() / sigma).exp()
        score[best.indices] = -torch.inf
    none = score.new_zeros(0)
    return (torch.stack(kept), torch.stack(scores)) if kept else (none.long(), none)


def generalised_iou(first: Float[Tensor, "*box 4"], second: Float[Tensor, "*box 4"]) -> Float[Tensor, "*box"]:
    """Intersection over union of pairs, less the share of the box around both that neither fills: tells how far apart.

    J(A, B) - |C without (A or B)| / |C|, C the least box that holds A and B; from -1 to 1.
    Rezatofighi et al. 2019, arXiv:1902.09630.
    """
    around = torch.cat([torch.minimum(first[..., :2], second[..., :2]), torch.maximum(first[..., 2:], second[..., 2:])], -1)
    common = _iou(first, second)
    union = (area(first) + area(second)) / (1 + common)  # J = both / union, both + union = the sum of the areas
    hull = area(around)
    return common - (hull - union) / torch.where(hull > 0, hull, 1)

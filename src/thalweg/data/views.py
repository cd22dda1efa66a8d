"""Views: an image seen several times, or beside another, for learning what stays the same and what makes a difference."""

from itertools import product

import torch
from torch import Generator

from thalweg.data.streams import Augment, Splits, generator
from thalweg.vocabulary import Batch


def two_views(*augment: Augment) -> Augment:
    """Two views of each image, changed independently by the same augmentations.

    {"image"} -> {"image", "other_view"}, both [batch channel height width].   Chen et al. 2020, arXiv:2002.05709.
    """

    def change(batch: Batch, generator: Generator) -> Batch:
        first = second = batch
        for step in augment:
            first = step(first, generator)
        for step in augment:
            second = step(second, generator)
        return {**first, "other_view": second["image"]}

    return change


def side_by_side(splits: Splits, seed: int = 0) -> Splits:
    """Every image with another of its part to the right: of C classes C^2, such as two-digit numbers of digits.

    image [n channel height width] -> [n channel height 2*width]; label C * left + right. Each image stands once on either
    side; which are paired is fixed by the seed.
    """

    def paired(part: Batch, number: int) -> Batch:
        image, label = part["image"], part["label"]
        right = torch.randperm(len(label), generator=generator(seed, number))
        return {"image": torch.cat([image, image[right]], -1), "label": len(splits.classes) * label + label[right]}

    train, valid, test = (paired(part, number) for number, part in enumerate((splits.train, splits.valid, splits.test)))
    return Splits(train, valid, test, tuple(left + right for left, right in product(splits.classes, repeat=2)))

"""Views: an image seen several times, each time changed in another way, for learning what stays the same."""

from torch import Generator

from thalweg.data.streams import Augment
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

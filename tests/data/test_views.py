"""Two views: the same augmentations, drawn twice."""

import torch

from thalweg.data.augmentation import flip, shift
from thalweg.data.streams import TensorStream, generator
from thalweg.data.views import two_views


def test_each_view_is_changed_on_its_own_one_after_the_other():
    batch = {"image": torch.randint(0, 256, (64, 1, 8, 8), dtype=torch.uint8), "label": torch.arange(64)}
    seen = two_views(flip(), shift(2))(batch, generator(1))
    again = generator(1)
    first = shift(2)(flip()(batch, again), again)
    second = shift(2)(flip()(batch, again), again)
    assert torch.equal(seen["image"], first["image"])
    assert torch.equal(seen["other_view"], second["image"])
    assert not torch.equal(seen["image"], seen["other_view"])
    assert torch.equal(seen["label"], batch["label"])
    assert sorted(batch) == ["image", "label"]


def test_without_augmentation_both_views_are_the_image():
    image = torch.rand(3, 1, 4, 4)
    seen = two_views()({"image": image}, generator(0))
    assert torch.equal(seen["image"], image)
    assert torch.equal(seen["other_view"], image)


def test_a_stream_gives_the_same_views_for_the_same_number():
    stream = TensorStream({"image": torch.rand(20, 1, 6, 6)}, 5, augment=[two_views(shift(2))])
    assert torch.equal(stream.batch(7)["other_view"], stream.batch(7)["other_view"])

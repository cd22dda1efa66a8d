"""Two views: the same augmentations, drawn twice; and images side by side."""

import torch

from thalweg.data.augmentation import flip, shift
from thalweg.data.streams import Splits, TensorStream, generator
from thalweg.data.views import side_by_side, two_views


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


def test_two_images_side_by_side_are_of_the_class_of_both():
    def part(count):
        label = torch.randint(0, 3, (count,))
        return {"image": label[:, None, None, None].expand(-1, 1, 2, 3).byte(), "label": label}

    splits = Splits(part(50), part(7), part(8), ("a", "b", "c"))
    pairs = side_by_side(splits)
    assert pairs.classes == ("aa", "ab", "ac", "ba", "bb", "bc", "ca", "cb", "cc")
    assert pairs.train["image"].shape == (50, 1, 2, 6)
    assert torch.equal(pairs.train["image"][:, :, :, :3], splits.train["image"])
    left, right = pairs.train["image"][:, 0, 0, 0].long(), pairs.train["image"][:, 0, 0, 3].long()
    assert torch.equal(pairs.train["label"], 3 * left + right)
    assert torch.equal(right.sort().values, left.sort().values)
    assert not torch.equal(right, left)
    assert torch.equal(side_by_side(splits).test["image"], pairs.test["image"])
    assert not torch.equal(side_by_side(splits, seed=1).train["image"], pairs.train["image"])

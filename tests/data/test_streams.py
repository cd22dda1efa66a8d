"""Streams: every example once a pass, batch k a function of seed and k alone."""

from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.data.augmentation import flip, shift
from thalweg.data.streams import (
    Curriculum,
    GrowingBatches,
    Padded,
    Part,
    Splits,
    Stream,
    TensorStream,
    generator,
    stratified,
    take,
)


def numbered(size: int, batch_size: int, **how) -> TensorStream:
    return TensorStream({"number": torch.arange(size)}, batch_size, **how)


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 200), batch_size=st.integers(1, 210), shuffle=st.booleans())
def test_a_pass_holds_each_example_once_in_batches_of_nearly_equal_size(size, batch_size, shuffle):
    batches = [batch["number"] for batch in numbered(size, batch_size, shuffle=shuffle)]
    assert sorted(torch.cat(batches).tolist()) == list(range(size))
    sizes = [len(batch) for batch in batches]
    assert len(sizes) == -(-size // batch_size)
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_passes_differ_and_the_first_of_the_endless_stream_is_the_plain_one():
    torch.manual_seed(3)
    stream = numbered(50, 8, shuffle=True)
    endless = torch.cat([batch["number"] for batch in islice(stream.batches(), 14)]).tolist()
    assert endless[:50] == torch.cat([batch["number"] for batch in stream]).tolist()
    assert sorted(endless[50:]) == list(range(50))
    assert endless[:50] != endless[50:]
    assert endless[:50] != list(range(50))


def test_without_shuffling_the_order_is_that_of_the_data():
    assert torch.cat([batch["number"] for batch in numbered(10, 4)]).tolist() == list(range(10))


@settings(max_examples=25, deadline=None)
@given(start=st.integers(0, 40))
def test_a_stream_resumes_at_any_batch_with_the_same_batches_and_augmentation(start):
    def stream():
        torch.manual_seed(7)
        image = torch.randint(0, 256, (23, 1, 6, 6), dtype=torch.uint8, generator=generator(1))
        return TensorStream({"image": image, "label": torch.arange(23)}, 5, shuffle=True, augment=[flip(), shift(2)])

    whole = list(islice(stream().batches(), start + 3))
    resumed = list(islice(stream().batches(start), 3))
    for one, other in zip(whole[start:], resumed, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["label"], other["label"])


def test_who_looks_on_does_not_change_the_order():
    torch.manual_seed(7)
    stream = numbered(30, 4, shuffle=True)
    expected = [batch["number"].tolist() for batch in islice(stream.batches(), 20)]
    seen = []
    for number, batch in enumerate(islice(stream.batches(), 20)):
        seen.append(batch["number"].tolist())
        torch.rand(number)  # torch's own generator is somebody else's
        stream.indices(19 - number)  # and so is a question about another batch
        next(iter(stream))
    assert seen == expected


def test_the_seed_decides_the_order_and_the_augmentation():
    def first(seed):
        torch.manual_seed(seed)
        image = torch.arange(40 * 36, dtype=torch.uint8).reshape(40, 1, 6, 6)
        return next(TensorStream({"image": image}, 40, shuffle=True, augment=[shift(2)]).batches())["image"]

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_every_batch_is_augmented_anew():
    image = torch.arange(36, dtype=torch.uint8).reshape(1, 1, 6, 6)
    batches = TensorStream({"image": image}, 1, augment=[shift(2)]).batches()
    assert len({tuple(batch["image"].flatten().tolist()) for batch in islice(batches, 30)}) > 10  # of 25 places


def test_generators_of_neighbouring_numbers_are_unrelated():
    drawn = torch.stack([torch.rand(1000, generator=generator(seed, number)) for seed in range(4) for number in range(4)])
    correlation = torch.corrcoef(drawn).fill_diagonal_(0)
    assert correlation.abs().max() < 0.15
    assert torch.equal(torch.rand(5, generator=generator(1, 2)), torch.rand(5, generator=generator(1, 2)))


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.integers(1, 60), min_size=1, max_size=6), fraction=st.floats(0.05, 0.95), seed=st.integers(0, 9))
def test_a_stratified_split_is_disjoint_complete_and_proportionate(counts, fraction, seed):
    label = torch.cat([torch.full((count,), value * 3) for value, count in enumerate(counts)])
    label = label[torch.randperm(len(label), generator=generator(seed))]
    part, rest = stratified(label, fraction, seed)
    assert sorted(torch.cat([part, rest]).tolist()) == list(range(len(label)))
    for value, count in enumerate(counts):
        held = int((label[part] == value * 3).sum())
        if count == 1:
            assert held == 0  # there is none to spare
        else:
            assert 1 <= held <= count - 1
            assert abs(held - fraction * count) <= 1
    again = stratified(label, fraction, seed)
    assert torch.equal(part, again[0])


def test_splits_become_streams_of_which_only_training_is_shuffled_and_augmented():
    tensors = {"image": torch.arange(64, dtype=torch.uint8).reshape(16, 1, 2, 2), "label": torch.arange(16)}

    def white(batch, random):
        return {**batch, "image": torch.full_like(batch["image"], 255)}

    streams = Splits(tensors, tensors, tensors, ("a",)).streams(4, augment=[white])
    assert streams.classes == ("a",)
    assert all((batch["image"] == 255).all() for batch in streams.train)
    for part in (streams.valid, streams.test):
        (batch,) = part
        assert torch.equal(batch["image"], tensors["image"])


def test_take_is_indexing():
    tensors = {"image": torch.rand(7, 3, 2, 2), "label": torch.arange(7), "mask": torch.arange(7) > 3}
    indices = torch.tensor([6, 0, 0, 3])
    for name, value in take(tensors, indices).items():
        assert torch.equal(value, tensors[name][indices])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: numbered(0, 4), "size=0"),
        (lambda: numbered(4, 0), "batch_size=0"),
        (lambda: TensorStream({"a": torch.zeros(2), "b": torch.zeros(3)}, 1), r"same number.*'a': 2, 'b': 3"),
        (lambda: TensorStream({}, 1), "same number"),
        (lambda: stratified(torch.zeros(3), 1.0), "fraction=1.0"),
    ],
)
def test_what_cannot_be_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_stream_without_fetch_says_so():
    with pytest.raises(NotImplementedError):
        Stream(3, 1, shuffle=False).batch(0)


def test_a_part_is_the_chosen_examples_in_batches_of_its_own():
    whole = TensorStream({"number": 10 * torch.arange(9)}, 4)
    part = Part(whole, torch.tensor([7, 1, 4]), 2, augment=[lambda batch, _: {"number": batch["number"] + 1}])
    assert [batch["number"].tolist() for batch in part] == [[71, 11], [41]]


def test_a_curriculum_shows_the_easiest_share_first_and_more_as_it_goes_on():
    torch.manual_seed(0)
    difficulty = torch.randperm(1000)
    stream = Curriculum(numbered(1000, 20), difficulty, length=100, start=0.1)
    hardest = []
    for number in range(100):
        batch = stream.batch(number)["number"]
        assert len(set(batch.tolist())) == 20
        hardest.append(difficulty[batch].max().item())
        assert hardest[-1] < 1000 * (0.01 + 0.99 * number / 100) ** 0.5
    assert hardest[0] < 100
    assert max(hardest) > 900
    late = torch.cat([stream.batch(number)["number"] for number in range(100, 150)])
    assert sorted(late.tolist()) == list(range(1000))  # then it is an ordinary stream
    again = next(stream.batches(57))["number"]
    assert torch.equal(again, stream.batch(57)["number"])  # of the seed and the number alone


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"difficulty": torch.ones(3), "length": 5}, "difficulty: 3 numbers for 8 examples"),
        ({"difficulty": torch.ones(8), "length": 0}, "length=0, start=0.1: expected at least 1"),
        ({"difficulty": torch.ones(8), "length": 5, "start": 0.0}, r"length=5, start=0\.0: expected at least 1, and a number"),
    ],
)
def test_a_curriculum_that_makes_no_sense_is_refused(options, error):
    with pytest.raises(ValueError, match=error):
        Curriculum(numbered(8, 2), **options)


def test_batches_grow_and_a_pass_still_holds_each_example_once():
    torch.manual_seed(0)
    stream = GrowingBatches(numbered(100, 10), first=2, length=20)
    batches = [stream.batch(number)["number"] for number in range(40)]
    assert [len(batch) for batch in batches] == [round(2 + 8 * k / 20) for k in range(20)] + [10] * 20
    together = torch.cat(batches).tolist()
    assert sorted(together[:100]) == sorted(together[100:200]) == list(range(100))
    assert together[:100] != together[100:200]
    assert torch.equal(next(stream.batches(23))["number"], batches[23])  # of the seed and the number alone


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"first": 0, "length": 5}, "first=0: expected 1 to 4, the stream's batch_size"),
        ({"first": 5, "length": 5}, "first=5: expected 1 to 4"),
        ({"first": 1, "length": 0}, "length=0: expected at least 1"),
    ],
)
def test_batches_that_cannot_grow_so_are_refused(options, error):
    with pytest.raises(ValueError, match=error):
        GrowingBatches(numbered(8, 4), **options)


def test_examples_are_padded_to_the_longest_of_their_batch():
    rows = [torch.arange(1, n + 1) for n in (2, 5, 3)]
    stream = Padded({"tokens": rows, "segment": [row * 0 + 1 for row in rows]}, {"label": torch.arange(3)}, 2, padding=9)
    first, second = stream
    assert first["tokens"].tolist() == [[1, 2, 9, 9, 9], [1, 2, 3, 4, 5]]
    assert first["mask"].tolist() == [[True, True, False, False, False], [True] * 5]
    assert first["segment"].tolist() == [[1, 1, 0, 0, 0], [1] * 5]
    assert (first["label"].tolist(), second["label"].tolist()) == ([0, 1], [2])


def test_a_batch_is_padded_and_masked_and_a_shuffled_pass_holds_each_once():
    tokens = [torch.full((1 + number % 7,), number + 4) for number in range(50)]
    stream = Padded({"tokens": tokens}, {"label": torch.arange(50) % 3}, 8, shuffle=True)
    seen, padding = [], 0
    for batch in stream:
        number = batch["tokens"][:, 0] - 4
        assert torch.equal(batch["mask"].sum(1), 1 + number % 7)
        assert torch.equal(batch["label"], number % 3)
        assert torch.equal(batch["mask"], batch["tokens"] != 0)
        seen += number.tolist()
        padding += int((~batch["mask"]).sum())
    assert sorted(seen) == list(range(50))
    assert padding < 60  # of 250
    with pytest.raises(ValueError, match=r"'tokens': 50, 'label': 1"):
        Padded({"tokens": tokens}, {"label": torch.zeros(1)}, 8)

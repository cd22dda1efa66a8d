"""Streams of batches from tensors in memory: batch k is a pure function of the seed and k.

So a run resumes at any batch without having kept anything, and the order does not depend on who looked on.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, count
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn.utils.rnn import pad_sequence

from thalweg.vocabulary import Batch

Augment = Callable[[Batch, Generator], Batch]


def generator(*numbers: int) -> Generator:
    """A random generator that is a function of the numbers."""
    seed = 0
    for number in numbers:
        seed = (seed * 6364136223846793005 + number + 1442695040888963407) % 2**63
    return Generator().manual_seed(seed)


class Stream:
    """Batches of examples, by their indices; `fetch` makes a batch of indices.

    Iterated, it gives one pass; `batches(start)` goes on without end from batch number `start`. A pass holds each
    example once, in batches of nearly equal size, none above batch_size. The seed is torch's own, which the runner sets.
    ValueError for a size or batch_size below 1.
    """

    def __init__(self, size: int, batch_size: int, *, shuffle: bool, augment: Sequence[Augment] = ()):
        if size < 1:
            raise ValueError(f"size={size}: a stream needs at least one example")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected at least 1")
        self.size, self.batch_size, self.shuffle, self.augment = size, batch_size, shuffle, tuple(augment)
        self.seed = torch.initial_seed() % 2**63
        self._order = -1, torch.empty(0, dtype=torch.long)  # of the pass last asked for
        self._batches: tuple[int, tuple[Tensor, ...]] = (-1, ())  # all at once: cut one by one they hold up the training

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """The examples in the order in which a pass takes them."""
        if self._order[0] != epoch:
            order = torch.arange(self.size)
            if self.shuffle:
                order = torch.randperm(self.size, generator=generator(self.seed, epoch))
            self._order = epoch, order
        return self._order[1]

    def indices(self, number: int) -> Tensor:
        """The examples of batch `number`."""
        epoch, position = divmod(number, len(self))
        if self._batches[0] != epoch:
            self._batches = epoch, self.order(epoch).tensor_split(len(self))
        return self._batches[1][position]

    def fetch(self, indices: Tensor) -> Batch:
        """The examples of these indices, before augmentation."""
        raise NotImplementedError

    def batch(self, number: int) -> Batch:
        return self.augmented(self.fetch(self.indices(number)), number)

    def augmented(self, batch: Batch, number: int) -> Batch:
        if self.augment:
            random = generator(self.seed, number, 1)
            for change in self.augment:
                batch = change(batch, random)
        return batch

    def produce(self, numbers: Iterable[int]) -> Iterator[Batch]:
        """The batches of these numbers, in their order."""
        return map(self.batch, numbers)

    def batches(self, start: int = 0) -> Iterator[Batch]:
        return self.produce(count(start))

    def __iter__(self) -> Iterator[Batch]:
        return self.produce(range(len(self)))


class TensorStream(Stream):
    """Batches of tensors that lie in memory.   {"image": [n c h w], "label": [n]} -> the same for a batch"""

    def __init__(self, tensors: Batch, batch_size: int, *, shuffle: bool = False, augment: Sequence[Augment] = ()):
        sizes = {name: len(tensor) for name, tensor in tensors.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"tensors: expected the same number of examples in each, got {sizes}")
        super().__init__(next(iter(sizes.values())), batch_size, shuffle=shuffle, augment=augment)
        self.tensors = tensors

    def fetch(self, indices: Tensor) -> Batch:
        return take(self.tensors, indices)


class ByLength(Stream):
    """Examples of different lengths: a shuffled pass puts those of like length into a batch, so that little is padding.

    length: [example].   The batches come in random order.
    """

    def __init__(self, length: Tensor, batch_size: int, *, shuffle: bool = False):
        super().__init__(len(length), batch_size, shuffle=shuffle)
        self.length = length

    def order(self, epoch: int) -> Tensor:
        if self.shuffle and self._order[0] != epoch:
            near = self.length + 2 * torch.rand(self.size, generator=generator(self.seed, epoch))
            self._order = epoch, near.argsort()
        return super().order(epoch)

    def indices(self, number: int) -> Tensor:
        if self.shuffle:
            epoch, place = divmod(number, len(self))
            shuffled = torch.randperm(len(self), generator=generator(self.seed, epoch, 3))
            number = epoch * len(self) + int(shuffled[place])
        return super().indices(number)


def padded(ragged: Mapping[str, Sequence[Tensor]], padding: int = 0) -> Batch:
    """Examples of different lengths as one tensor a name, [batch time ...], padded to the longest with 0, `padding` for tokens.

    ragged: tensors [time ...] by name; beside `tokens` comes `mask`, beside `first_tokens` `first_mask`: True where it is real.
    """
    batch: Batch = {}
    for name, rows in ragged.items():
        tokens = name.endswith("tokens")
        batch[name] = pad_sequence([*rows], batch_first=True, padding_value=padding if tokens else 0)
        if tokens:
            length = torch.tensor([len(row) for row in rows])
            batch[name.removesuffix("tokens") + "mask"] = torch.arange(batch[name].shape[1]) < length[:, None]
    return batch


class Padded(ByLength):
    """Batches of examples of different lengths, each as long as its longest.

    ragged, padding: see `padded`.   fixed: tensors [example ...] that come along.
    ValueError unless there are as many examples of each.
    """

    def __init__(
        self,
        ragged: Mapping[str, Sequence[Tensor]],
        fixed: Batch,
        batch_size: int,
        *,
        padding: int = 0,
        shuffle: bool = False,
    ):
        sizes = {name: len(column) for name, column in (*ragged.items(), *fixed.items())}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"ragged, fixed: expected the same number of examples in each, got {sizes}")
        self.ragged, self.fixed, self.padding = ragged, fixed, padding
        lengths = [torch.tensor([len(one) for one in column]) for name, column in ragged.items() if name.endswith("tokens")]
        super().__init__(torch.stack(lengths).sum(0), batch_size, shuffle=shuffle)

    def fetch(self, indices: Tensor) -> Batch:
        chosen = indices.tolist()
        rows = {name: [column[index] for index in chosen] for name, column in self.ragged.items()}
        return take(self.fixed, indices) | padded(rows, self.padding)


class Part(Stream):
    """Some of the examples of a stream, by their indices; seen as that stream fetches them."""

    def __init__(
        self, whole: Stream, chosen: Tensor, batch_size: int, *, shuffle: bool = False, augment: Sequence[Augment] = ()
    ):
        super().__init__(len(chosen), batch_size, shuffle=shuffle, augment=augment)
        self.whole, self.chosen = whole, chosen

    def fetch(self, indices: Tensor) -> Batch:
        return self.whole.fetch(self.chosen[indices])


class Curriculum(Stream):
    """The easy examples of a stream first, then harder ones too: batch k is drawn from the easiest share of them.

    share(k) = min(1, sqrt(start^2 + (1 - start^2) k / length)); from `length` on the stream is an ordinary one.
    difficulty: [example], such as the loss of a small model, the noise in a recording, the length of a sentence.
    0 < start <= 1.   Bengio et al. 2009; the share of Platanias et al. 2019, arXiv:1903.09848.
    """

    def __init__(self, whole: Stream, difficulty: Tensor, *, length: int, start: float = 0.1):
        super().__init__(whole.size, whole.batch_size, shuffle=True, augment=whole.augment)
        if len(difficulty) != whole.size:
            raise ValueError(f"difficulty: {len(difficulty)} numbers for {whole.size} examples")
        if length < 1 or not 0 < start <= 1:
            raise ValueError(f"length={length}, start={start}: expected at least 1, and a number above 0 and up to 1")
        self.whole, self.length, self.start = whole, length, start
        self.easiest = difficulty.argsort(stable=True)

    def indices(self, number: int) -> Tensor:
        if number >= self.length:
            return super().indices(number)
        share = (self.start**2 + (1 - self.start**2) * number / self.length) ** 0.5
        known = min(self.size, max(self.batch_size, round(share * self.size)))
        return self.easiest[torch.randperm(known, generator=generator(self.seed, number, 2))[: self.batch_size]]

    def fetch(self, indices: Tensor) -> Batch:
        return self.whole.fetch(indices)


class FirstOf(Stream):
    """From the first n examples, for each of several n, a batch of its own: what more data are worth, all n side by side.

    tensors: {"image": [example ...]} -> {"image": [size batch ...]}, drawn at random, with replacement.
    ValueError if there are not so many examples.
    """

    def __init__(self, tensors: Batch, sizes: Sequence[int], batch_size: int):
        super().__init__(max(sizes, default=0), batch_size, shuffle=True)
        self.tensors, self.sizes = tensors, tuple(sizes)
        if short := {name: len(tensor) for name, tensor in tensors.items() if len(tensor) < self.size}:
            raise ValueError(f"sizes={sizes}: there are {short} examples")

    def batch(self, number: int) -> Batch:
        drawn = [torch.randint(size, (self.batch_size,), generator=generator(self.seed, number, size)) for size in self.sizes]
        batch = take(self.tensors, torch.cat(drawn))
        return {name: tensor.unflatten(0, (len(self.sizes), -1)) for name, tensor in batch.items()}


class GrowingBatches(Stream):
    """The examples of a stream in batches that grow: noise shrinks as a falling learning rate shrinks it, in fewer steps.

    Batch k holds round(first + (batch_size - first) k / length) examples, from `length` on batch_size; it goes on where
    batch k - 1 ended, so that a pass still holds each example once. Its len counts batches of the final size.
    first: at least 1 and at most the stream's batch_size.   Smith, Kindermans, Ying, Le 2017, arXiv:1711.00489.
    """

    def __init__(self, whole: Stream, *, first: int, length: int):
        super().__init__(whole.size, whole.batch_size, shuffle=True, augment=whole.augment)
        if not 1 <= first <= whole.batch_size:
            raise ValueError(f"first={first}: expected 1 to {whole.batch_size}, the stream's batch_size")
        if length < 1:
            raise ValueError(f"length={length}: expected at least 1")
        self.whole = whole
        sizes = [round(first + (self.batch_size - first) * number / length) for number in range(length)]
        self.starts = list(accumulate(sizes, initial=0))

    def indices(self, number: int) -> Tensor:
        start, end = (self._start(n) for n in (number, number + 1))
        return torch.cat([self.order(epoch)[max(start - epoch * self.size, 0) : end - epoch * self.size]
                          for epoch in range(start // self.size, (end - 1) // self.size + 1)])  # fmt: skip

    def _start(self, number: int) -> int:
        """How many examples the batches before this one held."""
        beyond = max(number - len(self.starts) + 1, 0)
        return self.starts[number - beyond] + beyond * self.batch_size

    def fetch(self, indices: Tensor) -> Batch:
        return self.whole.fetch(indices)


@dataclass(frozen=True)
class Splits:
    """Training, validation and test data (tensors, or streams of them), and names: of the classes, or of a table's columns."""

    train: Any
    valid: Any
    test: Any
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()

    def streams(self, batch_size: int, *, augment: Sequence[Augment] = ()) -> "Splits":
        """Streams: the training data shuffled and augmented, the others in order and as they are."""
        return replace(
            self,
            train=TensorStream(self.train, batch_size, shuffle=True, augment=augment),
            valid=TensorStream(self.valid, 500),
            test=TensorStream(self.test, 500),
        )


def stratified(label: Tensor, fraction: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Indices of a part and of the rest, the part holding `fraction` of every class; fixed by the seed.

    A class of at least two examples is in both.   label: [n].   0 < fraction < 1.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction={fraction}: expected a number between 0 and 1")
    part, rest = [], []
    for number, value in enumerate(label.unique().tolist()):
        members = (label == value).nonzero().squeeze(1)
        members = members[torch.randperm(len(members), generator=generator(seed, number))]
        cut = min(max(round(fraction * len(members)), 1), len(members) - 1) if len(members) > 1 else 0
        part.append(members[:cut])
        rest.append(members[cut:])
    return torch.cat(part).sort().values, torch.cat(rest).sort().values


def take(tensors: Batch, indices: Tensor) -> Batch:
    """The examples of these indices."""
    # index_select copies whole rows, tensor[indices] single bytes: 15 times slower on small images
    return {name: tensor.index_select(0, indices) for name, tensor in tensors.items()}


def of_classes(tensors: Batch, classes: Sequence[int]) -> Batch:
    """The examples whose label is one of the classes."""
    return take(tensors, torch.isin(tensors["label"], torch.tensor(classes)).nonzero().squeeze(1))

"""Made tasks that need a memory: what was shown must be said later."""

import torch

from thalweg.data.streams import Stream, generator
from thalweg.vocabulary import Batch


def copies(count: int, least: int, most: int, bits: int, seed: int) -> Batch:
    """So many sequences of `least` to `most` random vectors of bits, which are to be repeated when a signal comes.

    series [count 2 most+1 bits+1]: the vectors, the signal in the last feature, then zeros; target [count 2 most+1 bits] and
    mask [count 2 most+1], True where a vector is to be repeated.   ValueError for 0 or for least above most.
    Graves, Wayne, Danihelka 2014, arXiv:1410.5401.
    """
    if not 1 <= least <= most:
        raise ValueError(f"least={least}, most={most}: expected at least 1, and no more than the most")
    draw = generator(seed)
    shown = torch.randint(2, (count, most, bits), generator=draw).float()
    length = torch.randint(least, most + 1, (count, 1), generator=draw)
    place = torch.arange(2 * most + 1)
    series = torch.zeros(count, 2 * most + 1, bits + 1)
    series[:, :most, :bits] = shown * (place[:most] < length)[..., None]
    series[:, :, bits] = (place == length).float()
    mask = (place > length) & (place <= 2 * length)
    source = (place - length - 1).clamp(0, most - 1)
    target = shown.take_along_dim(source[..., None], 1) * mask[..., None]
    return {"series": series, "target": target, "mask": mask}


class Copies(Stream):
    """Batches of `copies`, in each batch all of one length, so that nothing is padding.   size: examples of a pass"""

    def __init__(self, size: int, least: int, most: int, bits: int, batch_size: int):
        super().__init__(size, batch_size, shuffle=True)
        self.least, self.most, self.bits = least, most, bits

    def batch(self, number: int) -> Batch:
        draw = generator(self.seed, number)
        length = int(torch.randint(self.least, self.most + 1, (), generator=draw))
        seed = int(torch.randint(2**31, (), generator=draw))
        return copies(len(self.indices(number)), length, length, self.bits, seed)


def symbols(count: int, time: int, kinds: int, seed: int) -> Batch:
    """So many texts of random symbols, about which nothing can be known but by having read them.   tokens [count time]"""
    return {"tokens": torch.randint(kinds, (count, time), generator=generator(seed))}


def marked_sums(count: int, time: int, seed: int) -> Batch:
    """So many sequences of random numbers in [0, 1), of which one in each half is marked; the target is their sum.

    features [count time 2]: number, mark; target [count 1].   ValueError for time < 2.
    The adding problem of Hochreiter, Schmidhuber 1997, "Long short-term memory", as in Le et al. 2015, arXiv:1504.00941.
    """
    if time < 2:
        raise ValueError(f"time={time}: expected at least 2")
    draw, half = generator(seed), time // 2
    number, mark = torch.rand(count, time, generator=draw), torch.zeros(count, time)
    for start, end in ((0, half), (half, time)):
        mark.scatter_(1, torch.randint(start, end, (count, 1), generator=draw), 1.0)
    return {"features": torch.stack([number, mark], -1), "target": (number * mark).sum(1, keepdim=True)}

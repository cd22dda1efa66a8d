"""Clips: pictures of which the one before tells what the next one means; of different lengths, in batches with a mask."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from thalweg.data.sources import digits
from thalweg.data.streams import ByLength, Splits, generator
from thalweg.vocabulary import Batch

MOTIONS = ("still", "left", "right", "up", "down", "to and fro", "up and down")
TURN = 4  # pictures until what goes to and fro is back


class Clips(ByLength):
    """Batches of clips, each as long as its longest.   frames: of each [time channel height width], uint8; label: [clip]

    frames: [batch time channel height width], 0 behind the end of a clip.   mask: [batch time], True where there is a picture.
    """

    def __init__(self, frames: Sequence[Tensor], label: Tensor, batch_size: int, *, shuffle: bool = False):
        if len(frames) != len(label):
            raise ValueError(f"label: {len(label)} for {len(frames)} clips")
        super().__init__(torch.tensor([len(clip) for clip in frames]), batch_size, shuffle=shuffle)
        self.frames, self.label = frames, label

    def fetch(self, indices: Tensor) -> Batch:
        length = self.length[indices]
        longest = int(length.max())
        clips = [pad(self.frames[index], (*[0] * 6, 0, longest - len(self.frames[index]))) for index in indices.tolist()]
        return {"frames": torch.stack(clips), "mask": torch.arange(longest) < length[:, None], "label": self.label[indices]}


def moved(image: Tensor, motion: int, speed: int, length: int) -> Tensor:
    """A clip of an image that moves so many pixels a picture; what leaves on one side comes in on the other.

    image: [channel height width] -> [length channel height width]; motion: its place in MOTIONS.
    """
    name, steps = MOTIONS[motion], []
    for t in range(length):
        back = TURN // 2 - abs(t % TURN - TURN // 2)  # 0 1 2 1 0 ...
        rows, columns = {"left": (0, -t), "right": (0, t), "up": (-t, 0), "down": (t, 0), "to and fro": (0, back),
                         "up and down": (back, 0)}.get(name, (0, 0))  # fmt: skip
        steps.append(image.roll((speed * rows, speed * columns), (1, 2)))
    return torch.stack(steps)


def moving_digits(
    images: Tensor, count: int, seed: int, *, size: int = 20, least: int = 5, most: int = 12
) -> tuple[list[Tensor], Tensor]:
    """Clips of handwritten digits on grain, which move in one of MOTIONS, and the place of each in them.

    Everywhere at any time is equally probable in every motion, so that a picture by itself says nothing of it.
    images: uint8 [image 1 height width].   size: side of a picture.   least, most: pictures of a clip.
    """
    random = generator(seed)

    def drawn(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=random))

    clips, label = [], torch.randint(len(MOTIONS), (count,), generator=random)
    for motion in label.tolist():
        image = images[drawn(0, len(images))]
        canvas = pad(image, (0, size - image.shape[2], 0, size - image.shape[1]))
        canvas = canvas.roll((drawn(0, size), drawn(0, size)), (1, 2))
        clip = moved(canvas, motion, drawn(1, 3), drawn(least, most + 1))
        grain = torch.randint(0, 40, clip.shape, generator=random, dtype=torch.uint8)
        clips.append(torch.maximum(clip, grain))
    return clips, label


def motions(count: int = 3000, batch_size: int = 64) -> Splits:
    """Streams of `count` clips of moving digits to train on, and a fifth as many, of other digits, for each of the others."""
    parts = digits()
    train, valid, test = (
        Clips(*moving_digits(part["image"], number, seed), batch_size, shuffle=seed == 0)
        for seed, (part, number) in enumerate(
            zip((parts.train, parts.valid, parts.test), (count, count // 5, count // 5), strict=True)
        )
    )
    return Splits(train, valid, test, MOTIONS)

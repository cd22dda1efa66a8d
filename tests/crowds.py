"""Detections that miss, double, confuse and lie a little beside: numbers of a hash, so equal on every machine."""

import torch
from parity import noise
from torch import Tensor


def crowd(image: int, classes: int = 3) -> dict[str, Tensor]:
    """Boxes and labels that are true of an image, and those found on it with their scores; some scores are equal."""
    n = 6 + image % 5

    def numbers(name: str, *shape: int) -> Tensor:
        """In [0, 1)."""
        return (noise(f"{name}{image}", torch.Size(shape).numel()) / 12**0.5 + 0.5).reshape(shape)

    corner, side = numbers("corner", n, 2) * 80, 8 + numbers("side", n, 2) * 30
    boxes, label = torch.cat([corner, corner + side], 1), (numbers("label", n) * classes).long()
    times = 1 + image % 3
    found = boxes.repeat(times, 1) + (numbers("found", n * times, 4) - 0.5) * 12 * numbers("much", n * times, 1)
    guess = torch.where(numbers("confused", n * times) < 0.85, label.repeat(times), 0)
    return {"boxes": boxes, "label": label, "found": found, "found_label": guess,
            "score": (numbers("score", n * times) * 50).round() / 50}  # fmt: skip

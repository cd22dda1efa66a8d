"""What an image model must see belongs to the model: size, channels, scale, mean and deviation are its first layer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate


class Standardized(nn.Module):
    """An image model that takes images as they come: any size, one or three channels, uint8 or float in [0, 1].

    y = model((resize(x) - mean) / deviation), x in [0, 1]; grey is the luminance 0.299 R + 0.587 G + 0.114 B.
    image: [batch channel height width].   mean, deviation: one number a channel of the model.   size: [height width].
    crop: the share of its middle that is seen, in the shape of size; None for the whole image, drawn into that shape.
    ValueError for numbers that are no moments or no extents, and for images that are no batch of such channels.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        model: nn.Module,
        mean: Sequence[float],
        deviation: Sequence[float],
        size: Sequence[int],
        crop: float | None = None,
    ):
        super().__init__()
        if len(mean) != len(deviation) or min(deviation, default=0.0) <= 0:
            raise ValueError(f"mean={mean}, deviation={deviation}: expected as many numbers in each, deviations above zero")
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"size={size}: expected height and width")
        if crop is not None and not 0 < crop <= 1:
            raise ValueError(f"crop={crop}: expected a share above 0 and up to 1")
        self.model, self.size, self.channels, self.crop = model, tuple(size), len(mean), crop
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(-1, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation, dtype=torch.float32).reshape(-1, 1, 1))

    def standardize(self, image: Tensor) -> Tensor:
        """The image as the model sees it."""
        if image.ndim != 4:
            raise ValueError(f"image: {tuple(image.shape)}, expected [batch channel height width]")
        scale = 255.0 if image.dtype == torch.uint8 else 1.0
        if self.crop is not None:
            image = self._middle(image, self.crop)
        if image.shape[-2:] != self.size:  # bytes stay bytes: a photograph as floats would take gigabytes
            image = interpolate(image, self.size, mode="bilinear", antialias=True)
        if image.shape[1] != len(self.mean):
            image = self._channels(image.float())
        return (image - self.mean * scale) / (self.deviation * scale)

    def _middle(self, image: Tensor, share: float) -> Tensor:
        extents = image.shape[-2:]
        scale = share * min(extent / side for extent, side in zip(extents, self.size, strict=True))
        height, width = (max(1, round(side * scale)) for side in self.size)
        top, left = (extents[0] - height) // 2, (extents[1] - width) // 2
        return image[..., top : top + height, left : left + width]

    def _channels(self, image: Tensor) -> Tensor:
        if len(self.mean) == 1 and image.shape[1] == 3:
            return torch.einsum("bchw,c->bhw", image, image.new_tensor([0.299, 0.587, 0.114]))[:, None]
        if len(self.mean) == 3 and image.shape[1] == 1:
            return image.expand(-1, 3, -1, -1)
        raise ValueError(f"image: {image.shape[1]} channels, the model sees {len(self.mean)}")

    def features(self, image: Tensor) -> list[Tensor]:
        """The maps of the model, where it is a backbone."""
        return self.model.features(self.standardize(image))  # type: ignore[operator]

    def forward(self, image: Tensor) -> Any:  # what the model gives
        return self.model(self.standardize(image))


def standardize(model: nn.Module, *, mean: Sequence[float], deviation: Sequence[float], size: Sequence[int],
                crop: float | None = None) -> nn.Module:  # fmt: skip
    """The model behind a first layer that scales, see Standardized."""
    return Standardized(model, mean, deviation, size, crop)


def moments(image: Tensor) -> dict[str, list[float]]:
    """Mean and deviation a channel of (at most 10,000 of the) uint8 images, on the scale [0, 1], to hand to `standardize`."""
    sample = image[:: max(1, len(image) // 10_000)]
    first, second = torch.zeros(2, image.shape[1], dtype=torch.float64)
    for part in sample.split(256):
        values = part.transpose(0, 1).flatten(1).double() / 255  # [channel pixel]
        first += values.sum(1)
        second += values.square().sum(1)
    count = sample.numel() / image.shape[1]
    mean = first / count
    deviation = (second / count - mean.square()).clamp(min=1e-6).sqrt()  # at least 0.001
    return {"mean": mean.tolist(), "deviation": deviation.tolist()}

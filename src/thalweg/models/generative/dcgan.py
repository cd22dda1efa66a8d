"""DCGAN: a generator paints images from noise, a discriminator tells them from real ones, both all of convolutions.

Strides and transposed convolutions instead of pooling, batch normalisation everywhere but where images enter and leave,
rectifiers in the generator, leaky ones in the discriminator, weights drawn from N(0, 0.02^2).
Radford, Metz, Chintala 2015, arXiv:1511.06434.   LBDL 6.9.3
"""

import torch
from torch import Tensor, nn


def _extents(image_size: int) -> list[int]:
    """The extents from the smallest map up to the image: 4 8 16 32, or 7 14 28."""
    extents = [image_size]
    while extents[0] >= 8 and extents[0] % 2 == 0:
        extents.insert(0, extents[0] // 2)
    if len(extents) < 2 or extents[0] > 7:
        raise ValueError(f"image_size={image_size}: expected a number that halves to one from 4 to 7, such as 28, 32 or 64")
    return extents


def _drawn(module: nn.Module) -> None:
    """The weights of the paper."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
    if isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


class DCGANGenerator(nn.Module):
    """Latent vector to image: a small map of many channels that doubles its extent and halves its channels a stage.

    latent [batch latent_dim], standard normal -> image [batch out_channels size size] in (0, 1).
    width: channels of the last map before the image.   image_size: such as 28, 32 or 64.
    """

    def __init__(self, image_size: int = 64, out_channels: int = 3, latent_dim: int = 100, width: int = 64):
        super().__init__()
        extents = _extents(image_size)
        self.latent_dim = latent_dim
        channels = width << (len(extents) - 2)
        first = nn.ConvTranspose2d(latent_dim, channels, extents[0], bias=False)  # of a 1x1 map: a dense layer
        self.stem = nn.Sequential(first, nn.BatchNorm2d(channels), nn.ReLU())
        self.stages = nn.ModuleList()
        for _ in extents[1:-1]:
            doubled = nn.ConvTranspose2d(channels, channels // 2, 4, 2, 1, bias=False)
            channels //= 2
            self.stages.append(nn.Sequential(doubled, nn.BatchNorm2d(channels), nn.ReLU()))
        self.head = nn.ConvTranspose2d(channels, out_channels, 4, 2, 1)
        self.apply(_drawn)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.stem(latent[:, :, None, None])
        for stage in self.stages:
            x = stage(x)
        return torch.sigmoid(2 * self.head(x))  # the paper's tanh, from [-1, 1] to [0, 1]


class DCGANDiscriminator(nn.Module):
    """Image to logit of being real: the generator's stages the other way round.

    image [batch in_channels size size] on the scale [-1, 1] (see Standardized) -> [batch 1].
    width: channels of the first map.
    """

    def __init__(self, image_size: int = 64, in_channels: int = 3, width: int = 64):
        super().__init__()
        extents = _extents(image_size)
        self.stem = nn.Sequential(nn.Conv2d(in_channels, width, 4, 2, 1), nn.LeakyReLU(0.2))
        self.stages, channels = nn.ModuleList(), width
        for _ in extents[1:-1]:
            halved = nn.Conv2d(channels, 2 * channels, 4, 2, 1, bias=False)
            channels *= 2
            self.stages.append(nn.Sequential(halved, nn.BatchNorm2d(channels), nn.LeakyReLU(0.2)))
        self.head = nn.Conv2d(channels, 1, extents[0])
        self.apply(_drawn)

    def features(self, image: Tensor) -> list[Tensor]:  # a map a stage, each at half the extent of the one before
        maps = [self.stem(image)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image)[-1]).flatten(1)


def dcgan_generator(**arguments) -> DCGANGenerator:
    """The generator, by default for 64x64 colour images."""
    return DCGANGenerator(**arguments)


def dcgan_discriminator(**arguments) -> DCGANDiscriminator:
    """The discriminator, by default for 64x64 colour images."""
    return DCGANDiscriminator(**arguments)

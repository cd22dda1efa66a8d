"""DCGAN: both networks against loops over pixels, their sizes, what they refuse."""

import pytest
import torch

from thalweg.models.generative.dcgan import dcgan_discriminator, dcgan_generator


def doubled(x, weight, bias=None):
    """A transposed convolution, 4x4, stride 2, padding 1: each pixel paints a weighted patch, patches overlap."""
    batch, _, height, width = x.shape
    canvas = x.new_zeros(batch, weight.shape[1], 2 * height + 2, 2 * width + 2)
    for i in range(height):
        for j in range(width):
            canvas[:, :, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += torch.einsum("bc,cdkl->bdkl", x[:, :, i, j], weight)
    painted = canvas[:, :, 1:-1, 1:-1]
    return painted if bias is None else painted + bias[:, None, None]


def halved(x, weight, bias=None):
    """A convolution, 4x4, stride 2, padding 1: each pixel sums a weighted patch."""
    batch, channels, height, width = x.shape
    padded = x.new_zeros(batch, channels, height + 2, width + 2)
    padded[:, :, 1:-1, 1:-1] = x
    rows = [
        [torch.einsum("bckl,dckl->bd", padded[:, :, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4], weight) for j in range(width // 2)]
        for i in range(height // 2)
    ]
    summed = torch.stack([torch.stack(row, -1) for row in rows], -2)
    return summed if bias is None else summed + bias[:, None, None]


def normed(x, norm):
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    return norm.weight[:, None, None] * (x - mean) / (variance + norm.eps).sqrt() + norm.bias[:, None, None]


def leaky(x):
    return torch.where(x > 0, x, 0.2 * x)


def same_with_gradients(network, naive, x):
    """Values and gradients of both, to 1e-10."""
    weights = [x, *network.parameters()]
    found, expected = network(x), naive(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    direction = torch.randn_like(found)
    for ours, theirs in zip(
        torch.autograd.grad(found, weights, direction), torch.autograd.grad(expected, weights, direction), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def roughened(network):
    """Weights of order one, so that every term counts."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0.5 if parameter.ndim == 1 else 0.0, 0.5)
    return network.double()


def test_the_generator_is_its_definition():
    generator = roughened(dcgan_generator(image_size=16, out_channels=2, latent_dim=5, width=3))

    def naive(latent):
        first, norm, _ = generator.stem
        x = torch.einsum("bl,lckm->bckm", latent, first.weight)
        x = normed(x, norm).clamp(min=0)
        convolution, norm, _ = generator.stages[0]
        x = normed(doubled(x, convolution.weight), norm).clamp(min=0)
        x = doubled(x, generator.head.weight, generator.head.bias)
        return (torch.tanh(x) + 1) / 2

    same_with_gradients(generator, naive, torch.randn(3, 5, dtype=torch.float64, requires_grad=True))


def test_the_discriminator_is_its_definition():
    discriminator = roughened(dcgan_discriminator(image_size=16, in_channels=2, width=3))

    def naive(image):
        x = leaky(halved(image, discriminator.stem[0].weight, discriminator.stem[0].bias))
        convolution, norm, _ = discriminator.stages[0]
        x = leaky(normed(halved(x, convolution.weight), norm))
        head = discriminator.head
        return torch.einsum("bckl,dckl->bd", x, head.weight) + head.bias

    same_with_gradients(discriminator, naive, torch.randn(3, 2, 16, 16, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize(("size", "stages"), [(8, 0), (14, 0), (28, 1), (32, 2), (64, 3)])
def test_images_of_each_size_are_made_and_judged(size, stages):
    generator = dcgan_generator(image_size=size, out_channels=1, latent_dim=7, width=4)
    discriminator = dcgan_discriminator(image_size=size, in_channels=1, width=4)
    image = generator(torch.randn(2, 7))
    assert image.shape == (2, 1, size, size)
    assert 0 < image.min() < image.max() < 1
    assert discriminator(image).shape == (2, 1)
    assert len(generator.stages) == len(discriminator.stages) == stages
    assert [m.shape[-1] for m in discriminator.features(image)] == [size >> k for k in range(1, stages + 2)]


def test_the_default_sizes_are_those_known_of_the_64x64_network():
    """3,576,704 and 2,765,568 weights are counted elsewhere without the biases where no norm follows."""
    with torch.device("meta"):
        generator, discriminator = dcgan_generator(), dcgan_discriminator()
    assert sum(p.numel() for p in generator.parameters()) == 3_576_704 + 3
    assert sum(p.numel() for p in discriminator.parameters()) == 2_765_568 + 64 + 1


def test_weights_start_as_in_the_paper():
    generator = dcgan_generator()
    assert generator.stages[0][0].weight.std().item() == pytest.approx(0.02, rel=0.01)
    assert generator.stages[0][1].weight.mean().item() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("size", [4, 7, 30, 100, 0])
@pytest.mark.parametrize("builder", [dcgan_generator, dcgan_discriminator])
def test_a_size_that_cannot_be_halved_is_refused_by_name(builder, size):
    with pytest.raises(ValueError, match=f"image_size={size}: expected"):
        builder(image_size=size)

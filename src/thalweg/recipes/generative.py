"""Recipes that make: noise in, images out."""

from thalweg.build import adapt, build
from thalweg.data.sources import fashion_mnist
from thalweg.layers.standardize import standardize
from thalweg.models.generative.dcgan import dcgan_discriminator, dcgan_generator
from thalweg.tasks.adversarial import Adversarial
from thalweg.training import Experiment
from thalweg.training.optimisers import adam
from thalweg.training.schedules import hold, linear


def dcgan_fashion_mnist(*, epochs: int = 16, batch_size: int = 64, lr: float = 5e-4, width: int = 64) -> Experiment:
    """DCGAN paints clothes that a discriminator takes for real.   LBDL 6.9.3, D2L 1.2"""
    splits = fashion_mnist()
    size = splits.train["image"].shape[-1]
    generator = build(dcgan_generator, image_size=size, out_channels=1, width=width)
    judge = build(dcgan_discriminator, image_size=size, in_channels=1, width=width)
    discriminator = adapt(judge, standardize, mean=[0.5], deviation=[0.5], size=[size, size])  # to [-1, 1]
    task = build(Adversarial, generator=generator, discriminator=discriminator)
    data = splits.streams(batch_size)
    return Experiment(task=task, train=data.train, valid=data.valid, test=data.test, epochs=epochs,
                      optimizer=adam(lr, betas=(0.5, 0.999)), schedule=hold(0.5, linear()), ema=0.995,
                      monitor="frechet_distance")  # fmt: skip

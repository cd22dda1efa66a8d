"""Recipes that read an image as a set of its pixels or patches."""

from typing import Literal

from thalweg.build import adapt, build
from thalweg.data.sources import digits, fashion_mnist, mnist
from thalweg.data.streams import FirstOf, TensorStream
from thalweg.layers.standardize import moments, standardize
from thalweg.models.vision.map_mixer import MapMixer
from thalweg.models.vision.vit import ViT
from thalweg.tasks.classification import Classification
from thalweg.tasks.data_sizes import DataSizes
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import cosine, warmup


def pixel_attention_digits(*, epochs: int = 60, batch_size: int = 64, embed_dim: int = 64, num_layers: int = 4,
                           num_heads: int = 4, dropout: float = 0.1, lr: float = 2e-3) -> Experiment:  # fmt: skip
    """Every pixel of a digit looks at every other: an image is a set of vectors, one a pixel.   LEE: Self-Attention

    A Vision Transformer with patches of one pixel, which knows nothing of what lies beside what but learned places.
    """
    splits = digits()
    model = build(ViT, embed_dim=embed_dim, num_layers=num_layers, num_heads=num_heads, image_size=8, patch_size=1,
                  in_channels=1, num_classes=10, dropout=dropout, pool="mean")  # fmt: skip
    seen = adapt(model, standardize, **moments(splits.train["image"]), size=[8, 8])
    data = splits.streams(batch_size)
    return Experiment(task=build(Classification, model=seen, classes=splits.classes), train=data.train, valid=data.valid,
                      test=data.test, epochs=epochs, optimizer=adamw(lr, weight_decay=0.05), schedule=warmup(0.1, cosine()),
                      monitor="accuracy")  # fmt: skip


def convolution_or_attention(*, data_set: Literal["fashion-mnist", "mnist"] = "fashion-mnist",
                             sizes: str = "30,100,300,3000,54000", epochs: float = 1.8, batch_size: int = 64,
                             channels: int = 48, num_layers: int = 2, lr: float = 2e-3) -> Experiment:  # fmt: skip
    """With few images convolutions are better; with many, self-attention may be, which could be those.   LEE: Self-Attention

    sizes: numbers of training images, with commas between.   epochs: of the largest; all take as many steps.
    One picture shows the share of the test images named wrongly, by the number of images learned from.
    """
    if not all(size.strip().isdecimal() and int(size) for size in sizes.split(",")):
        raise ValueError(f"sizes={sizes!r}: expected whole numbers above 0 with commas between")
    numbers, splits = [int(size) for size in sizes.split(",")], {"fashion-mnist": fashion_mnist, "mnist": mnist}[data_set]()
    models = {mix: adapt(build(MapMixer, mix=mix, channels=channels, num_layers=num_layers), standardize,
                         **moments(splits.train["image"]), size=[28, 28]) for mix in ("convolution", "attention")}  # fmt: skip
    task = build(DataSizes, **models, sizes=numbers, num_classes=len(splits.classes))
    return Experiment(task=task, train=FirstOf(splits.train, numbers, batch_size), test=TensorStream(splits.test, 500),
                      epochs=epochs, optimizer={f"players.{name}": adamw(lr, weight_decay=0.05) for name in task.players},
                      schedule=warmup(0.1, cosine()), clip=1.0)  # fmt: skip

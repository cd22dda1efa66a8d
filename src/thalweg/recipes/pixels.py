"""Recipes that read an image as a sequence of its pixels."""

from thalweg.build import adapt, build
from thalweg.data.sources import digits
from thalweg.layers.standardize import moments, standardize
from thalweg.models.vision.vit import ViT
from thalweg.tasks.classification import Classification
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

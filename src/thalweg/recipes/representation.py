"""Recipes that learn to see without labels, and that measure what was learned."""

from pathlib import Path

from thalweg.adaptation.heads import probe, without_head
from thalweg.build import adapt, build, load
from thalweg.data.augmentation import colour, erase, flip, resized_crop, rotate, shift
from thalweg.data.sources import fashion_mnist, mnist
from thalweg.data.streams import Splits, of_classes
from thalweg.data.views import side_by_side, two_views
from thalweg.layers.standardize import moments, standardize
from thalweg.models.vision.resnet import ResNet
from thalweg.tasks.classification import Classification
from thalweg.tasks.metric_learning import MetricLearning
from thalweg.tasks.self_supervised import BYOL
from thalweg.training import Experiment
from thalweg.training.optimisers import adam, adamw
from thalweg.training.schedules import cosine, linear, warmup

WIDTH = 64


def _encoder(image, *, width: int = WIDTH, stem: str = "medium"):
    """A residual network of three blocks, up to its features, behind what it must see of these images."""
    model = build(ResNet, depths=[1, 1, 1], in_channels=1, width=width, stem=stem)
    return adapt(adapt(model, without_head), standardize, **moments(image), size=tuple(image.shape[-2:]))


def byol_fashion_mnist(*, epochs: int = 10, batch_size: int = 256, lr: float = 2e-3, decay: float = 0.99) -> Experiment:
    """BYOL learns features of clothes without a label.   LEE GPT"""
    splits = fashion_mnist()
    task = build(BYOL, encoder=_encoder(splits.train["image"]), feature_dim=4 * WIDTH, classes=splits.classes, decay=decay)
    views = two_views(resized_crop(0.6), flip(), colour(0.4, 0.4, 0.0), erase(0.2))
    data = splits.streams(batch_size, augment=[views])
    return Experiment(task=task, train=data.train, valid=data.valid, test=data.test, epochs=epochs,
                      optimizer=adamw(lr, weight_decay=1e-4), schedule=warmup(0.1, cosine()))  # fmt: skip


def linear_probe_fashion_mnist(*, encoder: Path | None = None, epochs: int = 3, lr: float = 3e-3) -> Experiment:
    """A linear classifier reads the features of a BYOL run (encoder: its folder), or of the same network untrained."""
    splits = fashion_mnist()
    features = load(encoder / "model").encoder if encoder else _encoder(splits.train["image"])
    model = adapt(features, probe, feature_dim=4 * WIDTH, num_classes=len(splits.classes))  # type: ignore[arg-type]
    task = build(Classification, model=model, classes=splits.classes)
    data = splits.streams(256)
    return Experiment(task=task, train=data.train, valid=data.valid, test=data.test, epochs=epochs,
                      optimizer=adam(lr), schedule=linear(), monitor="accuracy")  # fmt: skip


def metric_learning_mnist(*, epochs: int = 4, batch_size: int = 256, lr: float = 3e-3, margin: float = 0.2) -> Experiment:
    """A distance between two-digit numbers is learned on 60 of them and told apart by it are 20 never seen.   LBDL 3.1

    Of the other 20 are the validation images: what is chosen by them is not chosen for the tested numbers.
    """
    numbers = side_by_side(mnist())
    learned, chosen, tested = ([n for n in range(100) if (n // 10 + n % 10) % 5 in rest] for rest in ((2, 3, 4), (1,), (0,)))
    splits = Splits(of_classes(numbers.train, learned), of_classes(numbers.valid, chosen), of_classes(numbers.test, tested))
    task = build(
        MetricLearning, encoder=_encoder(splits.train["image"], width=32, stem="large"), classes=numbers.classes, margin=margin
    )
    data = splits.streams(batch_size, augment=[rotate(10, zoom=0.1), shift(2)])
    return Experiment(task=task, train=data.train, valid=data.valid, test=data.test, epochs=epochs,
                      optimizer=adamw(lr, weight_decay=1e-4), schedule=warmup(0.1, cosine()),
                      monitor="verification")  # fmt: skip

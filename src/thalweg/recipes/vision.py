"""Recipes that see: a name in, an experiment out."""

from typing import Literal

from thalweg.build import adapt, build
from thalweg.data.augmentation import colour, cutmix, erase, flip, rotate, scatter, shift
from thalweg.data.sources import cifar10, digits, fashion_mnist, mnist
from thalweg.data.streams import TensorStream, generator
from thalweg.layers.spatial_transformer import look_first
from thalweg.layers.standardize import moments, standardize
from thalweg.models.classical.linear import softmax_regression
from thalweg.models.classical.mlp import mlp
from thalweg.models.vision.airbench import Airbench, whitening
from thalweg.models.vision.lenet import lenet, lenet5
from thalweg.models.vision.resnet import ResNet, resnet9
from thalweg.models.vision.vit import ViT
from thalweg.tasks.classification import Classification, Straightening
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw, muon, sgd
from thalweg.training.schedules import cosine, linear, warmup


def _classifier(model, splits, label_smoothing: float = 0.0) -> Classification:
    """The model behind what it must see of these images, and the task of naming them."""
    image = splits.train["image"]
    model = adapt(model, standardize, **moments(image), size=tuple(image.shape[-2:]))
    return build(Classification, model=model, classes=splits.classes, label_smoothing=label_smoothing)


def softmax_fashion_mnist(*, epochs: int = 10, batch_size: int = 256, lr: float = 0.1) -> Experiment:
    """Softmax regression tells ten kinds of clothes apart by their pixels alone.   D2L 3.6-3.7"""
    splits = fashion_mnist()
    data = splits.streams(batch_size)
    return Experiment(task=_classifier(build(softmax_regression), splits), train=data.train, valid=data.valid, test=data.test,
                      epochs=epochs, optimizer=sgd(lr), monitor="accuracy")  # fmt: skip


def mlp_fashion_mnist(*, epochs: int = 10, batch_size: int = 256, lr: float = 1e-3, hidden_dim: int = 256) -> Experiment:
    """A multi-layer perceptron tells ten kinds of clothes apart.   LBDL 5.1, D2L 4.2-4.3"""
    splits = fashion_mnist()
    data = splits.streams(batch_size)
    task = _classifier(build(mlp, in_features=784, out_features=10, hidden_dims=[hidden_dim], dropout=0.2), splits)
    return Experiment(task=task, train=data.train, valid=data.valid, test=data.test, epochs=epochs,
                      optimizer=adamw(lr), schedule=warmup(0.1, cosine()), monitor="accuracy")  # fmt: skip


def lenet_digits(*, epochs: int = 60, batch_size: int = 64, lr: float = 3e-3) -> Experiment:
    """LeNet reads handwritten digits of 8x8 pixels.   LBDL 5.2, D2L 6.6"""
    splits = digits()
    task = _classifier(build(lenet, image_size=8), splits)
    data = splits.streams(batch_size, augment=[rotate(10, zoom=0.1), shift(1)])
    return Experiment(task=task, train=data.train, valid=data.valid, test=data.test, epochs=epochs,
                      optimizer=adamw(lr, weight_decay=0.05), schedule=warmup(0.1, cosine()), ema=0.99,
                      monitor="loss", evaluate_every=5 * len(data.train))  # fmt: skip


def lenet5_fashion_mnist(*, epochs: int = 12, batch_size: int = 128, lr: float = 2e-3) -> Experiment:
    """LeNet-5 as it was in 1998 tells ten kinds of clothes apart.   LBDL 5.2, D2L 6.6"""
    splits = fashion_mnist()
    task = _classifier(build(lenet5), splits)
    data = splits.streams(batch_size, augment=[flip()])
    return Experiment(task=task, train=data.train, valid=data.valid, test=data.test, epochs=epochs,
                      optimizer=adamw(lr, weight_decay=0.05), schedule=warmup(0.1, cosine()), clip=1.0,
                      monitor="accuracy")  # fmt: skip


def lenet_fashion_mnist(*, epochs: int = 10, batch_size: int = 256, lr: float = 4e-3) -> Experiment:
    """LeNet tells ten kinds of clothes apart.   LBDL 5.2, D2L 6.6"""
    splits = fashion_mnist()
    task = _classifier(build(lenet), splits, label_smoothing=0.05)
    data = splits.streams(batch_size, augment=[flip(), shift(2)])
    return Experiment(task=task, train=data.train, valid=data.valid, test=data.test, epochs=epochs,
                      optimizer=adamw(lr, weight_decay=0.05), schedule=warmup(0.1, linear()), ema=0.998,
                      monitor="accuracy")  # fmt: skip


def lenet_mnist(*, epochs: int = 6, batch_size: int = 256, lr: float = 4e-3) -> Experiment:
    """LeNet reads handwritten digits, as in 1998.   LBDL 5.2, D2L 6.6"""
    splits = mnist()
    task = _classifier(build(lenet), splits)
    data = splits.streams(batch_size, augment=[rotate(12, zoom=0.12), shift(2)])
    return Experiment(task=task, train=data.train, valid=data.valid, test=data.test, epochs=epochs,
                      optimizer=adamw(lr, weight_decay=0.05), schedule=warmup(0.1, linear()), ema=0.998,
                      monitor="accuracy")  # fmt: skip


def resnet_mnist(*, epochs: int = 12, batch_size: int = 128, lr: float = 0.1, width: int = 32) -> Experiment:
    """A small residual network reads handwritten digits.   LBDL 5.2, D2L 7.6"""
    splits = mnist()
    task = _classifier(build(resnet9, in_channels=1, num_classes=10, width=width), splits, label_smoothing=0.05)
    data = splits.streams(batch_size, augment=[rotate(12, zoom=0.12), shift(2)])
    return Experiment(task=task, train=data.train, valid=data.valid, test=data.test, epochs=epochs,
                      optimizer=sgd(lr, momentum=0.9, nesterov=True, weight_decay=5e-4), schedule=warmup(0.15, linear()),
                      ema=0.998, monitor="accuracy")  # fmt: skip


def resnet_fashion_mnist(*, epochs: int = 25, batch_size: int = 128, lr: float = 4e-3, width: int = 64) -> Experiment:
    """A small residual network tells ten kinds of clothes apart.   LBDL 5.2, D2L 7.6"""
    splits = fashion_mnist()
    model = build(ResNet, depths=[2, 2, 2], in_channels=1, num_classes=10, width=width, stem="medium")
    data = splits.streams(batch_size, augment=[flip(), shift(1), erase()])
    return Experiment(task=_classifier(model, splits, label_smoothing=0.1), train=data.train, valid=data.valid, test=data.test,
                      epochs=epochs, optimizer=adamw(lr, weight_decay=0.05), schedule=warmup(0.15, linear()),
                      ema=0.999, monitor="accuracy")  # fmt: skip


def resnet_cifar10(*, epochs: int = 80, batch_size: int = 128, lr: float = 0.2, width: int = 48,
                   augment: Literal["none", "moved", "mixed"] = "mixed") -> Experiment:  # fmt: skip
    """A small residual network names what is on photographs.   LBDL 5.2, 6.2, D2L 7.6, 13.1, 13.13

    augment: training images are left as they are, and learned by heart; mirrored and shifted; or pasted into each other
        (CutMix) too, which pays where each is seen dozens of times
    """
    splits = cifar10()
    task = _classifier(build(resnet9, num_classes=10, width=width), splits)
    moved = [flip(), shift(4, "reflect")]
    changes = {"none": [], "moved": moved, "mixed": [*moved, cutmix(10)]}
    data = splits.streams(batch_size, augment=changes[augment])
    return Experiment(task=task, train=data.train, valid=data.valid, test=data.test, epochs=epochs,
                      optimizer=sgd(lr, momentum=0.9, nesterov=True, weight_decay=5e-4), schedule=warmup(0.15, linear()),
                      ema=0.999, monitor="accuracy")  # fmt: skip


def airbench_cifar10(*, epochs: int = 10, batch_size: int = 1024, lr: float = 1.5, width: int = 64) -> Experiment:
    """The network that learns CIFAR-10 in the least time names what is on photographs.   LBDL 5.2, 6.2, D2L 7.6, 13.1, 13.13"""
    splits = cifar10()
    widths = [width, 4 * width, 4 * width]
    model = build(Airbench, filters=whitening(splits.train["image"]), num_classes=10, widths=widths)
    data = splits.streams(batch_size, augment=[flip(), shift(2, "reflect")])
    return Experiment(task=_classifier(model, splits, label_smoothing=0.2), train=data.train, valid=data.valid, test=data.test,
                      epochs=epochs, optimizer=sgd(lr, momentum=0.85, nesterov=True, weight_decay=1.33e-3, bias_scale=64),
                      schedule=warmup(0.23, linear(0.07), start=0.2), ema=0.98, monitor="accuracy")  # fmt: skip


def vit_fashion_mnist(*, epochs: int = 6, batch_size: int = 128, lr: float = 4e-3, patch_size: int = 4, embed_dim: int = 128,
                      num_layers: int = 4, num_heads: int = 4, pool: Literal["cls", "mean"] = "cls",
                      position: Literal["learned", "sinusoidal", "none"] = "learned") -> Experiment:  # fmt: skip
    """A Vision Transformer reads clothes patch by patch; its head sees a token of its own, or the mean.   LBDL 5.3"""
    splits = fashion_mnist()
    size = splits.train["image"].shape[-1]
    model = build(ViT, embed_dim=embed_dim, num_layers=num_layers, num_heads=num_heads, image_size=size, patch_size=patch_size,
                  num_classes=10, in_channels=1, pool=pool, position=position)  # fmt: skip
    data = splits.streams(batch_size, augment=[flip(), shift(2), erase()])
    return Experiment(task=_classifier(model, splits, label_smoothing=0.1), train=data.train, valid=data.valid, test=data.test,
                      epochs=epochs, optimizer=muon(lr, weight_decay=0.05, other=adamw(lr / 4, weight_decay=0.05)),
                      schedule=warmup(0.1, cosine()), clip=1.0, ema=0.999, monitor="accuracy")  # fmt: skip


def vit_cifar10(*, epochs: int = 50, batch_size: int = 128, lr: float = 4e-3, patch_size: int = 4, embed_dim: int = 192,
                num_layers: int = 7, num_heads: int = 6, pool: Literal["cls", "mean"] = "mean",
                position: Literal["learned", "sinusoidal", "none"] = "learned") -> Experiment:  # fmt: skip
    """A Vision Transformer learns photographs from scratch; augmentation shows it what images are.   LBDL 5.3"""
    splits = cifar10()
    model = build(ViT, embed_dim=embed_dim, num_layers=num_layers, num_heads=num_heads, image_size=32, patch_size=patch_size,
                  num_classes=10, pool=pool, position=position)  # fmt: skip
    data = splits.streams(batch_size, augment=[flip(), shift(4, "reflect"), colour(), cutmix(10)])
    return Experiment(task=_classifier(model, splits), train=data.train, valid=data.valid, test=data.test, epochs=epochs,
                      optimizer=muon(lr, weight_decay=0.05, other=adamw(lr / 4, weight_decay=0.05)),
                      schedule=warmup(0.1, cosine()), clip=1.0, ema=0.999, monitor="accuracy")  # fmt: skip


def spatial_transformer_mnist(*, epochs: int = 8, batch_size: int = 256, lr: float = 2e-3, transformer: bool = True,
                              degrees: float = 45, cluttered: bool = False,
                              classifier: Literal["lenet", "mlp"] = "lenet") -> Experiment:  # fmt: skip
    """LeNet reads digits that lie turned, small or large, somewhere in the image, straightened.   LEE: Spatial Transformer

    transformer: whether the classifier sees what a spatial transformer has cut out, or the image itself.
    classifier: what reads them; a perceptron, which knows nothing of images, needs them upright more than LeNet does.
    degrees: how far digits are turned at most, either way.
    cluttered: pieces of other digits lie around, in images of 60 pixels and not 42.
    """
    splits = mnist()
    size = 60 if cluttered else 42
    lie = scatter(size, degrees=degrees, smallest=0.7, largest=1.2, clutter=8 if cluttered else 0)
    image = lie({"image": splits.train["image"][:5000]}, generator(0))["image"]
    seen = 28 if transformer else size
    plain = (build(lenet, image_size=seen) if classifier == "lenet" else
             build(mlp, in_features=seen * seen, out_features=10, hidden_dims=[128]))  # fmt: skip
    looking = adapt(plain, look_first, in_channels=1, image_size=size, size=[28, 28]) if transformer else plain
    model = adapt(looking, standardize, **moments(image), size=[size, size])
    task = build(Straightening if transformer else Classification, model=model, classes=splits.classes)
    train = TensorStream(splits.train, batch_size, shuffle=True, augment=[lie])
    valid, test = (TensorStream(part, 500, augment=[lie]) for part in (splits.valid, splits.test))
    return Experiment(task=task, train=train, valid=valid, test=test, epochs=epochs, optimizer=adamw(lr, weight_decay=0.05),
                      schedule=warmup(0.1, cosine()), clip=1.0, ema=0.998, monitor="accuracy")  # fmt: skip

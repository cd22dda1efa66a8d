"""Recipes for a person's own data: what is not said is chosen by the data, and told."""

import inspect
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from thalweg import public
from thalweg.build import adapt, build
from thalweg.data.augmentation import colour, flip, resized_crop, rotate, shift
from thalweg.data.folders import ImageFolder
from thalweg.data.streams import Augment, Splits
from thalweg.data.tagged import TaggedFolder
from thalweg.layers.standardize import moments, standardize
from thalweg.models import builder
from thalweg.tasks.classification import Classification
from thalweg.tasks.metric_learning import MetricLearning
from thalweg.tasks.tagging import Tagging
from thalweg.training import Experiment
from thalweg.training.optimisers import discriminative_adamw
from thalweg.training.schedules import cosine, warmup

EXTENTS = (8, 16, 24, 28, 32, 48, 64, 96, 128)  # sides of training images: the largest that theirs allow


class Network(NamedTuple):
    """A network, what the images it sees must be scaled by (None: their own mean and deviation), their side, and why."""

    module: nn.Module
    scale: dict[str, list[float]] | None
    channels: int
    size: int
    why: str


def image_classifier(
    *,
    data: Path,
    model: str = "auto",
    pretrained: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    image_size: int | None = None,
) -> Experiment:
    """A classifier learns your folder of images, one subfolder a class.   D2L 13.1-13.2, 13.13-13.14

    data: FOLDER/cat/1.jpg, FOLDER/dog/2.png ...; or FOLDER/train/cat/1.jpg, FOLDER/valid/..., FOLDER/test/...
    model: resnet18, vit_tiny_16 or any other classifier of images; auto takes one that suits the data
    pretrained: folder, file or Hugging Face id of weights to start from, as timm or transformers write them
    epochs: passes over the training images; if not given, by their number
    batch_size: images a step; if not given, by their number
    lr: learning rate, with pretrained weights that of the head, ten times that of the rest; if not given, by the model
    image_size: side of the square that images are scaled to; if not given, by theirs
    """
    folder = ImageFolder(data)
    return _experiment(folder, lambda seeing: build(Classification, model=seeing, classes=folder.classes, label_smoothing=0.1),
                       partial(_notes, folder), "accuracy", model, pretrained, epochs, batch_size, lr, image_size)  # fmt: skip


def image_tagger(
    *,
    data: Path,
    model: str = "auto",
    pretrained: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    image_size: int | None = None,
) -> Experiment:
    """A tagger learns your folder of images, any number of labels on each, listed in labels.csv.   D2L 1.1

    data: images anywhere in FOLDER, and FOLDER/labels.csv: the file, then its labels; or a column a label, 1 or 0
    model: resnet18, vit_tiny_16 or any other classifier of images; auto takes one that suits the data
    pretrained: folder, file or Hugging Face id of weights to start from, as timm or transformers write them
    epochs: passes over the training images; if not given, by their number
    batch_size: images a step; if not given, by their number
    lr: learning rate, with pretrained weights that of the head, ten times that of the rest; if not given, by the model
    image_size: side of the square that images are scaled to; if not given, by theirs
    """
    folder = TaggedFolder(data)

    def make(seeing: nn.Module) -> Any:
        return build(Tagging, model=seeing, classes=folder.classes, frequency=folder.frequency())

    return _experiment(folder, make, partial(_tag_notes, folder), "mAP", model, pretrained, epochs, batch_size, lr, image_size)


def image_verifier(
    *,
    data: Path,
    model: str = "auto",
    pretrained: str | None = None,
    epochs: int | None = None,
    batch_size: int = 64,
    lr: float | None = None,
    image_size: int | None = None,
) -> Experiment:
    """A distance is learned by which photographs of the same person, or thing, are near: also of those never seen.   LBDL 3.1

    data: FOLDER/alice/1.jpg, FOLDER/bob/1.jpg ..., six or more subfolders; a fifth is for validation, one for tests
    model: resnet18, vit_tiny_16 or any other classifier of images; auto takes one that suits the data
    pretrained: folder, file or Hugging Face id of weights to start from, as timm or transformers write them
    epochs: passes over the training images; if not given, by their number
    batch_size: images a step, among which pairs of the same are looked for
    lr: learning rate; if not given, by the model
    image_size: side of the square that images are scaled to; if not given, by theirs
    """
    folder = ImageFolder(data)
    folder.keep_apart()

    def make(seeing: nn.Module) -> Any:
        return build(MetricLearning, encoder=seeing, classes=folder.classes, margin=0.2)

    return _experiment(folder, make, partial(_notes, folder), "verification", model, pretrained, epochs, batch_size, lr,
                       image_size, outputs=128)  # fmt: skip


def _experiment(
    folder: ImageFolder | TaggedFolder,
    make: Callable[[nn.Module], Any],
    found: Callable[[Splits], dict[str, str]],
    monitor: str,
    model: str,
    pretrained: str | None,
    epochs: int | None,
    batch_size: int | None,
    lr: float | None,
    image_size: int | None,
    outputs: int | None = None,
) -> Experiment:
    """What is not said chosen by the folder, the task made of the network, and what was found and chosen told.

    outputs: numbers that the network gives; if None, one a class.
    """
    outputs = outputs or len(folder.classes)
    network = (_pretrained(model, pretrained, image_size, outputs) if pretrained
               else _fresh(folder, model, image_size, outputs))  # fmt: skip
    batch_size = batch_size or min(128, max(8, 2 ** round(math.log2(len(folder.pictures) / 30))))
    augment, changes = _augmentation(folder.channels, network.size)
    splits = folder.streams((network.size, network.size), batch_size, augment=augment)
    examples = splits.train.size
    scale = network.scale or moments(_sample(splits, network.channels))
    seeing: Any = adapt(network.module, standardize, **scale, size=[network.size, network.size])
    epochs = epochs or (round(min(20, max(4, 8_000 / examples))) if pretrained else round(min(60, max(10, 40_000 / examples))))
    convolutional = any(isinstance(part, nn.BatchNorm2d) for part in seeing.modules())
    lr = lr or (1e-3 if pretrained else 3e-3 if convolutional else 5e-4) * math.sqrt(batch_size / 64)
    notes = found(splits) | {
        "model": f"{network.why}; {sum(p.numel() for p in seeing.parameters()):,} parameters",
        "training": f"{epochs} epochs of {len(splits.train)} batches of {batch_size}, AdamW at {lr:g}; {changes}",
    }
    return Experiment(task=make(seeing), train=splits.train, valid=splits.valid, test=splits.test, epochs=epochs,
                      optimizer=discriminative_adamw(lr, backbone=0.1 if pretrained else 1.0, weight_decay=0.05),
                      schedule=warmup(0.1, cosine()), ema=0.99, monitor=monitor,
                      evaluate_every=max(30, len(splits.train)), notes=notes)  # fmt: skip


def _fresh(folder: ImageFolder | TaggedFolder, model: str, image_size: int | None, outputs: int) -> Network:
    """A model with random weights, at the size nearest to the images' that it takes."""
    wanted = image_size or max((side for side in EXTENTS if side <= folder.extent), default=folder.extent)
    name, more, why = model, {}, model
    if model == "auto":
        count = len(folder.pictures)
        name, more = "resnet9" if wanted <= 40 else "resnet18", {"width": 32 if count < 20_000 else 64}
        why = f"{name} of width {more['width']} as suits {count:,} images of {wanted}x{wanted}"
    make, problems = builder(name), []
    for size in [wanted] if image_size else sorted({wanted, *EXTENTS, 224}, key=lambda side: abs(math.log(side / wanted))):
        for channels in (folder.channels, 4 - folder.channels):
            arguments = _arguments(make, size, channels, outputs) | more
            with torch.device("meta"):  # nothing is calculated
                problem = _problem(partial(make, **arguments), (2, channels, size, size), outputs)
            if not problem:
                return Network(build(make, **arguments), None, channels, size, f"{why}, from scratch, sees {size}x{size}")
            problems.append(problem)
    raise ValueError(f"model={model!r}: does not classify images of {wanted}x{wanted}: {problems[0]}")


def _pretrained(model: str, source: str, image_size: int | None, outputs: int) -> Network:
    """A model with public weights and a fresh head, seeing what the weights were trained to see."""
    if model == "auto":
        config = public.fetch(source) / "config.json"
        stated = json.loads(config.read_text(encoding="utf8")).get("architecture") if config.exists() else None
        if stated is None:
            raise ValueError(f"model={model!r}: {source} does not name its architecture; say which, such as resnet18")
        model = stated
    make = builder(model)
    module = public.pretrained(make, source, num_classes=outputs)
    seen = public.preprocessing(source, make)
    size, channels = image_size or int(seen["size"][0]), len(seen["mean"])
    if problem := _problem(lambda: module, (2, channels, size, size), outputs):
        raise ValueError(f"model={model!r}, pretrained={source!r}: does not classify images of {size}x{size}: {problem}")
    scale = {name: seen[name] for name in ("mean", "deviation")}
    return Network(module, scale, channels, size, f"{make.__name__}, from the weights of {source}, sees {size}x{size}")


def _arguments(make: Callable[..., nn.Module], size: int, channels: int, num_classes: int) -> dict[str, Any]:
    """Those of the usual arguments of a classifier that the builder takes; a sized builder takes its class's."""
    signature = inspect.signature(make)
    taken = set(signature.parameters)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values()):
        taken |= set(inspect.signature(signature.return_annotation).parameters)
    usual = {"num_classes": num_classes, "in_channels": channels, "image_size": size,
             "stem": "small" if size <= 40 else "medium" if size <= 100 else "large", "in_features": channels * size * size,
             "out_features": num_classes}  # fmt: skip
    return {name: value for name, value in usual.items() if name in taken}


def _problem(make: Callable[[], nn.Module], shape: Sequence[int], num_classes: int) -> str:
    """Why the model does not turn images of that shape into logits of the classes; empty if it does."""
    try:
        with torch.no_grad():
            logits = make().eval()(torch.zeros(shape))
        return "" if logits.shape == (shape[0], num_classes) else f"it gives {tuple(logits.shape)} for {num_classes} classes"
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        return str(error).partition("\n")[0]


def _sample(splits: Splits, channels: int) -> Tensor:
    """Up to 1,000 training images, in as many channels as the model sees."""
    stride = -(-splits.train.size // 1000)
    image = splits.train.fetch(torch.arange(0, splits.train.size, stride))["image"]
    return image if image.shape[1] == channels else image.float().mean(1, keepdim=True).byte().expand(-1, channels, -1, -1)


def _augmentation(channels: int, size: int) -> tuple[Sequence[Augment], str]:
    """Changes after which an image still shows the same: fewer where it may be a sign or a letter."""
    if channels == 1 and size <= 40:
        return [rotate(10, zoom=0.1), shift(size // 12)], "augmented by small shifts, turns and zooms"
    if size <= 40:
        return [flip(), shift(size // 8, "reflect")], "augmented by mirroring and shifts"
    return [flip(), resized_crop(0.5), colour()], "augmented by mirroring, crops and colour"


def _notes(folder: ImageFolder, splits: Splits) -> dict[str, str]:
    """What was found in the folder."""
    counts = [sum(picture.label == label for picture in folder.pictures) for label in range(len(folder.classes))]
    kinds = f"in {len(counts):,} classes of {min(counts):,} to {max(counts):,}"
    notes = {"images": f"{sum(counts):,} {kinds}, {_look(folder, splits)}"}
    if folder.skipped:
        notes["left out"] = folder.report()
    if folder.repeated:
        notes["repeated"] = f"{folder.repeated:,} images are also in another part or class, so do not trust the accuracy"
    return notes


def _tag_notes(folder: TaggedFolder, splits: Splits) -> dict[str, str]:
    """What was found in the folder of tagged images."""
    counts = [sum(name in picture.label for picture in folder.pictures) for name in folder.classes]
    kinds = f"{sum(counts) / len(folder.pictures):.2g} of {len(counts):,} labels each, on {min(counts):,} to {max(counts):,}"
    notes = {"images": f"{len(folder.pictures):,} with {kinds}, {_look(folder, splits)}"}
    if report := folder.report():
        notes["left out or doubtful"] = report
    return notes


def _look(folder: ImageFolder | TaggedFolder, splits: Splits) -> str:
    """How the images look, and how many are in each part."""
    kind = "grey" if folder.channels == 1 else "colour"
    parts = ", ".join(f"{part} {getattr(splits, part).size:,}" for part in ("train", "valid", "test") if getattr(splits, part))
    return f"{kind}, about {folder.extent}x{folder.extent}; {parts}"

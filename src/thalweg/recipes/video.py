"""Recipes for clips."""

from thalweg.build import adapt, build
from thalweg.data.clips import motions
from thalweg.layers.standardize import moments, standardize
from thalweg.models.vision.clip import ClipClassifier
from thalweg.models.vision.lenet import lenet
from thalweg.tasks.clips import ClipClassification
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import cosine, warmup


def clip_motions(*, epochs: float = 12, batch_size: int = 64, lr: float = 3e-3, clips: int = 3000, frame_dim: int = 32,
                 hidden_dim: int = 64) -> Experiment:  # fmt: skip
    """A network sees how a digit moves, which no picture of it tells: LeNet looks, a GRU remembers.   D2L 8

    clips: to learn from, of 5 to 12 pictures
    """
    data = motions(clips, batch_size)
    sample = data.train.batch(0)
    image = sample["frames"][sample["mask"]]
    size = list(image.shape[-2:])
    frame = adapt(build(lenet, image_size=size[0], num_classes=frame_dim), standardize, **moments(image), size=size)
    model = build(ClipClassifier, frame=frame, frame_dim=frame_dim, num_classes=len(data.classes), hidden_dim=hidden_dim)
    return Experiment(task=build(ClipClassification, model=model, classes=data.classes), train=data.train, valid=data.valid,
                      test=data.test, epochs=epochs, optimizer=adamw(lr, weight_decay=0.02), schedule=warmup(0.1, cosine()),
                      clip=1.0, monitor="accuracy")  # fmt: skip

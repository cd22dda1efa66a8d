"""A recipe that lets every optimiser learn the same."""

from collections.abc import Callable
from typing import Literal

from torch import Generator

from thalweg.build import adapt, build
from thalweg.data.sources import digits, fashion_mnist, tiny_shakespeare
from thalweg.data.streams import Stream, TensorStream
from thalweg.data.text import Characters, Windows
from thalweg.layers.standardize import moments, standardize
from thalweg.models.language.rotary_gpt import RotaryGPT
from thalweg.models.vision.lenet import lenet
from thalweg.tasks.classification import Classification
from thalweg.tasks.language_modelling import LanguageModelling
from thalweg.tasks.race import Race, Racer
from thalweg.training import Experiment, Task
from thalweg.training.optimisers import OPTIMISERS, MakeOptimizer, Together, adam, adamw, gradient_noise, lookahead, muon, sgd
from thalweg.training.schedules import constant
from thalweg.training.schedules import warmup as rising
from thalweg.vocabulary import Batch

# The learning rate in the middle of those that a racer tries.
MIDDLE = {
    "sgd": 0.1, "momentum": 0.03, "nesterov": 0.03, "sgdw": 0.03, "adagrad": 0.03, "rmsprop": 3e-3, "adadelta": 1.0,
    "adafactor": 0.03, "adam": 3e-3, "amsgrad": 3e-3, "adamax": 3e-3, "nadam": 3e-3, "radam": 3e-3, "adamw": 3e-3,
    "yogi": 0.01, "adabound": 3e-3, "amsbound": 3e-3, "swats": 3e-3, "lars": 1.0, "lamb": 0.01, "muon": 0.01,
    "lookahead": 3e-3, "gradient_noise": 0.03,
}  # fmt: skip
RACERS = {
    **OPTIMISERS,
    "muon": lambda lr: muon(lr, other=adamw(lr)),
    "lookahead": lambda lr: lookahead(adam(lr)),
    "gradient_noise": lambda lr: gradient_noise(sgd(lr, momentum=0.9)),
}


def _at_rates(make: Callable[[float], MakeOptimizer], rates: list[float]) -> MakeOptimizer:
    """A racer's optimiser: one of its own for each network and, ten times as fast, for each place: it has far to go."""

    def together(racer: Racer) -> Together:
        networks = [make(rate)(network) for network, rate in zip(racer.networks, rates, strict=True)]
        places = [make(10 * rate)(place) for points, rate in zip(racer.points, rates, strict=True) for place in points]
        return Together(*networks, *places)

    return together  # type: ignore[return-value]


def _to_choose_by(batch: Batch, random: Generator) -> Batch:
    """Says that learning rates are chosen by these examples."""
    return {**batch, "choose": next(iter(batch.values())).new_ones(1)}


def _course(name: str, batch_size: int) -> tuple[Task, Stream, Stream, Stream]:
    """A small network's task, and its streams to learn, to choose by and to be measured by."""
    if name == "shakespeare":
        text = tiny_shakespeare()
        alphabet = "".join(sorted(set(text)))
        parts = Characters(alphabet).encode(text).tensor_split([int(0.8 * len(text)), int(0.9 * len(text))])
        model = build(RotaryGPT, vocab_size=len(alphabet), embed_dim=64, num_layers=2, num_heads=2)
        return (build(LanguageModelling, model=model, alphabet=alphabet, context=64),
                Windows(parts[0], 64, batch_size, shuffle=True),
                Windows(parts[1][:20000], 64, 64, augment=[_to_choose_by]),
                Windows(parts[2][:20000], 64, 64))  # fmt: skip
    splits = digits() if name == "digits" else fashion_mnist()
    train, valid, test = (
        {key: value[:5000] for key, value in part.items()} for part in (splits.train, splits.valid, splits.test)
    )
    size = train["image"].shape[-1]
    network = adapt(build(lenet, image_size=size, channels=(8, 16), hidden_dim=64), standardize, **moments(train["image"]),
                    size=(size, size))  # fmt: skip
    return (build(Classification, model=network, classes=splits.classes),
            TensorStream(train, batch_size, shuffle=True),
            TensorStream(valid, 500, augment=[_to_choose_by]),
            TensorStream(test, 500))  # fmt: skip


def optimizer_race(*, course: Literal["digits", "fashion-mnist", "shakespeare"] = "digits", epochs: int = 20,
                   batch_size: int = 64, rates: int = 5, warmup: float = 0.0, racers: str = "all") -> Experiment:  # fmt: skip
    """All optimisers from the same start, on a small network and on four surfaces, at as many learning rates each.   D2L 11

    course: what the network learns; 5,000 images at most, or plays a character at a time
    rates: learning rates that each may try, from a tenth to ten times the usual one
    warmup: share of the steps over which the rates rise from zero
    racers: names of optimisers, with commas between
    """
    names = list(RACERS) if racers == "all" else racers.split(",")
    if unknown := sorted(set(names) - set(RACERS)):
        raise ValueError(f"racers={racers!r}: {unknown} do not race; expected some of {', '.join(RACERS)}")
    if rates < 2:
        raise ValueError(f"rates={rates}: expected at least 2")
    network, train, valid, test = _course(course, batch_size)
    task = build(Race, task=network, racers=names, rates=rates, steps=epochs * len(train),
                 score="loss" if course == "shakespeare" else "error")  # fmt: skip
    factors = [10 ** (2 * number / (rates - 1) - 1) for number in range(rates)]
    optimizer = {f"racers.{name}": _at_rates(RACERS[name], [MIDDLE[name] * factor for factor in factors]) for name in names}
    return Experiment(task=task, train=train, valid=valid, test=test, epochs=epochs, optimizer=optimizer,
                      evaluate_every=epochs * len(train),
                      schedule=rising(warmup, constant) if warmup else constant,
                      notes={"learning rates": ", ".join(f"{name} {MIDDLE[name]:g}" for name in names) +
                             f", each times {', '.join(f'{factor:.3g}' for factor in factors)}"})  # fmt: skip

"""Recipes of what came first and of what can be seen whole: small networks that explain the large ones."""

from torch.nn.functional import pad

from thalweg.build import adapt, build
from thalweg.data.augmentation import rotate, shift
from thalweg.data.gomoku import games, symmetries
from thalweg.data.planes import ARMS, spirals
from thalweg.data.sources import mnist
from thalweg.data.streams import TensorStream
from thalweg.layers.standardize import moments, standardize
from thalweg.models.classical.tanh_warp import tanh_warp
from thalweg.models.vision.board import board_net
from thalweg.models.vision.lenet import lenet, lenet1989
from thalweg.models.vision.neocognitron import neocognitron
from thalweg.tasks.classification import Classification
from thalweg.tasks.invariance import Invariance
from thalweg.tasks.next_move import NextMove
from thalweg.tasks.self_organisation import SelfOrganisation
from thalweg.tasks.warping import Warping
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw, sgd
from thalweg.training.schedules import cosine, warmup


def warped_plane(*, epochs: int = 300, batch_size: int = 100, lr: float = 0.03, num_layers: int = 8) -> Experiment:
    """Layers of a 2x2 matrix and tanh bend the plane until a line parts two spirals.   LBDL 3.5, Fig. 3.4"""
    train, valid, test = (TensorStream(spirals(1000, seed), batch_size, shuffle=not seed) for seed in range(3))
    task = build(Warping, model=build(tanh_warp, num_layers=num_layers), classes=ARMS)
    return Experiment(task=task, train=train, valid=valid, test=test, epochs=epochs, optimizer=sgd(lr, momentum=0.9),
                      schedule=cosine(), evaluate_every=epochs * len(train))  # fmt: skip


def lenet1989_mnist(*, epochs: int = 23, batch_size: int = 32, lr: float = 3e-3, examples: int = 7291) -> Experiment:
    """The zip-code network of 1989 reads handwritten digits of 16x16 pixels, as few and as often as then.   LBDL 5.2

    examples: of the training data; the paper had 7,291, and read them 23 times by a diagonal Newton method
    """
    splits = mnist()
    task = build(Classification, classes=splits.classes,
                 model=adapt(build(lenet1989), standardize, mean=[0.5], deviation=[0.5], size=[16, 16]))  # fmt: skip
    train = {name: tensor[:examples] for name, tensor in splits.train.items()}
    return Experiment(task=task, train=TensorStream(train, batch_size, shuffle=True), valid=TensorStream(splits.valid, 500),
                      test=TensorStream(splits.test, 500), epochs=epochs, optimizer=adamw(lr, weight_decay=0.05),
                      schedule=warmup(0.1, cosine()))  # fmt: skip


def neocognitron_mnist(*, epochs: int = 1, batch_size: int = 16, q: float = 16.0, lr: float = 0.01,
                       pixels: int = 8) -> Experiment:  # fmt: skip
    """A neocognitron organises itself by digits in the middle of a field and recognises them elsewhere.   LBDL cover

    q: rate of the reinforcement of winners
    lr: of the linear read-out, the only part that sees labels
    pixels: by which digits lie elsewhere at most, in images of 44 pixels
    """
    splits = mnist()
    train, test = ({**part, "image": pad(part["image"], (8,) * 4)} for part in (splits.train, splits.test))
    model = adapt(build(neocognitron), standardize, mean=[0], deviation=[1], size=[22, 22])
    return Experiment(task=build(SelfOrganisation, model=model, classes=splits.classes), epochs=epochs,
                      train=TensorStream(train, batch_size, shuffle=True),
                      test=TensorStream(test, 500, augment=[shift(pixels)]),
                      optimizer={"model.model.stages": sgd(q), "model.model.head": adamw(lr)})  # fmt: skip


def turned_mnist(*, epochs: int = 6, batch_size: int = 256, lr: float = 4e-3, degrees: float = 0.0,
                 zoom: float = 0.0) -> Experiment:  # fmt: skip
    """How far may a digit be turned or scaled before LeNet fails, and do turned examples mend it?   LEE: CNN

    degrees: by which training digits are turned at most, either way: with 0 accuracy falls, with 90 it stays
    zoom: training digits are scaled by 1 - zoom to 1 + zoom
    """
    splits = mnist()
    model = adapt(build(lenet), standardize, **moments(splits.train["image"]), size=[28, 28])
    data = splits.streams(batch_size, augment=[rotate(degrees, zoom)] if degrees or zoom else [])
    return Experiment(task=build(Invariance, model=model, classes=splits.classes), train=data.train, test=data.test,
                      epochs=epochs, optimizer=adamw(lr, weight_decay=0.05), schedule=warmup(0.1, cosine()))  # fmt: skip


def gomoku_moves(*, epochs: int = 10, batch_size: int = 256, lr: float = 2e-3, size: int = 9, plays: int = 1500,
                 width: int = 64, num_layers: int = 6) -> Experiment:  # fmt: skip
    """A network without pooling foretells the moves of a player of gomoku, in games that it has not seen.   LEE: CNN

    plays: games to learn from; a quarter as many for validation and for the test
    """
    train, valid, test = (games(count, size, seed) for seed, count in enumerate([plays, plays // 4, plays // 4]))
    model = adapt(build(board_net, width=width, num_layers=num_layers, size=size), standardize, mean=[0, 0, 0],
                  deviation=[1, 1, 1], size=[size, size])  # fmt: skip
    return Experiment(task=build(NextMove, model=model, size=size), epochs=epochs,
                      train=TensorStream(train, batch_size, shuffle=True, augment=[symmetries()]),
                      valid=TensorStream(valid, 500), test=TensorStream(test, 500),
                      optimizer=adamw(lr, weight_decay=0.05), schedule=warmup(0.1, cosine()), monitor="accuracy")  # fmt: skip

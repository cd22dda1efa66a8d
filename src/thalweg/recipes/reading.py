"""Recipes that read what is written on images.   LBDL 1.1"""

from pathlib import Path

from thalweg.build import adapt, build
from thalweg.data.augmentation import colour, rotate
from thalweg.data.plates import ALPHABET, Plates, photographed
from thalweg.data.streams import Splits
from thalweg.data.transcribed import TranscribedImages
from thalweg.layers.standardize import moments, standardize
from thalweg.models.vision.crnn import CRNN, HEIGHT
from thalweg.tasks.reading import Reading
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import cosine, warmup

DRAWN = 12_000  # plates, as many new ones as the training needs to see


def plate_reader(*, data: Path | None = None, epochs: float = 6, batch_size: int = 32, lr: float = 2e-3, width: int = 16,
                 hidden_dim: int = 96, dropout: float = 0.1) -> Experiment:  # fmt: skip
    """A convolutional and recurrent network reads licence plates, or any line of text.   LBDL 1.1

    data: your own images, named by what is on them or listed in a CSV file of file and text; without, plates are drawn.
    """
    alphabet, size, notes = ALPHABET, (HEIGHT, 4 * HEIGHT), {}
    if data is None:
        look = [photographed(size)]
        valid, test = (Plates(1000, 250, part, augment=look) for part in (1, 2))
        splits = Splits(Plates(DRAWN, batch_size, 0, shuffle=True, augment=look), valid, test)
    else:
        folder = TranscribedImages(data)
        alphabet = folder.alphabet
        columns = max(round(HEIGHT * folder.aspect / 4), 2 * folder.longest) + 1  # a blank between symbols, if it wants
        size = (HEIGHT, 4 * columns)
        splits = folder.streams(size, batch_size, augment=[rotate(3, zoom=0.05), colour()])
        notes = {"images": f"{len(folder.examples):,}, up to {folder.longest} symbols of {alphabet}, seen at "
                           f"{size[1]}x{size[0]}"}  # fmt: skip
        if report := folder.report():
            notes["left out or doubtful"] = report
    model = build(CRNN, num_classes=1 + len(alphabet), in_channels=3, width=width, hidden_dim=hidden_dim, dropout=dropout,
                  direct=True)  # fmt: skip
    seeing = adapt(model, standardize, **moments(splits.train.batch(0)["image"]), size=list(size))
    return Experiment(task=build(Reading, model=seeing, alphabet=alphabet), train=splits.train, valid=splits.valid,
                      test=splits.test, epochs=epochs, optimizer=adamw(lr, weight_decay=0.02), schedule=warmup(0.1, cosine()),
                      clip=5.0, ema=0.99, monitor="exact", notes=notes)  # fmt: skip

"""A competition of many kinds and images of every extent: a folder is learned, and its probabilities are handed in."""

import csv
import math

import torch
from PIL import Image, ImageDraw

from thalweg.build import load, save
from thalweg.inspection.submission import submission
from thalweg.recipes.bring_your_own import image_classifier
from thalweg.training.loop import Training, evaluate

BREEDS = ("akita", "beagle", "collie", "dalmatian", "eurasier", "foxhound")
COATS = ((230, 220, 200), (170, 110, 50), (120, 60, 20), (60, 60, 60), (220, 160, 60), (90, 20, 20))


def dog(breed, random):
    """An animal of the colour of its kind on a lawn, as large as it likes."""

    def between(low, high):
        return int(torch.randint(low, high, (), generator=random))

    width, height = between(40, 120), between(40, 120)
    image = Image.new("RGB", (width, height), (between(60, 100), between(120, 160), 60))
    draw, (x, y) = ImageDraw.Draw(image), (between(0, width // 3), between(0, height // 3))
    draw.ellipse((x, y, x + width // 2, y + height // 2), COATS[breed])
    draw.ellipse((x + width // 3, y, x + width // 2, y + height // 5), (20, 20, 20))
    return image


def test_kinds_of_every_extent_are_learned_and_handed_in_as_probabilities_that_beat_guessing(tmp_path):
    random = torch.Generator().manual_seed(0)
    for number in range(120):
        folder = tmp_path / "train" / BREEDS[number % 6]
        folder.mkdir(parents=True, exist_ok=True)
        dog(number % 6, random).save(folder / f"{number}.jpg")
    (tmp_path / "unknown").mkdir()
    truth = torch.randint(6, (30,), generator=random).tolist()
    for number, breed in enumerate(truth):
        dog(breed, random).save(tmp_path / "unknown" / f"dog{number}.jpg")
    torch.manual_seed(0)
    experiment = image_classifier(data=tmp_path / "train", model="lenet", image_size=24, batch_size=16, epochs=20, lr=3e-3)
    assert experiment.task.classes == BREEDS
    training = Training(experiment, device="cpu")
    for _ in training:
        pass
    assert dict(evaluate(training, experiment.valid))["loss"] < 0.5 * math.log(6)
    save(experiment.task, tmp_path / "model")
    told = submission(load(tmp_path / "model"), tmp_path / "unknown", tmp_path / "answer.csv", probabilities=True)
    assert told == f"{tmp_path / 'answer.csv'}: 30 images"
    header, *rows = csv.reader((tmp_path / "answer.csv").read_text().splitlines())
    assert header == ["id", *BREEDS]
    assert [row[0] for row in rows] == [f"dog{number}" for number in range(30)]
    chance = torch.tensor([[float(cell) for cell in row[1:]] for row in rows])
    assert (chance.sum(1) - 1).abs().max() < 1e-5
    log_loss = -chance[range(30), truth].log().mean()
    assert log_loss < 0.5 * math.log(6)

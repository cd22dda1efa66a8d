"""A person's own folder of images with any number of labels becomes a tagger that answers, and its choices are told."""

import csv
import json

import pytest
import torch
from PIL import Image

from thalweg import cli, public
from thalweg.build import build, load, save
from thalweg.inspection.predict import answer
from thalweg.models.vision.resnet import resnet18
from thalweg.recipes.bring_your_own import image_tagger
from thalweg.training import Training, evaluate

BARS = {"left bar": (slice(None), slice(2, 5)), "top bar": (slice(2, 5), slice(None)), "corner": (slice(20, 26), slice(20, 26))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noise with up to three bright things on it, and a broken file."""
    torch.manual_seed(1)
    root, lines = tmp_path_factory.mktemp("data"), ["file,labels"]
    for number in range(160):
        pixels = torch.randint(0, 120, (28, 28), dtype=torch.uint8)
        there = [name for place, name in enumerate(BARS) if number >> place & 1]
        for name in there:
            pixels[BARS[name]] = 230
        Image.fromarray(pixels.numpy()).save(root / f"{number}.png")
        lines.append(f"{number}.png,{'|'.join(there)}")
    (root / "broken.png").write_bytes(b"no image")
    (root / "labels.csv").write_text("\n".join([*lines, "broken.png,corner", "gone.png,corner"]))
    return root


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """The experiment, trained, and the folder of its model."""
    torch.manual_seed(0)
    experiment = image_tagger(data=folder, model="lenet", epochs=12)
    training, place = Training(experiment, device="cpu"), tmp_path_factory.mktemp("model")
    for _ in training:
        pass
    save(training.evaluated, place)
    return experiment, training, place


def test_what_was_found_and_chosen_is_told(run):
    notes = run[0].notes
    assert notes["images"] == "160 with 1.5 of 3 labels each, on 80 to 80, grey, about 28x28; train 112, valid 24, test 24"
    assert "1 images that cannot be read, left out: broken.png" in notes["left out or doubtful"]
    assert "(gone.png)" in notes["left out or doubtful"]
    assert "lenet, from scratch, sees 28x28" in notes["model"]
    assert "12 epochs of" in notes["training"]


def test_things_on_images_are_learned_above_their_frequency(run):
    experiment, training, _ = run
    found = dict(evaluate(training, experiment.test))
    assert found["macro_f1"] > 0.9
    assert found["baseline_macro_f1"] < 0.75
    assert found["labels_above_baseline"] == 1


def test_the_model_answers_for_files_with_all_labels_and_with_none(run, folder, capsys):
    task = load(run[2])
    lines = dict(line.split(": ", 1) for line in answer(task, [str(folder / "7.png"), str(folder / "152.png")]))
    named = lines[str(folder / "7.png")].split("  ")
    assert {words.rpartition(" ")[0] for words in named} == set(BARS)
    assert lines[str(folder / "152.png")] == "no label"  # 152 = 0b10011000: nothing is on it
    (told,) = answer(task, [str(folder / "152.png")], as_json=True, least=0.0)
    assert sorted(json.loads(told)["label"][0]) == sorted(BARS)
    cli.main(["predict", str(run[2]), str(folder / "7.png"), "--least", "1"])
    assert capsys.readouterr().out == f"{folder / '7.png'}: no label\n"


def test_a_competition_takes_the_labels_or_their_probabilities(run, folder, tmp_path, capsys):
    out = tmp_path / "answers.csv"
    cli.main(["predict", str(run[2]), str(folder), "--csv", str(out)])
    assert capsys.readouterr().out == f"{out}: 160 images; 1 files left out: broken.png (not an image of a known format)\n"
    header, *rows = csv.reader(out.read_text().splitlines())
    assert header == ["id", "label"]
    assert [row[0] for row in rows] == [str(number) for number in range(160)]
    right = sum(set(row[1].split("|")) - {""} == {name for place, name in enumerate(BARS) if int(row[0]) >> place & 1}
                for row in rows)  # fmt: skip
    assert right > 140
    cli.main(["predict", str(run[2]), str(folder), "--csv", str(out), "--least", "0"])
    assert all(len(row[1].split("|")) == 3 for row in list(csv.reader(out.read_text().splitlines()))[1:])
    cli.main(["predict", str(run[2]), str(folder), "--csv", str(out), "--probabilities"])
    header, *rows = csv.reader(out.read_text().splitlines())
    assert header == ["id", "corner", "left bar", "top bar"]
    assert [float(value) > 0.5 for value in rows[7][1:]] == [True] * 3
    assert [float(value) > 0.5 for value in rows[8][1:]] == [False] * 3


@pytest.mark.filterwarnings("ignore:.*its head is not for 3 classes")
def test_public_weights_are_the_start_of_all_but_the_head(folder, tmp_path):
    model = build(resnet18, width=8, num_classes=7)
    public.export(model, tmp_path, "transformers", mean=[0.1, 0.2, 0.3], deviation=[0.4, 0.5, 0.6], size=[24, 24])
    experiment = image_tagger(data=folder, model="resnet18", pretrained=str(tmp_path))
    held = experiment.task.model.model.state_dict()
    assert held["head.weight"].shape == (3, 64)
    assert all(torch.equal(held[name], tensor) for name, tensor in model.state_dict().items() if not name.startswith("head."))
    total, count = experiment.task.loss(next(iter(experiment.train)))
    assert total.isfinite()
    assert count == 3 * experiment.train.batch_size

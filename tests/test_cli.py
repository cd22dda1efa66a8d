"""The command: help without torch, one-line errors that name the thing, prediction."""

import base64
import csv
import io
import json
import subprocess
import sys
import time

import numpy
import pytest
import torch
from PIL import Image

from thalweg import cli
from thalweg.adaptation.heads import probe, without_head
from thalweg.build import adapt, build, load, save
from thalweg.data.images import read_image
from thalweg.layers.standardize import standardize
from thalweg.models.vision.dncnn import DnCNN
from thalweg.models.vision.lenet import lenet
from thalweg.models.vision.unet import unet
from thalweg.recipes.video import clip_motions
from thalweg.tasks.classification import Classification
from thalweg.tasks.restoration import Restoration
from thalweg.tasks.segmentation import Segmentation
from thalweg.tasks.transfer import OnFeatures
from thalweg.training import checkpoint


def thalweg(*words):
    return subprocess.run([sys.executable, "-m", "thalweg", *words], capture_output=True, text=True)


@pytest.mark.parametrize(("words", "seconds"), [(["--help"], 0.3), (["run", "--help"], 0.3), (["list"], 0.5)])
def test_help_and_list_are_quick(words, seconds):
    def timed():
        start = time.perf_counter()
        assert thalweg(*words).returncode == 0
        return time.perf_counter() - start

    assert min(timed() for _ in range(5)) < seconds


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["list"],
        ["run", "lenet-digits", "--help"],
        ["sweep", "--help"],
        ["sweep", "lenet-digits", "--help"],
        ["range-test", "lenet-digits", "--help"],
        ["results"],
        ["show", "resnet-18"],
    ],
)
def test_reading_the_catalogue_imports_no_torch(words):
    called = f"import sys; from thalweg.cli import main\ntry: main({words!r})\nexcept SystemExit: pass"
    code = called + "\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_system_that_nobody_can_rebuild_has_an_entry_that_says_so(capsys):
    cli.main(["show", "gpt-4"])
    shown = capsys.readouterr().out
    assert "Neither its size nor its data were published" in " ".join(shown.split())
    assert "LBDL 3.7" in shown
    assert "OpenAI" in shown


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["run", "lenet-digit"], r"no recipe 'lenet-digit' \(did you mean lenet-digits"),
        (["run", "lenet-digits", "--lr", "fast"], r"--lr: invalid float value: 'fast'"),
        (["run", "lenet-digits", "--learning-rate", "1"], r"unknown argument --learning-rate"),
        (["run", "lenet-digits", "--precision", "fp8"], r"--precision: invalid choice: 'fp8'"),
        (["run", "lenet-fashion-mnist", "--data", "/nowhere/at/all"], r"--data /nowhere/at/all: no such folder"),
        (["run", "mine.py:recipe"], r"mine.py: no such file"),
        (["run", "--resume", "/nowhere"], r"--resume /nowhere: no run there"),
        (["run", "lenet-digits", "--epochs", "1", "--steps", "-3"], r"steps=-3: expected at least 1"),
        (["range-test", "lenet-digit"], r"no recipe 'lenet-digit' \(did you mean lenet-digits"),
        (["show", "--graph", "lenet-digits", "--out", "/nowhere/a.png"], r"--out /nowhere/a.png: no such folder"),
        (["range-test", "lenet-digits", "--steps", "3"], r"lenet-digits: steps=3: expected at least 10"),
        (["range-test", "lenet-digits", "--epoch", "3"], r"unknown argument --epoch \(did you mean --epochs"),
        (["range-test", "lenet-digits", "--steps", "10", "--out", "/nowhere/a.png"], r"--out /nowhere/a.png: no such folder"),
        (["sweep"], r"sweep: the following arguments are required: recipe"),
        (["sweep", "lenet-digits", "--parallel", "shard"], r"unknown argument --parallel"),
        (["predict", "/nowhere", "x.png"], r"/nowhere: neither a run with a model nor a model folder"),
        (["show", "resnet-1800"], r"resnet-1800"),
        (
            ["show", "--receptive-field", "linear-regression-diabetes"],
            "Regression: expected a recipe whose model gives a map",
        ),
        (["show", "--anchors", "lenet-digits"], r"Classification: expected a recipe whose detector has anchors"),
        (["show"], r"show needs a SYSTEM, a RECIPE for one of --graph"),
    ],
)
def test_an_error_is_one_line_that_names_the_thing(words, error, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("thalweg: ")
    assert text.count("\n") == 1
    import re

    assert re.search(error, text), text


@pytest.mark.parametrize("words", [["run", "resnet-cifar10"], ["show", "--graph", "resnet-cifar10"]])
def test_missing_data_are_named(words, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("THALWEG_DATA", str(tmp_path))
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SystemExit):
        cli.main([*words, "--out", str(tmp_path / "run")])
    assert "resnet-cifar10: cifar-10-binary.tar.gz is neither in THALWEG_DATA" in capsys.readouterr().err


def test_a_private_recipe_runs_and_resumes(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "from thalweg.recipes.vision import lenet_digits\n\n"
        'def small(*, lr: float = 0.01):\n    """Mine."""\n    return lenet_digits(epochs=1, lr=lr)\n'
    )
    out = tmp_path / "run"
    cli.main(["run", f"{tmp_path / 'mine.py'}:small", "--lr", "0.02", "--out", str(out), "--steps", "3"])
    assert "test accuracy" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["run", f"{tmp_path / 'mine.py'}:small", "--out", str(out)])
    assert "holds a run already" in capsys.readouterr().err
    cli.main(["run", "--resume", str(out)])
    assert "test accuracy" in capsys.readouterr().out


def test_an_argument_that_is_a_flag_of_the_command_is_named(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("def small(*, steps: int = 3):\n    return None\n")
    with pytest.raises(SystemExit):
        cli.main(["run", f"{tmp_path / 'mine.py'}:small", "--steps", "2"])
    assert "its arguments ['steps'] are flags of the command" in capsys.readouterr().err


def test_who_resumes_a_run_can_change_its_rate_which_the_run_remembers(tmp_path, capsys):
    out = str(tmp_path / "run")
    cli.main(["run", "lenet-digits", "--out", out, "--steps", "4", "--checkpoint-every", "2"])
    (tmp_path / "run" / "checkpoints" / "step-00000004.safetensors").unlink()
    cli.main(["run", "--resume", out, "--lr-scale", "0.5"])
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["lr_scales"] == [[2, 0.5]]
    assert [checkpoint.read(tmp_path / "run" / "checkpoints")["training"][name] for name in ("number", "lr_scale")] == [4, 0.5]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["run", "--resume", out, "--lr-scale", "0"])
    assert "--lr-scale 0.0: expected a number above 0" in capsys.readouterr().err


@pytest.fixture
def model_folder(tmp_path):
    model = adapt(build(lenet, image_size=8), standardize, mean=[0.5], deviation=[0.3], size=[8, 8])
    save(build(Classification, model=model, classes=["ant", "bee", *map(str, range(8))]), tmp_path / "model")
    return tmp_path / "model"


def test_predict_names_the_best_labels_of_an_image(model_folder, tmp_path, capsys):
    Image.new("RGB", (20, 30), "red").save(tmp_path / "a.png")
    cli.main(["predict", str(model_folder), str(tmp_path / "a.png"), "--top-k", "2"])
    words = capsys.readouterr().out.split()
    assert words[0] == f"{tmp_path / 'a.png'}:"
    assert len(words) == 1 + 2 * 2
    assert float(words[2]) >= float(words[4])


def test_predict_refuses_what_is_no_image_in_one_line(model_folder, tmp_path, capsys):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(SystemExit):
        cli.main(["predict", str(model_folder), str(tmp_path / "a.png")])
    assert "a.png" in capsys.readouterr().err


def test_predict_tells_pixels_in_the_forms_that_others_read(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    plain = build(unet, num_classes=3, width=4, num_stages=2)
    model = adapt(plain, standardize, mean=[0.5] * 3, deviation=[0.3] * 3, size=[16, 16])
    tasks = {"pixels": build(Segmentation, model=model, classes=["a", "b", "c"]),
             "restorer": build(Restoration, model=build(DnCNN, num_layers=2, width=4))}  # fmt: skip
    Image.new("RGB", (20, 30), "red").save("a.png")
    for name, key in (("pixels", "segmentation"), ("restorer", "image")):
        save(tasks[name], tmp_path / name)
        cli.main(["predict", name, "a.png", "--json"])
        told = json.loads(capsys.readouterr().out)
        expected = tasks[name].eval().predict({"image": read_image("a.png")[None]})[key][0]
        written = torch.from_numpy(numpy.array(Image.open(io.BytesIO(base64.b64decode(told[key][0])))))
        assert torch.equal(written.movedim(-1, 0) if written.ndim == 3 else written, expected.byte())
    assert not list(tmp_path.glob("*predicted*"))


def test_predict_writes_what_a_competition_takes(model_folder, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for number, extent in enumerate([(20, 30), (20, 30), (9, 9), (20, 30)]):
        Image.new("RGB", extent, (60 * number, 90, 120)).save(images / f"{number + 8}.png")
    (images / "12.png").write_text("no image")
    out, task = tmp_path / "answers.csv", load(model_folder).eval()
    expected = [task.predict({"image": read_image(images / f"{number}.png")[None]}, top_k=10) for number in range(8, 12)]
    cli.main(["predict", str(model_folder), str(images), "--csv", str(out)])
    assert capsys.readouterr().out == (f"{out}: 4 images; 1 files left out: 12.png (not an image of a known format)\n")
    assert out.read_text().splitlines() == ["id,label", *(f"{n + 8},{told['label'][0][0]}" for n, told in enumerate(expected))]
    cli.main(["predict", str(model_folder), str(images), "--csv", str(out), "--probabilities"])
    header, *rows = csv.reader(out.read_text().splitlines())
    assert header == ["id", *task.classes]
    assert [row[0] for row in rows] == ["8", "9", "10", "11"]
    for row, told in zip(rows, expected, strict=True):
        chances = dict(zip(told["label"][0], told["probability"][0].tolist(), strict=True))
        assert [float(value) for value in row[1:]] == pytest.approx([chances[name] for name in header[1:]], abs=1e-6)


def test_probabilities_need_a_csv(model_folder, capsys):
    with pytest.raises(SystemExit):
        cli.main(["predict", str(model_folder), "a.png", "--probabilities"])
    assert capsys.readouterr().err == "thalweg: --probabilities: expected --csv FILE too\n"


def test_a_csv_needs_a_folder(model_folder, tmp_path, capsys):
    (tmp_path / "none").mkdir()
    wrong = {"a.png": "expected one folder of images, given a.png", str(tmp_path / "none"): "no image in it"}
    for given, words in wrong.items():
        with pytest.raises(SystemExit):
            cli.main(["predict", str(model_folder), given, "--csv", "x.csv"])
        assert words in capsys.readouterr().err


def test_a_csv_of_what_names_no_images_is_refused_in_one_line(tmp_path, capsys):
    tasks = {"ClipClassification": clip_motions(clips=50).task,
             "Restoration": build(Restoration, model=build(DnCNN, num_layers=2, width=4))}  # fmt: skip
    Image.new("RGB", (20, 30)).save(tmp_path / "a.png")
    for name, task in tasks.items():
        save(task, tmp_path / name)
        with pytest.raises(SystemExit):
            cli.main(["predict", str(tmp_path / name), str(tmp_path), "--csv", "x.csv"])
        expected = f"thalweg: csv=x.csv: {name} names no images, expected a classifier or tagger of images\n"
        assert capsys.readouterr().err == expected


def test_a_csv_comes_of_a_network_that_learned_from_features_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    encoder = adapt(build(lenet, image_size=8), without_head)
    model = adapt(encoder, probe, feature_dim=256, num_classes=2)
    seeing = adapt(model, standardize, mean=[0.5], deviation=[0.3], size=[8, 8])
    save(build(OnFeatures, model=seeing, classes=["a", "b"]), tmp_path / "model")
    Image.new("RGB", (20, 30)).save("1.png")
    cli.main(["predict", "model", ".", "--csv", "x.csv"])
    assert capsys.readouterr().out == "x.csv: 1 images\n"


def test_two_runs_of_a_seed_are_the_same_and_of_another_are_not(tmp_path):
    def weights(seed, name):
        cli.main(["run", "lenet-digits", "--steps", "3", "--seed", str(seed), "--out", str(tmp_path / name)])
        from safetensors.torch import load_file

        return load_file(tmp_path / name / "model" / "model.safetensors")

    first, second, other = weights(1, "a"), weights(1, "b"), weights(2, "c")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)

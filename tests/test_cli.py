"""The command: help without torch, one-line errors that name the thing, prediction."""

import subprocess
import sys
import time

import pytest
import torch
from PIL import Image

from thalweg import cli
from thalweg.build import adapt, build, save
from thalweg.layers.standardize import standardize
from thalweg.models.vision.lenet import lenet
from thalweg.tasks.classification import Classification


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
        (["show"], r"show needs a SYSTEM, --graph, --variance or --anchors RECIPE"),
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


def test_missing_data_are_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("THALWEG_DATA", str(tmp_path))
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SystemExit):
        cli.main(["run", "resnet-cifar10", "--out", str(tmp_path / "run")])
    assert "cifar-10-binary.tar.gz is neither in THALWEG_DATA" in capsys.readouterr().err


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


def test_two_runs_of_a_seed_are_the_same_and_of_another_are_not(tmp_path):
    def weights(seed, name):
        cli.main(["run", "lenet-digits", "--steps", "3", "--seed", str(seed), "--out", str(tmp_path / name)])
        from safetensors.torch import load_file

        return load_file(tmp_path / name / "model" / "model.safetensors")

    first, second, other = weights(1, "a"), weights(1, "b"), weights(2, "c")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)

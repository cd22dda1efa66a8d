"""A folder is enough to make a module again, and cannot name code that is not ours."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from thalweg.build import adapt, build, load, save
from thalweg.layers.standardize import standardize
from thalweg.models.classical.mlp import mlp
from thalweg.models.vision.lenet import lenet
from thalweg.models.vision.resnet import resnet9
from thalweg.tasks.classification import Classification
from thalweg.weights import CorruptFile, write_tensors


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_module_remembers_what_made_and_changed_it():
    model = build(lenet, image_size=8, channels=(2, 3))
    assert model.history == [["thalweg.models.vision.lenet:lenet", {"image_size": 8, "channels": [2, 3]}]]
    model = adapt(model, standardize, mean=[0.5], deviation=[0.5], size=(8, 8))
    assert model.history[1:] == [
        ["thalweg.layers.standardize:standardize", {"mean": [0.5], "deviation": [0.5], "size": [8, 8]}]
    ]


def test_a_task_comes_back_whole_from_its_folder(tmp_path):
    model = adapt(build(lenet, image_size=8), standardize, mean=[0.5], deviation=[0.5], size=[8, 8])
    task = build(Classification, model=model, classes=["一", "two", "three", *map(str, range(7))])
    image = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    task.train()
    task.loss({"image": image, "label": torch.arange(4)})  # moves the running statistics
    save(task, tmp_path)
    loaded = load(tmp_path)
    assert not loaded.training
    assert equal(loaded.state_dict(), task.state_dict())
    assert loaded.history == task.history
    before, after = task.eval().predict({"image": image}), loaded.predict({"image": image})
    assert before["label"] == after["label"]
    assert torch.equal(before["probability"], after["probability"])


def test_a_loaded_module_can_be_adapted_saved_and_loaded_again(tmp_path):
    save(build(lenet, image_size=8), tmp_path / "one")
    model = adapt(load(tmp_path / "one"), standardize, mean=[0.5], deviation=[0.5], size=[8, 8])
    save(model, tmp_path / "two")
    assert equal(load(tmp_path / "two").state_dict(), model.state_dict())
    assert len(load(tmp_path / "two").history) == 2


def tied(width: int) -> nn.Module:
    model = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
    model[2].weight = model[0].weight
    return model


def frozen(model: nn.Module) -> nn.Module:
    model[0].requires_grad_(False)
    return model


OURS = (f"{__name__}.",)


def test_parameters_that_were_one_are_one_again(tmp_path):
    save(build(tied, width=3), tmp_path)
    loaded = load(tmp_path, trusted=OURS)
    assert loaded[2].weight is loaded[0].weight
    assert len(list(loaded.parameters())) == 3


def test_what_was_frozen_and_what_was_half_stays_so(tmp_path):
    model = adapt(build(tied, width=3), frozen).bfloat16()
    save(model, tmp_path)
    loaded = load(tmp_path, trusted=OURS)
    assert {name: p.requires_grad for name, p in loaded.named_parameters()} == {
        "0.weight": False,
        "0.bias": False,
        "2.bias": True,
    }
    assert loaded[0].weight.dtype == torch.bfloat16


def test_the_state_of_other_tensors_can_be_written(tmp_path):
    model = build(mlp, in_features=2, out_features=2)
    save(model, tmp_path, {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()})
    assert load(tmp_path).head.weight.count_nonzero() == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"image_size": torch.tensor(3)},
            r"thalweg.models.vision.lenet:lenet\(image_size=tensor\(3\)\): expected a plain JSON value",
        ),
        ({"image_size": nn.Linear(1, 1)}, r"\(image_size=...\): Linear was not made by build"),
        ({"image_size": {1, 2}}, "expected a plain JSON value or a built module"),
    ],
)
def test_what_cannot_be_written_down_is_refused_by_name(arguments, words):
    with pytest.raises(ValueError, match=words):
        build(lenet, **arguments)


def test_a_module_that_was_not_built_can_neither_be_adapted_nor_saved(tmp_path):
    with pytest.raises(ValueError, match="Linear was not made by build"):
        adapt(nn.Linear(1, 1), standardize, mean=[0.0], deviation=[1.0], size=[1, 1])
    with pytest.raises(ValueError, match="Linear was not made by build"):
        save(nn.Linear(1, 1), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "torch.nn:Linear",
        "thalweg:__main__",
        "thalweg.build:load",
        "thalweg.modelsx.evil:run",
        "thalweg.models.vision.resnet:nn",  # reached through a module of ours, but not ours
        "thalweg.models.vision.resnet:relu",
        "thalweg.models.vision.lenet:torch.hub.load",
        "thalweg.models.vision.lenet:SEEN",
        "thalweg.models.vision.lenet:",
        "thalweg.models.vision.lenet",
        "",
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_a_folder_cannot_name_code_outside_the_trusted_packages(name, inside, tmp_path):
    history = [[name, {}]]
    if inside:
        history = [["thalweg.tasks.classification:Classification", {"model": {"history": history}, "classes": ["a"]}]]
    (tmp_path / "config.json").write_text(json.dumps({"history": history}))
    write_tensors(tmp_path / "model.safetensors", {}, history)
    with pytest.raises(ValueError, match=f"the folder names {name}, which is"):
        load(tmp_path)


def test_a_folder_without_a_model_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no model: config.json is missing"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(FileNotFoundError, match=r"config.json has no history: a public checkpoint is read by .*pretrained"):
        load(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "\udcff".encode("utf8", "surrogateescape")])
def test_a_damaged_config_is_named(text, tmp_path):
    save(build(mlp, in_features=2, out_features=2), tmp_path)
    (tmp_path / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CorruptFile, match=f"{tmp_path}/config.json is damaged"):
        load(tmp_path)


def test_every_flipped_bit_of_a_config_is_refused_or_changes_nothing(tmp_path):
    save(build(mlp, in_features=2, out_features=2, dropout=0.25), tmp_path)
    path = tmp_path / "config.json"
    content, state = path.read_bytes(), load(tmp_path).state_dict()
    for place in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        with open(path, "r+b") as file:
            file.write(flipped)
        try:
            loaded = load(tmp_path)
        except (CorruptFile, FileNotFoundError):
            continue
        assert loaded.blocks[0][2].p == 0.25
        assert equal(loaded.state_dict(), state)


def test_files_of_different_saves_are_refused(tmp_path):
    save(build(mlp, in_features=2, out_features=2, dropout=0.1), tmp_path / "a")
    save(build(mlp, in_features=2, out_features=2, dropout=0.2), tmp_path / "b")
    (tmp_path / "a" / "config.json").replace(tmp_path / "b" / "config.json")
    with pytest.raises(CorruptFile, match=r"it is not of the same save as model.safetensors"):
        load(tmp_path / "b")


def test_a_save_that_fails_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    model = build(mlp, in_features=2, out_features=2)
    save(model, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(model, tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_loading_imports_no_compiler(tmp_path):
    """Initialisation on the meta device would import torch._dynamo, which takes longer than everything else together."""
    save(build(resnet9, width=4, num_classes=2), tmp_path)
    code = f"import sys; from thalweg.build import load; load({str(tmp_path)!r}); sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tensors_of_another_version_of_a_model_are_refused_by_name(tmp_path):
    model = build(lenet, channels=(2, 3), hidden_dim=4)
    state = model.state_dict()
    name = next(iter(state))
    save(model, tmp_path, state | {name: torch.zeros(1)})
    with pytest.raises(CorruptFile, match=f"{tmp_path}: the tensors are not those .* builds: size mismatch for {name}"):
        load(tmp_path)

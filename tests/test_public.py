"""Public folders in every form they come in, and what is said when one does not fit."""

import importlib.util
import json
import sys
import types

import pytest
import torch
from safetensors.torch import load_file, save_file

from thalweg.build import adapt, build, load, save
from thalweg.layers.standardize import standardize
from thalweg.models.classical.mlp import mlp
from thalweg.models.vision.resnet import ResNet, resnet18, resnet34
from thalweg.models.vision.vit import PUBLIC, ViT, vit_tiny_16
from thalweg.public import classes, export, fetch, preprocessing, pretrained, read_public
from thalweg.weights import CorruptFile, to_public

SMALL = {"embed_dim": 12, "num_layers": 2, "num_heads": 3, "image_size": 8, "patch_size": 4, "num_classes": 3}
SEEN = {"mean": [0.5, 0.4, 0.3], "deviation": [0.1, 0.2, 0.3], "size": [8, 8]}
NAMES = ["cat", "dog", "鸟"]


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def vit():
    return build(ViT, **SMALL)


@pytest.fixture(params=["timm", "transformers"])
def folder(request, vit, tmp_path):
    export(vit, tmp_path / request.param, request.param, classes=NAMES, **SEEN)
    return tmp_path / request.param


def change(folder, **entries):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | entries))


def test_an_exported_folder_says_all_that_is_needed(folder, vit):
    model = pretrained(ViT, folder)
    assert equal(model.state_dict(), vit.state_dict())
    assert not model.training
    assert classes(folder) == NAMES
    assert preprocessing(folder) == SEEN


def test_a_pretrained_model_is_saved_and_loaded_as_any_other(folder, tmp_path):
    model = adapt(pretrained(ViT, folder), standardize, **preprocessing(folder))
    save(model, tmp_path / "ours")
    image = torch.rand(2, 3, 8, 8)
    assert torch.equal(load(tmp_path / "ours")(image), model(image))


@pytest.mark.parametrize("form", ["safetensors", "bin", "safetensors shards", "bin shards"])
def test_weights_are_found_in_every_form(form, folder, vit):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    stem, suffix, write = ("model", "safetensors", save_file) if "safe" in form else ("pytorch_model", "bin", torch.save)
    if "shards" in form:
        shards = {f"{stem}-0000{i}-of-00002.{suffix}": dict(list(tensors.items())[i - 1 :: 2]) for i in (1, 2)}
        for name, held in shards.items():
            write(held, folder / name)
        index = {"weight_map": {key: name for name, held in shards.items() for key in held}}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
    else:
        write(tensors, folder / f"{stem}.{suffix}")
    assert equal(pretrained(ViT, folder).state_dict(), vit.state_dict())


def test_a_single_file_needs_the_arguments_and_no_config(folder, vit):
    torch.save(load_file(folder / "model.safetensors"), folder / "weights.pth")
    assert equal(pretrained(ViT, folder / "weights.pth", **SMALL).state_dict(), vit.state_dict())
    assert classes(folder / "weights.pth") == []


def test_weights_in_half_precision_become_the_models(folder, vit):
    halves = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(halves, folder / "model.safetensors")
    expected = {name: tensor.bfloat16().float() for name, tensor in vit.state_dict().items()}
    assert equal(pretrained(ViT, folder).state_dict(), expected)


def test_other_classes_get_a_fresh_head_and_a_warning(folder, vit):
    with pytest.warns(UserWarning, match="its head is not for 7 classes, so a fresh one is made"):
        model = pretrained(ViT, folder, num_classes=7)
    assert model(torch.rand(1, 3, 8, 8)).shape == (1, 7)
    kept = {name: tensor for name, tensor in vit.state_dict().items() if not name.startswith("head.")}
    assert equal({name: tensor for name, tensor in model.state_dict().items() if name in kept}, kept)
    assert model.history[0][1]["num_classes"] == 7


@pytest.mark.filterwarnings("error")
def test_the_same_number_of_classes_keeps_the_head(folder, vit):
    assert equal(pretrained(ViT, folder, num_classes=3).state_dict(), vit.state_dict())


def test_arguments_that_change_no_tensor_are_taken(folder):
    assert pretrained(ViT, folder, dropout=0.3).blocks[0].dropout.p == 0.3


def test_a_checkpoint_without_a_head_fits_where_a_fresh_one_is_asked_for(vit, tmp_path):
    export(vit, tmp_path, "transformers")
    tensors = to_public({n: t for n, t in vit.state_dict().items() if "head" not in n}, PUBLIC["transformers-bare"].table)
    save_file({**tensors, "pooler.dense.weight": torch.zeros(12, 12), "pooler.dense.bias": torch.zeros(12)},
              tmp_path / "model.safetensors")  # fmt: skip
    with pytest.warns(UserWarning, match="a fresh one is made"):
        model = pretrained(ViT, tmp_path, num_classes=5)
    assert torch.equal(model.position, vit.position)
    with pytest.raises(ValueError, match=r"classifier.weight"):
        pretrained(ViT, tmp_path)


def test_a_sized_builder_takes_only_its_own_size(tmp_path):
    export(build(resnet18, num_classes=2), tmp_path, "transformers")
    assert pretrained(resnet18, tmp_path).history == [["thalweg.models.vision.resnet:resnet18", {"num_classes": 2}]]
    with pytest.raises(ValueError, match=r"resnet34 is not the model of .*, which needs depths=\[2, 2, 2, 2\]"):
        pretrained(resnet34, tmp_path)
    with pytest.raises(ValueError, match="unexpected keyword argument 'num_clases'"):
        pretrained(resnet18, tmp_path, num_clases=3)


def test_another_number_of_heads_is_seen_though_every_tensor_fits(tmp_path):
    export(build(ViT, embed_dim=192, num_layers=12, num_heads=4, image_size=32), tmp_path, "transformers")
    with pytest.raises(ValueError, match=r"vit_tiny_16 is not the model of .*num_heads=4"):
        pretrained(vit_tiny_16, tmp_path)


@pytest.mark.parametrize(
    ("layout", "entries", "words"),
    [
        ("timm", {"architecture": "vit_base_patch16_clip_224"}, "architecture='vit_base_patch16_clip_224': expected vit_SIZE"),
        ("timm", {"architecture": None}, "architecture=None: expected vit_SIZE"),
        ("timm", {"model_args": {"qk_norm": True}}, "qk_norm=True: not understood"),
        ("timm", {"global_pool": "avg"}, r"fc_norm=True \(expected False\), class_token=True"),
        ("timm", {"model_args": {"img_size": [8, 4]}}, r"img_size=\[8, 4\]: expected a square"),
        ("transformers", {"hidden_act": "gelu_new"}, r"hidden_act='gelu_new' \(expected 'gelu'\)"),
        ("transformers", {"intermediate_size": 13}, r"intermediate_size=13 \(expected 48\)"),
        ("transformers", {"layer_scale": 1.0}, "layer_scale=1.0: not understood"),
        ("transformers", {"model_type": "deit"}, r"model_type='deit' \(expected 'vit'\)"),
    ],
)
def test_what_a_config_says_beyond_our_understanding_is_refused(layout, entries, words, vit, tmp_path):
    export(vit, tmp_path, layout)
    change(tmp_path, **entries)
    with pytest.raises(ValueError, match=words):
        pretrained(ViT, tmp_path)


@pytest.mark.parametrize(
    ("layout", "entries", "words"),
    [
        ("timm", {"architecture": "resnet18d"}, "architecture='resnet18d': expected one of resnet18, resnet34, resnet50"),
        ("timm", {"model_args": {"stem_type": "deep"}}, "stem_type='deep': not understood"),
        ("transformers", {"hidden_sizes": [8, 12]}, r"hidden_sizes=\[8, 12\]: expected \[8, 16\]"),
        ("transformers", {"downsample_in_bottleneck": True}, r"downsample_in_bottleneck=True \(expected False\)"),
    ],
)
def test_residual_networks_that_we_do_not_have_are_refused(layout, entries, words, tmp_path):
    width = 64 if layout == "timm" else 8
    export(build(ResNet, depths=[1, 1], width=width, num_classes=2), tmp_path, layout)
    change(tmp_path, **entries)
    with pytest.raises(ValueError, match=words):
        pretrained(ResNet, tmp_path)


def test_a_config_that_lacks_an_entry_is_refused_by_its_name(vit, tmp_path):
    export(vit, tmp_path, "transformers")
    config = json.loads((tmp_path / "config.json").read_text())
    del config["num_hidden_layers"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config.json does not say 'num_hidden_layers'"):
        pretrained(ViT, tmp_path)


@pytest.mark.parametrize(
    ("model", "layout", "words"),
    [
        (lambda: build(ResNet, depths=[1], stem="small", num_classes=2), "timm", "stem: of 3x3 filters"),
        (lambda: build(ResNet, depths=[1], width=8, num_classes=2), "timm", "width=8: timm's ResNets have 64"),
        (lambda: build(ViT, **SMALL, eps=1e-12), "timm", "eps=1e-12"),
        (lambda: build(ViT, **SMALL, pool="mean"), "transformers", "pool='mean'"),
        (lambda: build(ViT, **SMALL), "keras", "layout='keras': expected one of timm, transformers"),
        (lambda: build(mlp, in_features=2, out_features=2), "timm", "has no PUBLIC table"),
    ],
)
def test_what_a_layout_cannot_say_is_not_exported(model, layout, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        export(model(), tmp_path / "out", layout)
    assert not (tmp_path / "out").exists()


def test_names_must_be_as_many_as_the_logits(vit, tmp_path):
    with pytest.raises(ValueError, match="classes: 2 names, the model tells 3 apart"):
        export(vit, tmp_path, "timm", classes=["a", "b"])


def test_a_model_without_a_public_form_says_so(folder):
    with pytest.raises(ValueError, match=r"mlp: thalweg.models.classical.mlp has no PUBLIC table"):
        pretrained(mlp, folder)


class Dangerous:
    def __reduce__(self):
        return print, ("a pickle ran code",)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"garbage" * 50], ids=["empty", "brace", "garbage"])
def test_a_damaged_file_is_named(name, content, folder):
    if name.startswith("pytorch") or name.endswith("index.json"):
        (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(CorruptFile, match=f"{name} is damaged"):
        pretrained(ViT, folder)


def test_a_truncated_checkpoint_is_named(folder):
    for name, write in (("model.safetensors", save_file), ("pytorch_model.bin", torch.save)):
        write(load_file(folder / "model.safetensors"), folder / name)
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(CorruptFile, match=f"{name} is damaged"):
            read_public(folder / name)
        (folder / name).write_bytes(content)


def test_a_pickle_that_holds_code_is_not_run(folder, capsys):
    torch.save({"a": Dangerous()}, folder / "pytorch_model.bin")
    with pytest.raises(CorruptFile, match=r"pytorch_model.bin is damaged or holds more than tensors"):
        read_public(folder / "pytorch_model.bin")
    assert capsys.readouterr().out == ""
    torch.save({"model": {"a": torch.zeros(1)}}, folder / "pytorch_model.bin")
    with pytest.raises(CorruptFile, match="holds something else than named tensors"):
        read_public(folder / "pytorch_model.bin")


def test_a_missing_shard_is_named_and_none_outside_the_folder_is_read(folder):
    index = folder / "model.safetensors.index.json"
    (folder / "model.safetensors").unlink()
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    with pytest.raises(FileNotFoundError, match=r"model-1.safetensors is missing"):
        read_public(folder)
    index.write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))
    with pytest.raises(CorruptFile, match=r"names files outside its folder: \['../../secret.safetensors'\]"):
        read_public(folder)


def test_a_folder_without_weights_lists_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no weights: expected one of model.safetensors, .*pytorch_model.bin"):
        read_public(tmp_path)


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({"size": 224}, [224, 224]),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, [224, 224]),
        ({"size": 256, "do_center_crop": True, "crop_size": 224}, [224, 224]),
        ({"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 8, "width": 6}}, [8, 6]),
        ({"size": 256, "do_center_crop": False, "crop_size": 224}, [256, 256]),
        ({"size": {"height": 8, "width": 6}, "rescale_factor": 0.00392156862745098}, [8, 6]),
    ],
)
def test_every_way_to_say_the_size_of_images_is_read(processor, expected, tmp_path):
    moments = {"image_mean": [0.1] * 3, "image_std": [0.2] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**processor, **moments}))
    assert preprocessing(tmp_path) == {"mean": [0.1] * 3, "deviation": [0.2] * 3, "size": expected}


@pytest.mark.parametrize(
    "processor", [None, {}, {"size": 8}, {"size": 8, "image_mean": [0], "image_std": [1], "do_rescale": False}]
)
def test_images_that_are_not_described_are_refused(processor, tmp_path):
    if processor is not None:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    with pytest.raises(ValueError, match=r"does not say what images|expected images that are divided by 255"):
        preprocessing(tmp_path)


def test_synsets_are_described_where_the_checkpoint_describes_them(tmp_path):
    config = {"label_names": ["n01440764", "n02"], "label_descriptions": {"n01440764": "tench"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert classes(tmp_path) == ["tench", "n02"]
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"10": "c", "9": "b", "0": "a"}}))
    assert classes(tmp_path) == ["a", "b", "c"]


def test_a_name_that_is_neither_a_folder_nor_an_id_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nowhere/at/all: neither a folder or file here nor an id"):
        fetch("nowhere/at/all")


@pytest.mark.skipif(importlib.util.find_spec("huggingface_hub") is not None, reason="huggingface_hub is installed")
def test_an_id_without_the_hub_package_says_what_to_install():
    with pytest.raises(ModuleNotFoundError, match=r"someone/model: no such folder here, .* pip install thalweg\[hub\]"):
        pretrained(ViT, "someone/model")


def hub(monkeypatch, download):
    package = types.ModuleType("huggingface_hub")
    package.snapshot_download = download
    monkeypatch.setitem(sys.modules, "huggingface_hub", package)


def test_an_id_is_downloaded_pickles_only_where_there_is_nothing_else(monkeypatch, folder, vit):
    asked = []

    def download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(folder)

    hub(monkeypatch, download)
    assert equal(pretrained(ViT, "someone/vit").state_dict(), vit.state_dict())
    assert asked == [("someone/vit", ["*.json", "*.safetensors", "merges.txt", "*.jinja"])]
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert equal(pretrained(ViT, "someone/vit").state_dict(), vit.state_dict())
    assert asked[2] == ("someone/vit", ["*.json", "pytorch_model*.bin", "merges.txt"])


def test_a_hub_that_does_not_answer_is_one_clear_error(monkeypatch):
    def download(name, allow_patterns):
        raise OSError("no network")

    hub(monkeypatch, download)
    with pytest.raises(ValueError, match="someone/model: no such folder here, and the hub does not give it: no network"):
        fetch("someone/model")

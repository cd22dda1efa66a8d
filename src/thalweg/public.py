"""Public checkpoints to ours and back: folders of timm and transformers and GGUF files, by the PUBLIC tables of our families.

    model = pretrained(resnet18, "timm/resnet18.a1_in1k")                        a folder, a file or a hub id
    model = adapt(model, standardize, **preprocessing("timm/resnet18.a1_in1k"))  what it was trained to see
    export(model, folder, "transformers")

Nothing is guessed: what a config.json says beyond our understanding, and every tensor that does not fit, is an error.
"""

import importlib
import json
import pickle
import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.build import build, unallocated
from thalweg.gguf import GGUF
from thalweg.weights import (
    Config,
    CorruptFile,
    Layout,
    Table,
    Tensors,
    from_public,
    patterns,
    public_names,
    read_safetensors,
    to_public,
    translate,
    write_tensors,
    write_whole,
)

FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def fetch(source: str | Path) -> Path:
    """The folder or file of that name or, where there is none, the downloaded folder of that id on the Hugging Face hub.

    ValueError if there is neither; ModuleNotFoundError if a download needs huggingface_hub.
    """
    if Path(source).exists():
        return Path(source)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        raise ValueError(f"{source}: neither a folder or file here nor an id like timm/resnet18.a1_in1k")
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{source}: no such folder here, and the hub needs: pip install thalweg[hub]") from error
    try:
        folder = Path(snapshot_download(str(source), allow_patterns=["*.json", "*.safetensors", "merges.txt", "*.jinja"]))
        if not list(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(str(source), allow_patterns=["*.json", "pytorch_model*.bin", "merges.txt"]))
    except (OSError, ValueError) as error:
        raise ValueError(f"{source}: no such folder here, and the hub does not give it: {error}") from error
    return folder


def read_public(path: Path) -> Tensors:
    """The tensors of a folder (safetensors before pytorch_model.bin, whole or in shards) or of one file.

    FileNotFoundError if one is missing; CorruptFile, naming it, if one is damaged or holds anything but tensors.
    """
    if path.is_dir():
        found = [path / name for name in FILES if (path / name).exists()]
        if not found:
            raise FileNotFoundError(f"{path} holds no weights: expected one of {', '.join(FILES)}")
        return read_public(found[0])
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing")
    if path.suffix == ".gguf":
        return GGUF(path).public()
    if path.suffix == ".json":
        shards = sorted(set(_json(path)["weight_map"].values()))
        if outside := [shard for shard in shards if Path(shard).name != shard]:
            raise CorruptFile(f"{path} names files outside its folder: {outside}")
        return {name: tensor for shard in shards for name, tensor in read_public(path.with_name(shard)).items()}
    if path.suffix == ".safetensors":
        return read_safetensors(path)[0]
    with open(path, "rb") as file:
        try:
            held = torch.load(file, map_location="cpu", weights_only=True)
        except (RuntimeError, ValueError, KeyError, EOFError, OSError, pickle.UnpicklingError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CorruptFile(f"{path} is damaged or holds more than tensors: {reason}") from error
    if not isinstance(held, dict) or not all(isinstance(value, Tensor) for value in held.values()):
        raise CorruptFile(f"{path} holds something else than named tensors")
    return dict(held)


def _json(path: Path) -> Config:
    try:
        return json.loads(path.read_text(encoding="utf8"))
    except ValueError as error:
        raise CorruptFile(f"{path} is damaged: {error}") from error


def configuration(path: Path) -> Config:
    """The config.json of a folder, or what a GGUF file says of itself in its words; empty if there is none."""
    if path.suffix == ".gguf":
        return GGUF(path).config()
    return _json(path / "config.json") if (path / "config.json").exists() else {}


def layouts(function: Callable[..., nn.Module]) -> dict[str, Layout]:
    """The PUBLIC layouts of the family that a builder or a class is of; ValueError if it has none."""
    found = getattr(importlib.import_module(function.__module__), "PUBLIC", None)
    if not found:
        raise ValueError(f"{function.__name__}: {function.__module__} has no PUBLIC table, so no public checkpoint fits it")
    return found


def pretrained(builder: Callable[..., nn.Module], source: str | Path, /, **arguments: Any) -> nn.Module:
    """The builder's model with the weights of a public folder, file or hub id, built as its config.json says.

    arguments: those of the builder that differ. Another num_classes gives a fresh head, and a warning.
    ValueError if config.json says what we do not understand or is of another model than the builder's, or if the tensors
    do not fit; CorruptFile if a file is damaged.
    """
    path = fetch(source)
    tensors = read_public(path)
    layout = _layout(builder, tensors)
    stated = {**_stated(builder, layout, path), **arguments}
    spare = getattr(importlib.import_module(builder.__module__), "SPARE", ())  # parts that not every checkpoint has
    missing = tuple(part for part in spare if not any(part in name for name in tensors))
    try:
        with nullcontext() if "num_classes" in arguments or missing else unallocated():  # else nothing is fresh
            model = build(builder, **stated)
    except TypeError as error:  # a sized builder gives its sizes itself and takes no others
        words = ", ".join(f"{key}={value!r}" for key, value in stated.items())
        raise ValueError(f"{builder.__name__} is not the model of {source}, which needs {words}: {error}") from error
    expected = model.state_dict()
    head = {name: public_names(layout.table, name)[0][0] for name in expected if name.startswith("head.")}
    if "num_classes" in arguments and any(p not in tensors or tensors[p].shape != expected[n].shape for n, p in head.items()):
        warnings.warn(f"{source}: its head is not for {arguments['num_classes']} classes, so a fresh one is made", stacklevel=2)
        for name, public in head.items():
            del expected[name]
            tensors.pop(public, None)
    if missing:
        warnings.warn(f"{source}: it has no {', '.join(missing)}, so a fresh one is made", stacklevel=2)
        expected = {name: value for name, value in expected.items() if not name.startswith(missing)}
    model.load_state_dict(from_public(tensors, layout.table, expected), strict=False, assign=True)
    return model.eval()


def _stated(builder: Callable[..., nn.Module], layout: Layout, path: Path) -> dict[str, Any]:
    """The arguments that config.json states, less those that the builder gives by itself."""
    config = configuration(path)
    try:
        stated = layout.arguments(config) if config else {}
    except KeyError as error:
        raise ValueError(f"{path / 'config.json'} does not say {error}") from error
    if isinstance(builder, type) or not stated:
        return stated
    with unallocated():
        usual = layout.arguments(layout.config(builder()))
    return {key: value for key, value in stated.items() if usual[key] != value}


def _layout(builder: Callable[..., nn.Module], tensors: Tensors) -> Layout:
    """The layout whose names these are."""
    return max(layouts(builder).values(), key=lambda layout: _matches(layout.table, tensors))


def _matches(table: Table, tensors: Tensors) -> int:
    known = [pattern for public in table for pattern in patterns(public)]
    return sum(any(translate(pattern, pattern, name) is not None for pattern in known) for name in tensors)


def preprocessing(source: str | Path, builder: Callable[..., nn.Module] | None = None) -> dict[str, list]:
    """mean, deviation and size of the images that a public checkpoint was trained to see, to hand to `standardize`.

    Read from timm's pretrained_cfg or from preprocessor_config.json; where neither says it, what weights of the builder's
    family usually saw. ValueError if there is no builder either.
    """
    path = fetch(source)
    processor = path / "preprocessor_config.json"
    try:
        if timm := configuration(path).get("pretrained_cfg"):
            return {"mean": list(timm["mean"]), "deviation": list(timm["std"]), "size": list(timm["input_size"][1:])}
        stated = _json(processor)
        if stated.get("do_rescale", True) is not True or abs(stated.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-6:
            raise ValueError(f"{processor}: expected images that are divided by 255")
        size = stated["crop_size"] if stated.get("do_center_crop") and "crop_size" in stated else stated["size"]
        size = size if isinstance(size, dict) else {"shortest_edge": size}
        height = size.get("height", size.get("shortest_edge"))
        return {"mean": stated["image_mean"], "deviation": stated["image_std"], "size": [height, size.get("width", height)]}
    except (KeyError, OSError) as error:
        if builder:
            return dict(_layout(builder, read_public(path)).seen)
        raise ValueError(f"{source} does not say what images its model was trained to see: {error}") from error


def classes(source: str | Path) -> list[str]:
    """The names of the classes of a public checkpoint, in the order of its logits; empty if it does not say them."""
    config = configuration(fetch(source))
    names = config.get("id2label") or config.get("label_names") or []
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=int)]
    return [config.get("label_descriptions", {}).get(name, name) for name in names]


def export(
    model: nn.Module,
    folder: Path,
    layout: str,
    *,
    classes: Sequence[str] = (),
    mean: Sequence[float] = (),
    deviation: Sequence[float] = (),
    size: Sequence[int] = (),
) -> None:
    """Writes a model of ours as a folder that timm or transformers loads: model.safetensors and config.json.

    layout: a name of PUBLIC of the model's file.   mean, deviation, size: of its images, see `standardize`.
    ValueError if the layout cannot say what the model is, or if classes are not as many as its logits.
    """
    known = layouts(type(model))
    if layout not in known:
        raise ValueError(f"layout={layout!r}: expected one of {', '.join(known)}")
    config, files = known[layout].config(model), {}
    count = config.get("num_classes", len(config.get("id2label", ())))
    if classes and len(classes) != count:
        raise ValueError(f"classes: {len(classes)} names, the model tells {count} apart")
    if classes and layout == "timm":
        config["label_names"] = [*classes]
    elif classes:
        config |= {"id2label": dict(enumerate(classes)), "label2id": {name: label for label, name in enumerate(classes)}}
    if mean and layout == "timm":
        config["pretrained_cfg"] |= {"mean": [*mean], "std": [*deviation], "input_size": [len(mean), *size],
                                     "crop_pct": 1.0, "interpolation": "bilinear"}  # fmt: skip
    elif mean:
        files["preprocessor_config.json"] = {
            "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": size[0], "width": size[1]},
            "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [*mean],
            "image_std": [*deviation]}  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", to_public(model.state_dict(), known[layout].table))
    for name, value in {**files, "config.json": config}.items():
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        write_whole(folder / name, partial(Path.write_text, data=text, encoding="utf8"))

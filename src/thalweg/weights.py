"""Tensors on disk: checked, never half written; and public names to ours and back by one table.

A file is safetensors with a SHA-256 of its content in the header; it appears whole or not at all.
A table has a line a tensor pattern, `public: ours`, and is read both ways:

    "layer{1}.{0}.conv1.*": "stages.{0}.{0}.layers.0.*"    {0} counts from zero, {1} from one, * is the rest of the name
    "wte.weight": ("embedding.weight", "transposed")       a change of layout
    "fc.weight": ("dense.0.weight", "7x7")                 another: a filter of the size of the map is a dense layer of ours
    ("q.*", "k.*", "v.*"): "qkv.*"                         several public tensors are one of ours, joined on axis 0
    "lm_head.weight": None                                 not imported

The file of a family ends with PUBLIC, its layouts by the name of the library; `thalweg.public` reads and writes them.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

Tensors = dict[str, Tensor]
Table = Mapping[str | tuple[str, ...], str | tuple[str, str] | None]
Config = dict[str, Any]

HARMLESS = {"_attn_implementation_autoset", "_name_or_path", "architectures", "dtype", "finetuning_task", "id2label",
            "initializer_range", "label2id", "label_descriptions", "label_names", "num_features", "pretrained_cfg",
            "problem_type", "torch_dtype", "transformers_version"}  # fmt: skip


class CorruptFile(ValueError):
    """A file is not what was once written."""


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Calls write(temporary path), then moves the finished file to `path`: a reader never sees a part of it.

    OSError of the file system; what stood at `path` before then stands there still.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def seal(tensors: Mapping[str, Tensor], state: str) -> dict[str, str]:
    """The header of a checked file: its SHA-256 is over the state and over name, type, shape and bytes of every tensor."""
    names = sorted(tensors)
    described = [[name, str(tensors[name].dtype), list(tensors[name].shape)] for name in names]
    sha = hashlib.sha256(json.dumps([state, described]).encode())
    for name in names:
        sha.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return {"format": "pt", "state": state, "sha256": sha.hexdigest()}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], state: Any = None) -> None:
    """Writes tensors, and a JSON value beside them, to one safetensors file that appears whole or not at all.

    Tensors that share memory are written apart. OSError with the system's number where the disk is full.
    """
    held: Tensors = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        held[name] = tensor.detach().cpu().contiguous()
        if (pointer := held[name].untyped_storage().data_ptr()) in taken:
            held[name] = held[name].clone()
        taken.add(pointer)
    header = seal(held, json.dumps(state))
    try:
        write_whole(path, lambda part: save_file(held, part, header))
    except SafetensorError as error:  # says what the system said, in words
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        raise


def read_safetensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Tensors and header of any safetensors file; CorruptFile, naming it, if it cannot be read as one."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise CorruptFile(f"{path} is damaged: {error}") from error


def read_tensors(path: Path) -> tuple[Tensors, Any]:
    """Tensors and state of a file of `write_tensors`; CorruptFile, naming it, if a single bit differs."""
    tensors, header = read_safetensors(path)
    if header != seal(tensors, header.get("state", "")):
        raise CorruptFile(f"{path} is damaged: its content does not match its SHA-256")
    # copies: in the mapped file they stand at odd addresses, where products can differ in the last bit
    return {name: tensor.clone() for name, tensor in tensors.items()}, json.loads(header["state"])


IMAGENET: dict[str, list] = {"mean": [0.485, 0.456, 0.406], "deviation": [0.229, 0.224, 0.225], "size": [224, 224]}


class Layout(NamedTuple):
    """How a library writes a family: tensor names; its config.json -> arguments of our class; our model -> config.json.

    seen: what images its weights were trained to see, where no file beside them says it.
    """

    table: Table
    arguments: Callable[[Config], dict[str, Any]]
    config: Callable[[Any], Config]
    seen: dict[str, list] = IMAGENET


def understood(config: Config, free: Sequence[str], **fixed: Any) -> None:
    """ValueError, naming each, for entries of a config.json that are neither free nor have the one value we know."""
    wrong = [f"{key}={value!r}" + (f" (expected {fixed[key]!r})" if key in fixed else "") for key, value in config.items()
             if key not in free and key not in HARMLESS and not (key in fixed and fixed[key] == value)]  # fmt: skip
    if wrong:
        raise ValueError(f"config.json says {', '.join(wrong)}: not understood")


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\{0\}", r"(\d+)").replace(r"\{1\}", r"(\d+)").replace(r"\*", "(.*)"))


def translate(pattern: str, into: str, name: str) -> str | None:
    """The name rewritten from one pattern into the other, or None if the pattern does not match it."""
    if not (match := _regex(pattern).fullmatch(name)):
        return None
    hole = re.compile(r"\{[01]\}|\*")
    held = [v if h == "*" else str(int(v) - int(h[1])) for h, v in zip(hole.findall(pattern), match.groups(), strict=True)]
    return hole.sub(lambda h: held.pop(0) if h[0] == "*" else str(int(held.pop(0)) + int(h[0][1])), into)


def public_names(table: Table, name: str) -> tuple[list[str], str]:
    """The public tensors that one of ours is made of, and the change of layout or ""; ValueError if no line names it."""
    for public, line in table.items():
        ours, change = line if isinstance(line, tuple) else (line, "")
        if ours is not None and translate(ours, ours, name) is not None:
            return [str(translate(ours, p, name)) for p in patterns(public)], change
    raise ValueError(f"{name}: no line of the table names it, so it has no public form")


def patterns(public: str | tuple[str, ...]) -> tuple[str, ...]:
    return public if isinstance(public, tuple) else (public,)


def _pieces(tensor: Tensor, count: int, change: str) -> Sequence[Tensor]:
    whole = tensor
    if change == "transposed":
        whole = tensor.T
    elif change:
        whole = tensor.unflatten(1, (-1, *map(int, change.split("x"))))
    return whole.chunk(count) if count > 1 else (whole,)


def to_public(tensors: Mapping[str, Tensor], table: Table) -> Tensors:
    """Our tensors under public names: the inverse of `from_public`."""
    result: Tensors = {}
    for name, tensor in tensors.items():
        public, change = public_names(table, name)
        result.update(zip(public, _pieces(tensor, len(public), change), strict=True))
    return result


def from_public(tensors: Mapping[str, Tensor], table: Table, expected: Mapping[str, Tensor]) -> Tensors:
    """Public tensors under our names and in our types; ValueError, listing all, for missing, unknown and misshapen ones.

    Old checkpoints lack the batch counters of batch normalisation, which nothing reads: they are zero then.
    """
    result: Tensors = {}
    used, missing, misshapen = set(), [], []
    for name, like in expected.items():
        public, change = public_names(table, name)
        if name.endswith("num_batches_tracked") and public[0] not in tensors:
            result[name] = torch.zeros(like.shape, dtype=like.dtype)
            continue
        used.update(public)
        shapes = {p: tuple(piece.shape) for p, piece in zip(public, _pieces(like, len(public), change), strict=True)}
        if absent := [p for p in public if p not in tensors]:
            missing += absent
        elif wrong := [p for p in public if tensors[p].shape != shapes[p]]:
            misshapen += [f"{p} {tuple(tensors[p].shape)} instead of {shapes[p]}" for p in wrong]
        else:
            joined = torch.cat([tensors[p] for p in public]) if len(public) > 1 else tensors[public[0]]
            result[name] = (joined.T if change == "transposed" else joined.reshape(like.shape)).to(like.dtype).contiguous()
    dropped = [pattern for public, line in table.items() if line is None for pattern in patterns(public)]
    unknown = [name for name in tensors if name not in used and not any(translate(p, p, name) is not None for p in dropped)]
    if missing or unknown or misshapen:
        raise ValueError(f"the checkpoint does not fit: missing {missing}; unknown {unknown}; misshapen {misshapen}")
    return result

"""Checkpoints: nested state <-> one checked file, the newest whole one wins.

checkpoints/step-00001200.safetensors holds every tensor of a state dict under its path, and the rest as JSON.
"""

import warnings
from pathlib import Path
from typing import Any

from torch import Tensor

from thalweg.training.distribution import rank, whole
from thalweg.weights import CorruptFile, read_tensors, write_tensors

KEPT = 2
PLAIN = (type(None), bool, int, float, str)


def pack(value: Any, tensors: dict[str, Tensor], path: str = "state") -> Any:
    """The value as JSON; its tensors go to `tensors` under their paths."""
    if isinstance(value, Tensor):
        while path in tensors:  # {"a.b": ...} beside {"a": {"b": ...}}, or 1 beside "1"
            path += "'"
        tensors[path] = whole(value)
        return {"tensor": path}
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, PLAIN):
                raise TypeError(f"{path}: the key {key!r} of a dictionary in a checkpoint is no plain value")
        return {"items": [[key, pack(held, tensors, f"{path}.{key}")] for key, held in value.items()]}
    if isinstance(value, list | tuple):
        return [pack(held, tensors, f"{path}.{index}") for index, held in enumerate(value)]
    if isinstance(value, PLAIN):
        return value
    raise TypeError(f"{path}: a checkpoint holds tensors and plain values, not {type(value).__name__}")


def unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of pack (tuples come back as lists)."""
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: unpack(held, tensors) for key, held in value["items"]}
    return [unpack(held, tensors) for held in value] if isinstance(value, list) else value


def write(folder: Path, number: int, state: dict[str, Any]) -> None:
    """Writes the state of a step and removes all but the newest checkpoints; the first process writes."""
    tensors: dict[str, Tensor] = {}
    packed = pack(state, tensors)
    if rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / f"step-{number:08}.safetensors", tensors, packed)
        for old in sorted(folder.glob("step-*.safetensors"))[:-KEPT]:
            old.unlink()


def read(folder: Path) -> dict[str, Any] | None:
    """The state of the newest whole checkpoint, or None where there is none.

    Warns of each damaged one by name; CorruptFile if all are damaged.
    """
    paths = sorted(folder.glob("step-*.safetensors"), reverse=True)
    for path in paths:
        try:
            tensors, packed = read_tensors(path)
        except CorruptFile as error:
            warnings.warn(f"{error}; trying the checkpoint before it", stacklevel=2)
        else:
            return unpack(packed, tensors)
    if paths:
        raise CorruptFile(f"{folder}: every checkpoint is damaged: {', '.join(path.name for path in reversed(paths))}")
    return None

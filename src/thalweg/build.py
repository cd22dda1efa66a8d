"""A module remembers how it was made, so that a folder is enough to make it again.

    model = build(resnet18, num_classes=10)      calls and remembers
    model = adapt(model, lora, rank=8)           transforms and remembers
    save(model, folder); model = load(folder)    config.json: the history; model.safetensors: the tensors

Arguments are plain JSON values, or modules that were built themselves (a task holds its model). Loading replays the
history and reads the tensors in: whatever is made of numbers alone is made on the meta device, without allocating.
Only names inside the trusted packages resolve, so a downloaded folder cannot name arbitrary code.
"""

import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from thalweg.weights import CorruptFile, read_tensors, write_tensors, write_whole

M = TypeVar("M", bound=nn.Module)

TRUSTED = ("thalweg.models.", "thalweg.layers.", "thalweg.tasks.", "thalweg.adaptation.")


def build(builder: Callable[..., M], /, **arguments: Any) -> M:
    """builder(**arguments), remembered in module.history.

    ValueError if an argument is neither a plain JSON value nor a built module.
    """
    return _remember([], builder, arguments, lambda values: builder(**values))


def adapt(module: nn.Module, transform: Callable[..., M], /, **arguments: Any) -> M:
    """transform(module, **arguments), remembered after what was remembered before."""
    if not hasattr(module, "history"):
        raise ValueError(f"module: {type(module).__name__} was not made by build, so its history is unknown")
    history: list = module.history  # type: ignore[assignment]
    return _remember(history, transform, arguments, lambda values: transform(module, **values))


def _remember(history: list, function: Callable[..., M], arguments: dict[str, Any], call: Callable[[dict], M]) -> M:
    name = f"{function.__module__}:{function.__qualname__}"
    plain = {key: _encode(name, key, value) for key, value in arguments.items()}
    values = {k: v if isinstance(v, nn.Module) else plain[k] for k, v in arguments.items()}
    module = call(values)
    module.history = [*history, [name, plain]]  # type: ignore[assignment]
    return module


def _encode(function: str, key: str, value: Any) -> Any:
    if isinstance(value, nn.Module):
        if not hasattr(value, "history"):
            raise ValueError(f"{function}({key}=...): {type(value).__name__} was not made by build")
        return {"history": value.history}
    try:
        return json.loads(json.dumps(value))
    except TypeError as error:
        raise ValueError(f"{function}({key}={value!r}): expected a plain JSON value or a built module") from error


def save(module: nn.Module, folder: Path, tensors: dict[str, Tensor] | None = None) -> None:
    """Writes config.json and model.safetensors; each file appears whole or not at all.

    tensors: the state to write where it is not the module's own (gathered from many processes).
    """
    if not hasattr(module, "history"):
        raise ValueError(f"module: {type(module).__name__} was not made by build, so it cannot be saved as a folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", module.state_dict() if tensors is None else tensors, module.history)
    text = json.dumps({"history": module.history}, indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / "config.json", lambda part: part.write_text(text, encoding="utf8"))


def load(folder: Path, trusted: tuple[str, ...] = TRUSTED) -> nn.Module:
    """The module of a folder, on the CPU.

    FileNotFoundError if the folder holds no model; CorruptFile if a file is damaged, the two are of different saves, or
    the tensors are those of another version of the model;
    ValueError if it names code outside the trusted packages.
    """
    config = Path(folder) / "config.json"
    if not config.exists():
        raise FileNotFoundError(f"{folder} holds no model: config.json is missing")
    try:
        history = json.loads(config.read_text(encoding="utf8")).get("history")
    except (ValueError, AttributeError) as error:
        raise CorruptFile(f"{config} is damaged: {error}") from error
    if history is None:
        raise FileNotFoundError(f"{config} has no history: a public checkpoint is read by thalweg.public.pretrained")
    tensors, sealed = read_tensors(config.with_name("model.safetensors"))
    if history != sealed:
        raise CorruptFile(f"{config} is damaged: it is not of the same save as model.safetensors")
    module = _replay(history, trusted)
    shared = _shared(module)
    try:
        module.load_state_dict(tensors, assign=True)
    except RuntimeError as error:  # the code has changed since
        first = str(error).splitlines()[1].strip()
        raise CorruptFile(f"{folder}: the tensors are not those of the model that this version builds: {first}") from error
    for name, first in shared.items():  # what was one parameter is one again
        owner, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(owner), attribute, module.get_parameter(first))
    return module.eval()


def _shared(module: nn.Module) -> dict[str, str]:
    """Names of parameters that are another's, to the name of that one."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    return {name: names[p] for name, p in module.named_parameters(remove_duplicate=False) if names[p] != name}


def _replay(history: list, trusted: tuple[str, ...]) -> nn.Module:
    module: nn.Module | None = None
    for name, arguments in history:
        function = _resolve(name, trusted)
        values = {k: _replay(v["history"], trusted) if isinstance(v, dict) and "history" in v else v
                  for k, v in arguments.items()}  # fmt: skip
        composed = any(isinstance(v, nn.Module) for v in values.values())  # holds metrics and the like: made for real
        with nullcontext() if composed else unallocated():
            module = build(function, **values) if module is None else adapt(module, function, **values)
    if not isinstance(module, nn.Module):
        raise ValueError(f"history: expected at least one entry that builds a module, got {history!r}")
    return module


@contextmanager
def unallocated() -> Iterator[None]:
    """Modules made inside are on the meta device: names, shapes and types without memory."""
    with torch.device("meta"), _Unfilled():
        yield


class _Unfilled(TorchFunctionMode):
    """There is nothing to fill on the meta device, and normal_ there imports the compiler, which takes seconds."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        filled = args[0] if args else (kwargs or {}).get("tensor")  # torch.nn.init hands it on by name
        if getattr(function, "__name__", "").endswith("normal_") and filled is not None and filled.is_meta:
            return filled
        return function(*args, **(kwargs or {}))


def _resolve(name: str, trusted: tuple[str, ...]) -> Callable[..., nn.Module]:
    module, _, attribute = name.partition(":")
    if not f"{module}.".startswith(trusted):
        raise ValueError(f"the folder names {name}, which is outside the trusted packages {trusted}")
    found = getattr(importlib.import_module(module), attribute, None)
    if not callable(found) or not f"{getattr(found, '__module__', '')}.".startswith(trusted):
        raise ValueError(f"the folder names {name}, which is not a builder of {module}")
    return found

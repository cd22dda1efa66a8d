"""Starting a run: a recipe is found, called, and its experiment run in a folder. No torch before a run begins."""

import ast
import contextlib
import difflib
import importlib
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

PACKAGE = Path(__file__).parent


class Problem(Exception):
    """Something the person can mend, in one line; status: of the process."""

    def __init__(self, words: str, status: int = 2):
        super().__init__(words)
        self.status = status


class Recipe(NamedTuple):
    """A recipe as it stands in its file: nothing of it is imported."""

    name: str
    file: Path
    module: str
    node: ast.FunctionDef

    def load(self) -> Any:
        """The function."""
        return getattr(_module(self), self.node.name)


def functions(file: Path) -> list[ast.FunctionDef]:
    """The public functions that a file defines."""
    tree = ast.parse(file.read_text(encoding="utf8"))
    return [node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]


def recipes() -> dict[str, Recipe]:
    """Every recipe of the library by its name on the command line."""
    found = {}
    for file in sorted((PACKAGE / "recipes").glob("[!_]*.py")):
        for node in functions(file):
            name = node.name.replace("_", "-")
            found[name] = Recipe(name, file, f"thalweg.recipes.{file.stem}", node)
    return found


def find(name: str) -> Recipe:
    """The recipe of a name, or a person's own by FILE.py:FUNCTION. Problem, with what was meant, if there is none."""
    if ".py:" in name:
        file, _, function = name.rpartition(":")
        path = Path(file).resolve()
        if not path.exists():
            raise Problem(f"{file}: no such file")
        node = next((node for node in functions(path) if node.name == function), None)
        if node is None:
            raise Problem(f"{file} defines no function {function!r}; it defines {[n.name for n in functions(path)]}")
        return Recipe(name, path, path.stem, node)
    found = recipes()
    key = name.replace("_", "-")
    if key not in found:
        raise Problem(f"no recipe {name!r}{meant(key, list(found))}; `thalweg run --help` lists them")
    return found[key]


def meant(name: str, known: list[str]) -> str:
    """A hint at the names that look like this one."""
    close = difflib.get_close_matches(name, known, 3, 0.5)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _module(recipe: Recipe) -> ModuleType:
    if recipe.module.startswith("thalweg."):
        return importlib.import_module(recipe.module)
    spec = importlib.util.spec_from_file_location(recipe.module, recipe.file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[recipe.module] = module
    sys.path.insert(0, str(recipe.file.parent))
    spec.loader.exec_module(module)
    return module


def resume(folder: Path) -> None:
    """Goes on with a run as it was started."""
    if not (folder / "run.json").exists():
        raise Problem(f"--resume {folder}: no run there, run.json is missing")
    try:
        facts = json.loads((folder / "run.json").read_text(encoding="utf8"))
    except ValueError as error:
        raise Problem(f"{folder / 'run.json'} is damaged: {error}") from error
    recipe = find(facts["recipe"])
    arguments = dict(facts["arguments"])
    for argument in recipe.node.args.kwonlyargs:
        if argument.annotation and "Path" in ast.unparse(argument.annotation) and arguments.get(argument.arg) is not None:
            arguments[argument.arg] = Path(arguments[argument.arg])
    train(recipe, arguments, {**facts["circumstances"], "out": folder}, facts)


def train(
    recipe: Recipe, arguments: dict[str, Any], circumstances: dict[str, Any], resumed: dict[str, Any] | None = None
) -> None:
    """Calls the recipe, runs its experiment, and prints what came of it."""
    if circumstances.get("data"):
        if not Path(circumstances["data"]).is_dir():
            raise Problem(f"--data {circumstances['data']}: no such folder")
        os.environ["THALWEG_DATA"] = str(circumstances["data"])
    if circumstances["checkpoint_every"] is not None and circumstances["checkpoint_every"] < 1:
        raise Problem(f"--checkpoint-every {circumstances['checkpoint_every']}: expected at least 1")
    from thalweg.training import machine

    kept = bool(circumstances["keep_memory"]) and machine.keep_memory()  # before torch allocates anything large
    import dataclasses
    import warnings

    import torch

    from thalweg.inspection.report import write_report
    from thalweg.training import Training, distribution
    from thalweg.training.run import Stopped, run, writing

    warnings.showwarning = _tell  # type: ignore[assignment]
    torch.manual_seed(circumstances["seed"])
    try:
        experiment = recipe.load()(**arguments)
        if circumstances["steps"] is not None:
            experiment = dataclasses.replace(experiment, epochs=None, steps=circumstances["steps"])
        training = Training(experiment, device=circumstances["device"], precision=circumstances["precision"],
                            compile=circumstances["compile"], parallel=circumstances["parallel"])  # fmt: skip
    except (ValueError, FileNotFoundError, ImportError) as error:
        raise Problem(f"{recipe.name}: {error}") from error
    folder = circumstances["out"] or Path("runs") / f"{recipe.name.rpartition(':')[2]}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, taken = distribution.agreed((folder, resumed is None and (folder / "run.json").exists()))
    if taken:
        raise Problem(f"--out {folder}: holds a run already; go on with it by --resume {folder}, or name another folder")
    facts = resumed or {
        "recipe": recipe.name,
        "title": (ast.get_docstring(recipe.node) or "").partition("\n")[0],
        "arguments": {name: _plain(value) for name, value in arguments.items()},
        "circumstances": {name: _plain(value) for name, value in circumstances.items() if name != "out"},
        "command": shlex.join(["thalweg", *_without_out(sys.argv[1:])]),
        "seed": circumstances["seed"],
        **_commit(),
        "date": time.strftime("%Y-%m-%d"),
        **machine.describe(),
        "keep_memory": kept,
        "notes": dict(experiment.notes),
    }
    if distribution.rank() == 0:
        for name, text in experiment.notes.items():
            print(f"{name}: {text}", flush=True)
    try:
        facts = run(training, folder, facts, checkpoint_every=circumstances["checkpoint_every"], resume=resumed is not None)
        if distribution.rank() == 0:
            with writing(folder):
                report = write_report(folder)
            for metric, held in facts.get("metrics", {}).items():
                print(f"{metric.replace('/', ' ')}: {held['value']:.4f}")
            print(f"run: {folder}\nreport: {report}")
    except Stopped as stopped:
        raise Problem(str(stopped), stopped.status) from stopped
    finally:
        distribution.stop()


def _tell(message: Warning, *_: Any) -> None:
    if os.environ.get("RANK", "0") == "0":  # of the processes of torchrun, the first speaks
        print(f"thalweg: {message}", file=sys.stderr)


def _without_out(words: list[str]) -> list[str]:
    """The words of a command less where its run was put: what to type to have the same run elsewhere."""
    return [word for before, word in zip(["", *words], words, strict=False)
            if not word.startswith("--out=") and "--out" not in (before, word)]  # fmt: skip


def _plain(value: Any) -> Any:
    return str(value.resolve()) if isinstance(value, Path) else value


def _commit() -> dict[str, Any]:
    """The commit of the library's checkout, and whether its code differs from it."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        git = ["git", "-C", str(PACKAGE)]
        commit = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True, stderr=subprocess.DEVNULL).strip()
        changed = subprocess.check_output([*git, "status", "--porcelain", "--", ":/src", ":/pyproject.toml"], text=True)
        return {"commit": commit, "dirty": bool(changed.strip())}
    return {"commit": None, "dirty": None}

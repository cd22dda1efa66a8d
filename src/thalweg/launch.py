"""Starting a run: a recipe is found, called, and its experiment run in a folder. No torch before a run begins."""

import ast
import contextlib
import difflib
import importlib
import importlib.util
import json
import math
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import product
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


def resume(folder: Path, lr_scale: float = 1.0) -> None:
    """Goes on with a run as it was started.   lr_scale: factor on its learning rates from here on"""
    if not 0 < lr_scale < math.inf:
        raise Problem(f"--lr-scale {lr_scale}: expected a number above 0")
    if not (folder / "run.json").exists():
        raise Problem(f"--resume {folder}: no run there, run.json is missing")
    try:
        facts = json.loads((folder / "run.json").read_text(encoding="utf8"))
    except ValueError as error:
        raise Problem(f"{folder / 'run.json'} is damaged: {error}") from error
    if "folds" in facts["circumstances"]:
        raise Problem(f"--resume {folder}: is part of a sweep; the same sweep again goes on with it")
    recipe = find(facts["recipe"])
    arguments = dict(facts["arguments"])
    for argument in recipe.node.args.kwonlyargs:
        if argument.annotation and "Path" in ast.unparse(argument.annotation) and arguments.get(argument.arg) is not None:
            arguments[argument.arg] = Path(arguments[argument.arg])
    train(recipe, arguments, {**facts["circumstances"], "out": folder}, facts, lr_scale)


def experiment_of(recipe: Recipe, arguments: dict[str, Any], circumstances: dict[str, Any]) -> Any:
    """What the recipe makes of the arguments, with the data and the seed of the circumstances."""
    if circumstances.get("data"):
        if not Path(circumstances["data"]).is_dir():
            raise Problem(f"--data {circumstances['data']}: no such folder")
        os.environ["THALWEG_DATA"] = str(circumstances["data"])
    import torch

    torch.manual_seed(circumstances["seed"])
    with mendable(recipe):
        return recipe.load()(**arguments)


@contextlib.contextmanager
def mendable(recipe: Recipe) -> Iterator[None]:
    """What a recipe, or what it asks for, refuses is the person's to mend."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        raise Problem(f"{recipe.name}: {error}") from error


def drawing_place(path: Path) -> Path:
    """The path, where a drawing can be put."""
    if not path.parent.is_dir():
        raise Problem(f"--out {path}: no such folder")
    return path


def range_test(recipe: Recipe, arguments: dict[str, Any], circumstances: dict[str, Any]) -> None:
    """Raises the rate of a recipe's experiment step by step, prints the rate it suggests and draws the losses."""
    drawing_place(circumstances["out"])
    experiment = experiment_of(recipe, arguments, circumstances)
    from thalweg.inspection.range_test import range_test as measure
    from thalweg.training import Training

    with mendable(recipe):
        training = Training(experiment, device=circumstances["device"], precision=circumstances["precision"])
        found = measure(training, steps=circumstances["steps"], progress=True)
        found.figure().savefig(circumstances["out"])
    print(f"suggestion: {found.suggestion:.2g} (a tenth of {found.minimum:.2g}, where the loss was smallest)")
    print(f"drawing: {circumstances['out']}")


def train(
    recipe: Recipe,
    arguments: dict[str, Any],
    circumstances: dict[str, Any],
    resumed: dict[str, Any] | None = None,
    lr_scale: float = 1.0,
) -> None:
    """Calls the recipe, runs its experiment, and prints what came of it."""
    if circumstances["checkpoint_every"] is not None and circumstances["checkpoint_every"] < 1:
        raise Problem(f"--checkpoint-every {circumstances['checkpoint_every']}: expected at least 1")
    from thalweg.training import machine

    kept = bool(circumstances["keep_memory"]) and machine.keep_memory()  # before torch allocates anything large
    import dataclasses
    import warnings

    from thalweg.inspection.report import write_report
    from thalweg.training import Training, distribution
    from thalweg.training.run import Stopped, run, writing

    warnings.showwarning = _tell  # type: ignore[assignment]
    experiment = experiment_of(recipe, arguments, circumstances)
    with mendable(recipe):
        if circumstances["steps"] is not None:
            experiment = dataclasses.replace(experiment, epochs=None, steps=circumstances["steps"])
        training = Training(experiment, device=circumstances["device"], precision=circumstances["precision"],
                            compile=circumstances["compile"], parallel=circumstances["parallel"])  # fmt: skip
    folder = circumstances["out"] or Path("runs") / f"{recipe.name.rpartition(':')[2]}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, taken = distribution.agreed((folder, resumed is None and (folder / "run.json").exists()))
    if taken:
        raise Problem(f"--out {folder}: holds a run already; go on with it by --resume {folder}, or name another folder")
    facts = resumed or _facts(recipe, arguments, circumstances, keep_memory=kept, notes=dict(experiment.notes))
    if distribution.rank() == 0:
        for name, text in experiment.notes.items():
            print(f"{name}: {text}", flush=True)
    try:
        facts = run(training, folder, facts, checkpoint_every=circumstances["checkpoint_every"], resume=resumed is not None,
                    lr_scale=lr_scale)  # fmt: skip
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


def _facts(
    recipe: Recipe, arguments: dict[str, Any], circumstances: dict[str, Any], *, keep_memory: bool, notes: dict[str, str]
) -> dict[str, Any]:
    """What run.json says about how a run was started."""
    from thalweg.training import machine

    return {
        "recipe": recipe.name,
        "title": (ast.get_docstring(recipe.node) or "").partition("\n")[0],
        "arguments": {name: _plain(value) for name, value in arguments.items()},
        "circumstances": {name: _plain(value) for name, value in circumstances.items() if name != "out"},
        "command": shlex.join(["thalweg", *_without_out(sys.argv[1:])]),
        "seed": circumstances["seed"],
        **_commit(),
        "date": time.strftime("%Y-%m-%d"),
        **machine.describe(),
        "keep_memory": keep_memory,
        "notes": notes,
    }


def sweep(recipe: Recipe, grid: dict[str, list[Any]], circumstances: dict[str, Any]) -> None:
    """Trains every combination of the values, ranks them by a validation metric in sweep.json and prints the table.

    A run that is finished in the folder is not repeated, one that was stopped goes on.
    """
    from thalweg.training import machine

    kept = bool(circumstances["keep_memory"]) and machine.keep_memory()
    import warnings

    from thalweg.training import Training
    from thalweg.training.run import Stopped, run, write_json, writing
    from thalweg.training.sweep import candidate, points, table

    warnings.showwarning = _tell  # type: ignore[assignment]
    folder = circumstances["out"] or Path("runs") / f"sweep-{recipe.name.rpartition(':')[2]}"
    folds, metric, seeds, rows = circumstances["folds"], circumstances["metric"], list(dict.fromkeys(circumstances["seed"])), []
    todo = list(product(points(grid), seeds, range(folds or 1)))
    for turn, (arguments, seed, number) in enumerate(todo, 1):
        circumstances = {**circumstances, "seed": seed}
        experiment = experiment_of(recipe, arguments, circumstances)
        with mendable(recipe):
            experiment = candidate(experiment, metric=metric, steps=circumstances["steps"], fold=number, folds=folds,
                                   test=circumstances["test"])  # fmt: skip
            training = Training(experiment, device=circumstances["device"], precision=circumstances["precision"])
        metric = str(experiment.monitor)
        changed = [f"{name}={_plain(arguments[name])}" for name, values in grid.items() if len(values) > 1]
        words = [*changed, *([f"seed={seed}"] if len(seeds) > 1 else []), *([f"fold={number + 1}of{folds}"] if folds else [])]
        path = folder / (",".join(words).replace(os.sep, "_") or "run")
        facts = _facts(recipe, arguments, circumstances, keep_memory=kept, notes=dict(experiment.notes))
        known = _known(path, facts)
        if not known or not {"metrics", "diverged"} & set(known):
            print(f"{turn} of {len(todo)}: {' '.join(words)}", flush=True)
            try:
                run(training, path, known or facts, resume=bool(known))
            except Stopped as stopped:
                if not stopped.diverged:
                    raise Problem(f"{stopped} (of a sweep: the same sweep again)", stopped.status) from stopped
                write_json(path / "run.json", facts | {"diverged": str(stopped)})
        rows = table(folder, metric, seeds)
        with writing(folder):
            write_json(folder / "sweep.json", {"recipe": recipe.name, "metric": f"valid/{metric}", "rows": rows})
    for place, row in enumerate(rows, 1):
        value = "diverged" if row["value"] is None else f"{row['value']:.4f}"
        changed = [f"{name}={row['arguments'][name]}" for name, values in grid.items() if len(values) > 1]
        size = [] if row["parameters"] is None else [f"{row['parameters']:,} parameters", f"{row['seconds']:.0f} s"]
        tested = [f"{name} {number:.4f}{_spread(row['test_deviation'].get(name))}" for name, number in row["test"].items()]
        said = f"{place:3}  {value}{_spread(row['deviation'])}  {' '.join(changed)}"
        print(f"{said}{'  ' * bool(size)}{', '.join([*size, *tested])}")
    print(f"ranked by valid {metric}: {folder / 'sweep.json'}")


def _spread(deviation: float | None) -> str:
    return "" if deviation is None else f" ± {deviation:.4f}"


def _known(path: Path, facts: dict[str, Any]) -> dict[str, Any] | None:
    """What an earlier sweep wrote about the same run; Problem if the folder holds another."""
    if not (path / "run.json").exists():
        return None
    try:
        known = json.loads((path / "run.json").read_text(encoding="utf8"))
    except ValueError as error:
        raise Problem(f"{path / 'run.json'} is damaged: {error}") from error
    for name in ("recipe", "arguments", "circumstances"):
        if known[name] != facts[name]:
            raise Problem(f"{path}: its {name} were {known[name]}, now they are {facts[name]}; name another --out")
    return known


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

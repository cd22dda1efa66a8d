"""The catalogue: one row a system, one .toml a chapter, papers once in papers.toml. Reading it imports no torch.

    [resnet-18]
    name = ["ResNet-18", "残差网络-18"]                   English, Chinese
    also = ["residual network of 18 layers"]             other names of the field, in any language
    kind = "classifier backbone"                         of KINDS below, or of thalweg.vocabulary.KINDS where it is a model
    defined = "thalweg.models.vision.resnet:resnet18"    the thing itself; torch's own where torch has it
    about = "One sentence; formula."                     where the definition is not ours, so its docstring is not either
    paper = "he2015resnet"                               key in papers.toml
    taught = { lbdl = "5.2", d2l = "7.6" }               sections of LBDL, D2L; headings of LEE and of the primer
    parameters = 11689512                                as the builder makes it without arguments
    parity = "timm 1.0"                                  the public implementation that its golden file was made with
    recipes = ["resnet18-cifar10"]                       names of the command
    test = "tests/test_x.py::test_y"                     what pins the system down where it is not a model with a recipe
    covers = ["resnet-family"]                           the systems of the three sources that this row makes work
    example = { arguments = { width = 8 }, input = [2, 3, 32, 32] }    a small instance, for the generated tests

Numbers of runs stand in results/*.json, written by `record`, and are joined here.
"""

import ast
import difflib
import json
import os
import re
import textwrap
import tomllib
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

CATALOGUE = Path(__file__).parent
PACKAGE = CATALOGUE.parent
BOOKS = {"lbdl": "LBDL", "d2l": "D2L", "lee": "LEE", "primer": "primer"}
KINDS = {
    "layer": "a part of a network",
    "network": "a whole network whose inputs are its own",
    "loss": "what is minimised",
    "task": "what is learned: batch -> losses, metrics, predictions, pictures",
    "optimiser": "how a step is taken",
    "schedule": "how the learning rate goes",
    "protocol": "how a run is done so that its result holds",
    "metric": "what is measured",
    "data": "where examples come from and what is done to them",
    "tool": "what one works with",
    "concept": "what one must have understood, shown by a test",
}


@cache
def rows() -> dict[str, dict[str, Any]]:
    """Every row by its id, with its chapter, in the order of the files (01_tensors.toml, ...)."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(CATALOGUE.glob("[0-9]*.toml")):
        for key, row in tomllib.loads(path.read_text(encoding="utf8")).items():
            if key in found:
                raise ValueError(f"{path.name}: {key} is in chapter {found[key]['chapter']} too")
            found[key] = {"chapter": path.stem.partition("_")[2], **row}
    return found


@cache
def papers() -> dict[str, dict[str, Any]]:
    """authors, year, title and arXiv id or venue, by key."""
    return tomllib.loads((CATALOGUE / "papers.toml").read_text(encoding="utf8"))


def citation(key: str) -> str:
    """Authors year, title, where."""
    paper = papers()[key]
    where = f"arXiv:{paper['arxiv']}" if "arxiv" in paper else paper["venue"]
    return f"{paper['authors']} {paper['year']}, {paper['title']}, {where}"


def find(name: str) -> tuple[str, dict[str, Any]]:
    """Id and row of a system, by id, English or Chinese name, recipe, builder, or an id that it covers.

    Case, spaces, dashes, underscores and what stands in parentheses do not count.   LookupError, with what is close, if
    there is none.
    """
    keys = _names()
    wanted = _plain(name)
    if wanted not in keys:
        close = difflib.get_close_matches(wanted, keys, 5, 0.6)
        said = f"; did you mean {' or '.join(dict.fromkeys(keys[key] for key in close))}?" if close else ""
        raise LookupError(f"the catalogue has no {name!r}{said}")
    return keys[wanted], rows()[keys[wanted]]


@cache
def _names() -> dict[str, str]:
    """Every plain name -> id; what a system is called goes before what it uses."""
    ways = (
        lambda key, row: [key, *row["name"]],
        lambda key, row: row.get("also", []),
        lambda key, row: [part for name in row["name"] for part in re.split("[()（）]", name) if part.strip()],
        lambda key, row: row.get("recipes", []),
        lambda key, row: [row["defined"].rpartition(":")[2]],
        lambda key, row: row.get("covers", []),
    )
    found: dict[str, str] = {}
    for way in ways:
        for key, row in rows().items():
            for name in way(key, row):
                found.setdefault(_plain(name), key)
    return found


def _plain(name: str) -> str:
    plain = re.sub(r"[\s_\-\u2010-\u2015]+", "", unicodedata.normalize("NFKC", name).casefold())
    return plain.replace("ization", "isation")


def listing() -> list[dict[str, Any]]:
    """Every row as `thalweg list --json` gives it."""
    measured = results()
    return [
        {
            "id": key,
            "name": row["name"],
            "kind": row["kind"],
            "chapter": row["chapter"],
            "defined": row["defined"],
            "paper": citation(row["paper"]) if "paper" in row else None,
            "taught": row.get("taught", {}),
            "covers": row.get("covers", []),
            "recipes": row.get("recipes", []),
            "results": [result for result in measured if result["recipe"] in row.get("recipes", [])],
        }
        for key, row in rows().items()
    ]


def show(name: str) -> str:
    """A page about a system: what it is, where it is defined and taught, how to run it, what came out."""
    key, row = find(name)
    place, docstring = locate(row["defined"])
    ours = row["defined"].startswith(PACKAGE.name)
    about = [textwrap.fill(row["about"], 112)] if "about" in row else []
    facts = [("defined", f"{place}   {row['defined']}")]
    if "paper" in row:
        facts.append(("paper", citation(row["paper"])))
    if "taught" in row:
        facts.append(("taught", " · ".join(f"{BOOKS[book]} {section}" for book, section in row["taught"].items())))
    if "parameters" in row:
        facts.append(("parameters", f"{row['parameters']:,}"))
    if "parity" in row:
        facts.append(("parity", row["parity"]))
    if "test" in row:
        facts.append(("test", row["test"]))
    lines = [f"{row['name'][0]} · {row['name'][1]}   [{key}: {row['kind']}]", ""]
    lines += [textwrap.indent("\n\n".join([*about, *([docstring] if ours else [])]), "    "), ""]
    lines += [f"{label:11} {text}" for label, text in facts]
    for recipe in row.get("recipes", []):
        lines += ["", f"thalweg run {recipe}"]
        lines += [f"    {_told(run)}" for run in runs(recipe)] or ["    no recorded run"]
    return "\n".join(lines)


def _told(run: dict[str, Any]) -> str:
    """A run in one line, with what was typed beside the recipe's name."""
    flags = run["command"].partition(run["recipe"])[2].strip()
    measured = f"{len(run['metrics'])} metrics, see `thalweg results`"
    if len(run["metrics"]) <= 12:
        measured = ", ".join(f"{metric} {held['value']:.4g}" for metric, held in run["metrics"].items())
    machine = run["machine"]
    on = machine.get("accelerator") or f"{machine['processor']}, {machine['threads']} threads"
    told = f"{measured}   {run['seconds']:.0f} s on {on}, seed {run['seed']}, {run['date']}, commit {run['commit'][:9]}"
    return f"{flags}: {told}" if flags else told


def locate(defined: str) -> tuple[str, str]:
    """file:line and docstring of a "module:attribute"; ours by its source alone, another's by importing it.

    Of ours the docstring ends with that of its file, where a family has its idea and its formula.
    LookupError if there is no such thing.
    """
    module, _, attribute = defined.partition(":")
    if module.partition(".")[0] != PACKAGE.name:
        return _located_elsewhere(module, attribute)
    path = PACKAGE.joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not path.exists():
        raise LookupError(f"{defined}: there is no {path}")
    tree = ast.parse(path.read_text(encoding="utf8"))
    node: Any = tree
    for part in attribute.split(".") if attribute else []:
        node = next((child for child in node.body if part in _bound(child)), None)
        if node is None:
            raise LookupError(f"{defined}: {path} defines no {part}")
    documented = [node, tree] if isinstance(node, ast.FunctionDef | ast.ClassDef) else [tree]
    texts = [text for text in map(ast.get_docstring, documented) if text]
    return _place(path, getattr(node, "lineno", 0)), "\n\n".join(texts)


def _place(path: Path, line: int) -> str:
    shown = os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
    return f"{shown}:{line}" if line else shown


def _bound(node: ast.stmt) -> list[str]:
    """The names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _located_elsewhere(module: str, attribute: str) -> tuple[str, str]:
    import importlib
    import inspect

    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split(".") if attribute else []:
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise LookupError(f"{module}:{attribute}: {error}") from error
    text = inspect.getdoc(found) or ""
    try:
        file = Path(inspect.getsourcefile(found) or module)
    except TypeError:
        return f"{module}.{attribute} (compiled)", text
    try:
        return _place(file, inspect.getsourcelines(found)[1]), text
    except OSError:  # a class under a name that is not its own
        return _place(file, 0), text


def results_folder() -> Path:
    """results/ of the checkout, or the copy of it that an installed wheel carries."""
    carried = PACKAGE / "results"
    return carried if carried.is_dir() else PACKAGE.parents[1] / "results"


def runs(recipe: str) -> list[dict[str, Any]]:
    """The recorded runs of a recipe, oldest first."""
    path = results_folder() / f"{recipe}.json"
    return json.loads(path.read_text(encoding="utf8")) if path.exists() else []


def results() -> list[dict[str, Any]]:
    """One entry a recorded run and metric, as `thalweg results --json` gives them."""
    facts = ("seconds", "seed", "command", "commit", "machine", "versions", "date")
    return [
        {"recipe": recipe, "metric": metric, **held, **{name: run[name] for name in facts}}
        for recipe in sorted({recipe for row in rows().values() for recipe in row.get("recipes", [])})
        for run in runs(recipe)
        for metric, held in run["metrics"].items()
    ]


def record(run_folder: Path, folder: Path | None = None) -> Path:
    """Adds the facts of a finished run to the results of its recipe, once; the file of results.

    ValueError if the run is not finished, its recipe is not catalogued, or its commit does not say what code ran.
    """
    from thalweg.weights import write_whole

    path = Path(run_folder) / "run.json"
    if not path.exists():
        raise ValueError(f"{run_folder}: no run there, run.json is missing")
    facts = _shortened(json.loads(path.read_text(encoding="utf8")))
    facts["recipe"] = recipe = facts["recipe"].replace("_", "-")
    if not facts.get("metrics"):
        raise ValueError(f"{run_folder}: the run is not finished, it has no metrics")
    if not any(recipe in row.get("recipes", []) for row in rows().values()):
        raise ValueError(f"{run_folder}: the recipe {recipe} is in no row of the catalogue")
    if facts.get("commit") is None or facts.get("dirty"):
        raise ValueError(f"{run_folder}: commit={facts.get('commit')}, dirty={facts.get('dirty')}: expected a run of "
                         "committed code, so that it can be repeated")  # fmt: skip
    file = (folder or results_folder()) / f"{recipe}.json"
    held = json.loads(file.read_text(encoding="utf8")) if file.exists() else []
    if facts not in held:
        text = json.dumps([*held, facts], indent=2, ensure_ascii=False) + "\n"
        write_whole(file, lambda part: part.write_text(text, encoding="utf8"))
    return file


def _shortened(value: Any) -> Any:
    """With every absolute path by its last name, alone or in a text: where it lay says nothing to others."""
    if isinstance(value, dict):
        return {name: _shortened(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_shortened(part) for part in value]
    return re.sub(r"(?<![\w.:/])/(?:[^\s/,;]+/)*([^\s/,;]+)", r"\1", value) if isinstance(value, str) else value

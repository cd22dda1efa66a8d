"""Networks, one file a family. A builder is a function of such a file that makes a model of it: resnet18, vit_base_16."""

import ast
import difflib
import importlib
from collections.abc import Callable
from pathlib import Path


def builders() -> dict[str, str]:
    """Every builder by its name, and the module that defines it; nothing is imported."""
    found = {}
    for path in sorted(Path(__file__).parent.rglob("[!_]*.py")):
        tree = ast.parse(path.read_text(encoding="utf8")).body
        classes = {node.name for node in tree if isinstance(node, ast.ClassDef)}
        module = ".".join((__name__, *path.relative_to(Path(__file__).parent).with_suffix("").parts))
        for node in (node for node in tree if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")):
            takes = {ast.unparse(argument.annotation) for argument in node.args.args if argument.annotation}
            if node.returns and ast.unparse(node.returns) in classes and not takes & classes:  # else it changes a model
                found[node.name] = module
    return found


def builder(name: str) -> Callable:
    """The builder of a name; case, dashes, underscores and spaces do not count. ValueError, with what is close, if none."""
    known = {_plain(key): (key, module) for key, module in builders().items()}
    if _plain(name) not in known:
        close = [known[key][0] for key in difflib.get_close_matches(_plain(name), known, 3, 0.5)]
        raise ValueError(f"model={name!r}: expected a builder of thalweg.models{f', such as {close}' if close else ''}")
    key, module = known[_plain(name)]
    return getattr(importlib.import_module(module), key)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())

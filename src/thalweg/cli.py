"""The command `thalweg`. Flags, types, defaults and help are read off signatures and docstrings, without importing torch."""

import argparse
import ast
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from thalweg import __version__, launch
from thalweg.launch import Problem

if TYPE_CHECKING:
    from thalweg.training import Task


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; errors that the person can mend are one line on stderr and exit status 2."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        command(words)
    except Problem as problem:
        _fail(str(problem), problem.status)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    if "RANK" in os.environ:  # one of torchrun's: gloo's threads may still hold tensors and abort an interpreter that winds up
        sys.stdout.flush()
        os._exit(0)


def _fail(text: str, status: int = 2) -> NoReturn:
    which = f" process {os.environ['RANK']}" if os.environ.get("RANK", "0") != "0" else ""  # of those of torchrun
    print(f"thalweg{which}: {text}", file=sys.stderr)
    sys.exit(status)


def command(words: list[str]) -> None:
    parser = argparse.ArgumentParser("thalweg", description="All of deep learning in one readable, fast PyTorch library.",
                                     allow_abbrev=False, epilog="thalweg COMMAND --help tells more.")  # fmt: skip
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, function in COMMANDS.items():
        commands.add_parser(name, help=(function.__doc__ or "").partition("\n")[0], add_help=False)
    if words and words[0] in COMMANDS:
        COMMANDS[words[0]](words[1:])
    else:
        parser.parse_args(words or ["--help"])


def run(words: list[str]) -> None:
    """Train by a recipe: thalweg run RECIPE [--hyper-parameters]"""
    if words[:1] == ["--resume"] and len(words) > 1:
        parser = _Parser("thalweg run --resume", allow_abbrev=False,
                         description="Goes on with a run as it was started, from its newest checkpoint.")  # fmt: skip
        parser.add_argument("run", type=Path, metavar="RUN")
        parser.add_argument("--lr-scale", type=float, default=1.0, metavar="FLOAT",
                            help="factor on all learning rates from here on (default 1.0)")  # fmt: skip
        resumed = _parse(parser, words[1:])
        return launch.resume(resumed.run, resumed.lr_scale)
    if not words or words[0].startswith("-"):
        return _run_help(words)
    recipe = launch.find(words[0])
    values = vars(_parse(_recipe_parser("run", recipe, CIRCUMSTANCES), words[1:]))
    arguments = {argument.arg: values.pop(argument.arg) for argument in recipe.node.args.kwonlyargs}
    if (folder := values.pop("resume")) is None:
        return launch.train(recipe, arguments, values)
    if len(words) > 3:
        raise Problem(f"--resume goes on with what the run was started with: thalweg run --resume {folder}")
    return launch.resume(folder)


def _run_help(words: list[str]) -> None:
    titles = {name: (ast.get_docstring(recipe.node) or "").partition("\n")[0] for name, recipe in launch.recipes().items()}
    width = max(map(len, titles), default=0)
    lines = "\n".join(f"  {name:{width}}  {title}" for name, title in titles.items())
    parser = _Parser(
        "thalweg run",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="thalweg run RECIPE [--hyper-parameters] [--circumstances]\n"
        "       thalweg run FILE.py:FUNCTION ...\n       thalweg run --resume RUN",
        description="Trains by a recipe; `thalweg run RECIPE --help` lists what it takes.\n\nrecipes:\n" + lines,
    )
    parser.add_argument("recipe", help=argparse.SUPPRESS)
    parser.parse_args(words)


def _recipe_parser(
    command: str, recipe: launch.Recipe, flags: dict[str, dict[str, Any]], *, several: bool = False
) -> argparse.ArgumentParser:
    """What a command takes that starts from a recipe: its hyper-parameters, and these flags for the circumstances.

    several: a hyper-parameter may have several values, with commas between.
    """
    parser = _Parser(f"thalweg {command} {recipe.name}", description=ast.get_docstring(recipe.node), allow_abbrev=False,
                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    _add_flags(parser.add_argument_group("hyper-parameters"), recipe.node, several=several)
    circumstances = parser.add_argument_group("circumstances, the same for every recipe")
    taken = {argument.arg for argument in recipe.node.args.kwonlyargs}
    if clash := sorted(taken & flags.keys() - {"data"}):
        raise Problem(f"{recipe.name}: its arguments {clash} are flags of the command; expected other names")
    for flag, options in flags.items():
        if flag not in taken:
            circumstances.add_argument("--" + flag.replace("_", "-"), **options)
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Problem(f"{self.prog.removeprefix('thalweg ')}: {message}")


def _flag(kind: str):
    """Type, choices and name of a flag from an annotation."""
    kind = kind.removesuffix(" | None")
    if kind.startswith("Literal["):
        return {"choices": list(ast.literal_eval("(" + kind[8:-1] + ",)"))}
    if kind == "bool":
        return {"action": argparse.BooleanOptionalAction}
    types = {"int": int, "float": float, "str": str, "Path": Path}
    if kind not in types:
        raise Problem(f"a recipe argument is annotated {kind}; expected int, float, bool, str, Literal or Path")
    return {"type": types[kind], "metavar": kind.upper()}


def _several(options: dict[str, Any]) -> dict[str, Any]:
    """The same flag with several values."""
    known = {"true": True, "false": False} if "action" in options else {word: word for word in options.get("choices", ())}
    one = known.__getitem__ if known else options["type"]

    def read(words: str) -> list[Any]:
        try:
            return [one(word) for word in words.split(",")]
        except (KeyError, ValueError) as error:
            expected = " or ".join(known) or options["metavar"]
            raise argparse.ArgumentTypeError(f"invalid value in {words!r}: expected {expected}, with commas between") from error

    return {"type": read, "metavar": "A,B"}


def _add_flags(parser: Any, node: ast.FunctionDef, *, several: bool = False) -> None:
    described = _argument_lines(ast.get_docstring(node) or "")
    for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        options = _flag(ast.unparse(argument.annotation))  # type: ignore[arg-type]
        value = ast.literal_eval(default) if default is not None else None
        said = described.get(argument.arg, "")
        shown = "required" if default is None else f"default {value}"
        flag = "--" + argument.arg.replace("_", "-")
        if several:
            options, value = _several(options), [value]
        parser.add_argument(flag, default=value, required=default is None, help=f"{said} ({shown})".strip(), **options)


def _argument_lines(docstring: str) -> dict[str, str]:
    """`name: meaning` lines of a docstring."""
    pairs = (line.strip().partition(": ") for line in docstring.splitlines())
    return {name: meaning for name, colon, meaning in pairs if colon and name.isidentifier()}


CIRCUMSTANCES: dict[str, dict[str, Any]] = {
    "seed": {"type": int, "default": 0, "metavar": "INT", "help": "of everything random (default 0)"},
    "device": {"metavar": "NAME", "help": "cpu, cuda, cuda:1, mps (default: the accelerator, if there is one)"},
    "precision": {"choices": ["auto", "fp32", "bf16"], "default": "auto", "help": "of products (default: bf16 where native)"},
    "out": {"type": Path, "metavar": "FOLDER", "help": "of the run (default runs/RECIPE-DATE)"},
    "steps": {"type": int, "metavar": "INT", "help": "end after so many steps instead of the recipe's"},
    "checkpoint_every": {"type": int, "metavar": "STEPS", "help": "between checkpoints (default: at each evaluation)"},
    "resume": {"type": Path, "metavar": "RUN", "help": "go on with a run that was stopped or killed"},
    "data": {"type": Path, "metavar": "FOLDER", "help": "where data sets lie (default $THALWEG_DATA, then the cache)"},
    "compile": {"action": argparse.BooleanOptionalAction, "default": False, "help": "compile the networks in place"},
    "parallel": {"choices": ["replicate", "shard"], "default": "replicate", "help": "form of torchrun (default replicate)"},
    "keep_memory": {"action": argparse.BooleanOptionalAction, "default": True, "help": "faster CPU, a third more memory"},
}  # fmt: skip


def _parse(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    values, unknown = parser.parse_known_args(words)
    if unknown:
        flags = [option for action in parser._actions for option in action.option_strings]
        raise Problem(f"{parser.prog.removeprefix('thalweg ')}: unknown argument {unknown[0]}{launch.meant(unknown[0], flags)}")
    return values


def _first(words: list[str], usage: str, description: str) -> launch.Recipe:
    """The recipe that the words of a command begin with; where they do not, its help or what is wrong."""
    if not words or words[0].startswith("-"):
        parser = _Parser(f"thalweg {usage.partition(' ')[0]}", usage=f"thalweg {usage}", description=description)
        parser.add_argument("recipe", help=argparse.SUPPRESS)
        _parse(parser, words)
    return launch.find(words[0])


def range_test(words: list[str]) -> None:
    """Find a learning rate: thalweg range-test RECIPE [--hyper-parameters]"""
    recipe = _first(words, "range-test RECIPE [--hyper-parameters] [--out FILE]",
                    "Raises the learning rate from a thousandth to a thousand times the recipe's and draws the loss at each. "
                    "It suggests a tenth of the rate at which the loss was smallest.")  # fmt: skip
    flags = {name: CIRCUMSTANCES[name] for name in ("seed", "device", "precision", "data")} | {
        "steps": {"type": int, "default": 100, "metavar": "INT", "help": "from the lowest rate to the highest (default 100)"},
        "out": {"type": Path, "default": Path("range-test.png"), "metavar": "FILE",
                "help": "of the drawing (default range-test.png)"},
    }  # fmt: skip
    values = vars(_parse(_recipe_parser("range-test", recipe, flags), words[1:]))
    arguments = {argument.arg: values.pop(argument.arg) for argument in recipe.node.args.kwonlyargs}
    launch.range_test(recipe, arguments, values)


def sweep(words: list[str]) -> None:
    """Choose hyper-parameters: thalweg sweep RECIPE --lr 0.001,0.01"""
    recipe = _first(words, "sweep RECIPE --lr 0.001,0.01 --width 8,16 [--seed 0,1,2] [--folds 5] [--out FOLDER]",
                    "Trains every combination of the values and ranks them by a validation metric, never by the test. The same "
                    "command again goes on where it was stopped.")  # fmt: skip
    flags = {name: CIRCUMSTANCES[name] for name in ("device", "precision", "steps", "data", "keep_memory")} | {
        "seed": {**_several(CIRCUMSTANCES["seed"]), "default": [0], "help": "each combination once by each (default 0)"},
        "folds": {"type": int, "metavar": "N", "help": "parts of the training data, each of which is once held out"},
        "metric": {"metavar": "NAME", "help": "to rank by (default: the one that the recipe monitors)"},
        "test": {"action": "store_true", "help": "measure on the test data too: to compare what was chosen, not to choose"},
        "out": {"type": Path, "metavar": "FOLDER", "help": "of the runs and sweep.json (default runs/sweep-RECIPE)"},
    }
    values = vars(_parse(_recipe_parser("sweep", recipe, flags, several=True), words[1:]))
    grid = {argument.arg: values.pop(argument.arg) for argument in recipe.node.args.kwonlyargs}
    launch.sweep(recipe, grid, values)


def list_(words: list[str]) -> None:
    """List every system of the catalogue"""
    parser = _Parser("thalweg list", description="Lists every system of the catalogue.", allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="as a JSON array")
    values = _parse(parser, words)
    from thalweg import catalogue

    listing = catalogue.listing()
    if values.json:
        print(json.dumps(listing, ensure_ascii=False))
        return
    for row in listing:
        print(f"{row['id']:32} {row['kind']:24} {row['name'][0]} · {row['name'][1]}")


MODELS = "GGUF file, folder or id of Hugging Face, or a run of a language model"
GIVEN = {"MODEL": MODELS, "PROMPT": "text to go on with",
         "PROBES": "facts, questions, agreement, sst2, translation, headlines, or a FILE.jsonl of question, answers, "
                   "right"}  # fmt: skip
DRAWINGS = {"graph": "draw_graph", "variance": "draw_variances", "anchors": "draw_anchors",
            "receptive_field": "draw_receptive_fields"}  # a module of inspection each  # fmt: skip


def show(words: list[str]) -> None:
    """Show a system: definition, formula, paper, recipes with results"""
    parser = _Parser("thalweg show", description="Shows a system of the catalogue, by its English or Chinese name.",
                     allow_abbrev=False)  # fmt: skip
    parser.add_argument("system", nargs="?", metavar="SYSTEM")
    parser.add_argument(
        "--graph", metavar="RECIPE", help="draw the computational graph of a recipe: shapes forward, gradient norms backward"
    )
    parser.add_argument(
        "--variance", metavar="RECIPE", help="draw how large values and gradients of each layer are before training"
    )
    parser.add_argument("--anchors", metavar="RECIPE", help="draw the anchor boxes of a recipe's detector on a photograph")
    parser.add_argument(
        "--receptive-field", metavar="RECIPE", help="draw what a place of each map of a recipe's network sees of an image"
    )
    parser.add_argument("--words", type=Path, metavar="FILE", help="draw how often words, pairs and triples of a text occur")
    parser.add_argument(
        "--by",
        choices=["words", "characters", "jieba"],
        default="words",
        help="with --words: what a word is (default what stands between blanks; for Chinese, the others)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="of the drawing (default graph.png, variance.png ...)")
    values = _parse(parser, words)
    wanted = next((kind for kind in DRAWINGS if getattr(values, kind)), None)
    if values.words:
        _show_words(values.words, values.by, launch.drawing_place(values.out or Path("words.png")))
    elif wanted:
        recipe, out = launch.find(getattr(values, wanted)), launch.drawing_place(values.out or Path(f"{wanted}.png"))
        draw = getattr(import_module(f"thalweg.inspection.{wanted}"), DRAWINGS[wanted])
        with launch.mendable(recipe):
            print(draw(recipe.load()(), out))
        print(f"drawing: {out}")
    elif values.system:
        from thalweg import catalogue

        try:
            print(catalogue.show(values.system))
        except LookupError as error:
            raise Problem(str(error.args[0])) from error
    else:
        raise Problem(
            "show needs a SYSTEM, a RECIPE for one of --graph, --variance, --anchors, --receptive-field, or --words FILE"
        )


def _show_words(text: Path, by: str, out: Path) -> None:
    from thalweg.inspection.words import draw_words

    try:
        print(draw_words(text, out, by))
    except (ValueError, OSError, ImportError) as error:
        raise Problem(str(error)) from error
    print(f"drawing: {out}")


def results(words: list[str]) -> None:
    """List the recorded results"""
    parser = _Parser(
        "thalweg results", description="Lists the recorded results, or records a finished run.", allow_abbrev=False
    )
    parser.add_argument("--json", action="store_true", help="as a JSON array")
    parser.add_argument("--record", type=Path, metavar="RUN", help="add a run to results/ of this checkout")
    values = _parse(parser, words)
    from thalweg import catalogue

    if values.record:
        try:
            print(f"recorded in {catalogue.record(values.record)}")
        except (ValueError, OSError) as error:
            raise Problem(str(error)) from error
    elif values.json:
        print(json.dumps(catalogue.results(), ensure_ascii=False))
    else:
        for row in catalogue.results():
            when = f"{row['seconds']:>8.1f} s  {row['date']}  {str(row['commit'])[:9]}"
            print(f"{row['recipe']:32} {row['metric']:24} {row['value']:<10.4f} {when}")


def predict(words: list[str]) -> None:
    """Predict with a run or model: thalweg predict RUN INPUT..."""
    if not words or words[0].startswith("-"):
        return _predict_help(words)
    from thalweg.inspection.predict import answer, options

    folder = model_folder(Path(words[0]))
    parser = _Parser("thalweg predict", description="Predicts; each INPUT is an image or video file, a text or what the task "
                     "reads, or with --csv a folder of images.", allow_abbrev=False)  # fmt: skip
    parser.add_argument("model", metavar="RUN_OR_MODEL")
    parser.add_argument("inputs", nargs="+", metavar="INPUT")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="id and label of every image in a folder, for a competition")
    parser.add_argument("--probabilities", action="store_true", help="into the csv file, a column a class, instead of labels")
    from thalweg.build import load
    from thalweg.weights import CorruptFile

    try:
        task = cast("Task", load(folder))
        for name, (kind, default) in options(task).items():
            parser.add_argument("--" + name.replace("_", "-"), default=default, help=f"(default {default})", **_flag(kind))
        values = vars(_parse(parser, words))
        del values["model"]
        inputs, as_json, csv, chances = (values.pop(name) for name in ("inputs", "json", "csv", "probabilities"))
        if chances and not csv:
            raise Problem("--probabilities: expected --csv FILE too")
        if csv:
            from thalweg.inspection.submission import submission

            if len(inputs) != 1 or not Path(inputs[0]).is_dir():
                raise Problem(f"--csv {csv}: expected one folder of images, given {' '.join(inputs):.200}")
            return print(submission(task, Path(inputs[0]), csv, probabilities=chances, least=values.get("least")))
        for line in answer(task, inputs, as_json=as_json, **values):
            print(line, flush=True)
    except (CorruptFile, ValueError, OSError, ImportError, NotImplementedError) as error:
        raise Problem(str(error)) from error


def _predict_help(words: list[str]) -> None:
    parser = _Parser(
        "thalweg predict",
        allow_abbrev=False,
        usage="thalweg predict RUN_OR_MODEL INPUT... [--json] [options of the task]",
        description="Predicts with a trained run or a model folder. Images: labels with probabilities, best first; texts: how "
        "they go on; videos: with what was found painted on them. `thalweg predict RUN --help` lists the options of that run's "
        "task.",
    )
    parser.add_argument("model", metavar="RUN_OR_MODEL")
    _parse(parser, words)


def model_folder(path: Path) -> Path:
    """The model of a run, or the folder itself if it is a model."""
    found = next((folder for folder in (path / "model", path) if (folder / "config.json").exists()), None)
    if found is None:
        raise Problem(f"{path}: neither a run with a model nor a model folder")
    return found


def adopt(words: list[str]) -> None:
    """Make a model of public weights: thalweg adopt mobilenetv2 WEIGHTS"""
    parser = _Parser("thalweg adopt", description="Makes a model folder of the public weights of a classifier of images or of "
                     "an encoder of sentences, which `predict`, `similar` and `serve` take; or of word vectors, for `predict`.",
                     allow_abbrev=False)  # fmt: skip
    parser.add_argument("model", metavar="MODEL", help="such as mobilenetv2, resnet18 or minilm; or word-vectors")
    parser.add_argument("weights", metavar="WEIGHTS", help="folder, file or Hugging Face id; of word vectors also glove-6b")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="of the model (default ./MODEL)")
    values = _parse(parser, words)
    from thalweg.adaptation.adopt import adopt as start
    from thalweg.adaptation.adopt_words import adopt_words
    from thalweg.build import save

    try:
        out = values.out or Path(values.model)
        save(adopt_words(values.weights) if values.model == "word-vectors" else start(values.model, values.weights), out)
    except (ValueError, OSError, ImportError) as error:
        raise Problem(str(error)) from error
    print(f"model: {out}")


def merge(words: list[str]) -> None:
    """Merge what fine-tunes of one model learned: thalweg merge BASE RUN RUN"""
    parser = _Parser("thalweg merge", description="Adds to a model what runs learned that went on from it (--pretrained), each "
                     "times a weight.", allow_abbrev=False)  # fmt: skip
    parser.add_argument("base", metavar="BASE", help="run or folder of the model that they began from")
    parser.add_argument("tuned", metavar="RUN", nargs="+", help="what went on from it")
    parser.add_argument("--weights", metavar="W,W", help="one each, or one for all; if not given, 1 / their number, the mean")
    parser.add_argument("--out", type=Path, default=Path("merged"), metavar="FOLDER", help="of the model (default ./merged)")
    values = _parse(parser, words)
    from thalweg.adaptation.merge import merge as start
    from thalweg.build import load, save

    try:
        weights = [float(one) for one in values.weights.split(",")] if values.weights else [1 / len(values.tuned)]
    except ValueError as error:
        raise Problem(f"weights={values.weights!r}: expected numbers with commas between") from error
    try:
        base, *tuned = (load(model_folder(Path(one))) for one in (values.base, *values.tuned))
        save(start(base, tuned, weights * len(tuned) if len(weights) == 1 else weights), values.out)
    except (ValueError, OSError) as error:
        raise Problem(str(error)) from error
    print(f"model: {values.out}")


def similar(words: list[str]) -> None:
    """Find images or texts like one: thalweg similar RUN FOLDER QUERY"""
    parser = _Parser("thalweg similar", description="Lists and draws the images of a folder that a model sees most like one; "
                     "or lists the documents that say most nearly what a text says.", allow_abbrev=False)  # fmt: skip
    parser.add_argument("model", metavar="RUN_OR_MODEL")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of images; of texts, or a file with one a line")
    parser.add_argument("query", metavar="QUERY", help="an image, or a text")
    parser.add_argument("--count", type=int, default=8, metavar="INT", help="to find (default 8)")
    parser.add_argument("--out", type=Path, default=Path("similar.png"), metavar="FILE", help="of the drawing (similar.png)")
    values = _parse(parser, words)
    out = launch.drawing_place(values.out)
    from thalweg.build import load
    from thalweg.inspection.similar import draw, ranked
    from thalweg.inspection.similar import similar as search

    try:
        model = load(model_folder(Path(values.model)))
        if hasattr(model, "vectors"):
            for place, text, cosine in ranked(cast("Any", model), values.folder, values.query, count=values.count):
                print(f"{cosine:.4f}  {place}  {text:.120}")
            return
        query = Path(values.query)
        found = search(model, values.folder, query, count=values.count)
    except (ValueError, OSError, ImportError) as error:
        raise Problem(str(error)) from error
    for path, cosine in found:
        print(f"{cosine:.4f}  {path}")
    draw(query, found).savefig(out)
    print(f"drawing: {out}")


def serve(words: list[str]) -> None:
    """Serve a run or model over HTTP"""
    node = next(node for node in launch.functions(launch.PACKAGE / "serving" / "__init__.py") if node.name == "serve")
    parser = _Parser("thalweg serve", description=(ast.get_docstring(node) or "").split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("model", metavar="MODEL", help=f"run or model folder; {MODELS}")
    _add_flags(parser, node)
    values = vars(_parse(parser, words))
    try:
        from thalweg.serving import serve as start

        start(values.pop("model"), **values)
    except (ValueError, OSError, ImportError) as error:
        raise Problem(str(error)) from error


def generate(words: list[str]) -> None:
    """Go on with a text: thalweg generate MODEL PROMPT"""
    values = _told_by("generate", ("MODEL", "PROMPT"), words)
    with _writing() as terminal:
        for piece in terminal.generate(values.pop("model"), values.pop("prompt"), **values):
            print(piece, end="", flush=True)
    print()


def chat(words: list[str]) -> None:
    """Talk with a model: thalweg chat MODEL"""
    values = _told_by("chat", ("MODEL",), words)
    with _writing() as terminal:
        terminal.chat(values.pop("model"), **values)


def probe(words: list[str]) -> None:
    """Ask a language model questions, with no, one or few examples: thalweg probe MODEL facts --shots 0,1,4"""
    values = _told_by("probe", ("MODEL", "PROBES"), words)
    with _writing() as terminal:
        for line in terminal.probe(values.pop("model"), values.pop("probes"), **values):
            print(line, flush=True)


def _told_by(name: str, given: tuple[str, ...], words: list[str]) -> dict[str, Any]:
    """What was typed for a function of the terminal, by its signature and docstring."""
    node = next(node for node in launch.functions(launch.PACKAGE / "serving" / "terminal.py") if node.name == name)
    parser = _Parser(f"thalweg {name}", description=(ast.get_docstring(node) or "").split("\n\n")[0], allow_abbrev=False)
    for place in given:
        parser.add_argument(place.lower(), metavar=place, help=GIVEN[place])
    _add_flags(parser, node)
    return vars(_parse(parser, words))


@contextmanager
def _writing() -> Iterator[Any]:
    from thalweg.weights import CorruptFile

    try:
        yield import_module("thalweg.serving.terminal")
    except BrokenPipeError:  # who reads has heard enough
        raise
    except (CorruptFile, ValueError, KeyError, OSError, ImportError, RuntimeError) as error:
        raise Problem(str(error)) from error


COMMANDS = {
    "run": run,
    "sweep": sweep,
    "range-test": range_test,
    "list": list_,
    "show": show,
    "results": results,
    "predict": predict,
    "adopt": adopt,
    "merge": merge,
    "similar": similar,
    "generate": generate,
    "chat": chat,
    "probe": probe,
    "serve": serve,
}

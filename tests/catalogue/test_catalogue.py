"""The catalogue: every row tells the truth about the code, and reading it is quick."""

import ast
import importlib
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from thalweg import catalogue
from thalweg.catalogue import CATALOGUE, PACKAGE
from thalweg.vocabulary import KINDS

CHECKOUT = PACKAGE.parents[1]
ROWS = catalogue.rows()
KEYS = {"chapter", "name", "also", "kind", "defined", "about", "paper", "taught", "parameters", "parity", "recipes", "test",
        "covers", "example"}  # fmt: skip
NUMBER = r"\d+(\.\d+)*"


def functions(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf8"))
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


RECIPES = {
    name.replace("_", "-") for path in (PACKAGE / "recipes").glob("[!_]*.py") for name in functions(path) if name[0] != "_"
}


@pytest.mark.parametrize("key", ROWS)
def test_a_row_is_whole(key):
    row = ROWS[key]
    assert set(row) <= KEYS
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", key)
    english, chinese = row["name"]
    assert english.isascii()
    assert re.search(r"[\u4e00-\u9fff]", chinese)
    assert set(row["kind"].split()) <= set(KINDS) | set(catalogue.KINDS)
    assert set(row.get("taught", {})) <= set(catalogue.BOOKS)
    for book in ("lbdl", "d2l"):
        assert re.fullmatch(rf"{NUMBER}(-{NUMBER})?(, {NUMBER}(-{NUMBER})?)*", row.get("taught", {}).get(book, "1"))
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", covered) for covered in row.get("covers", []))


@pytest.mark.parametrize("key", ROWS)
def test_what_a_row_names_exists(key):
    row = ROWS[key]
    place, docstring = catalogue.locate(row["defined"])
    assert place
    assert docstring or "about" in row
    assert "about" in row or row["defined"].startswith("thalweg.")
    assert set(row.get("recipes", [])) <= RECIPES
    if "paper" in row:
        paper = catalogue.papers()[row["paper"]]
        if row["defined"].startswith("thalweg.") and "arxiv" in paper and "about" not in row:
            assert paper["arxiv"] in docstring, "the docstring cites the paper"
    if "test" in row:
        file, _, name = row["test"].partition("::")
        assert name in functions(CHECKOUT / file)


@pytest.mark.parametrize("key", [key for key, row in ROWS.items() if row.get("covers")])
def test_what_a_row_covers_is_exercised_by_a_test_or_a_recipe(key):
    assert "test" in ROWS[key] or ROWS[key].get("recipes")


MODELS = [key for key, row in ROWS.items() if set(row["kind"].split()) & set(KINDS)]


@pytest.mark.parametrize("key", MODELS)
def test_a_model_comes_with_a_small_example_or_is_a_size_too_large_for_one(key):
    row = ROWS[key]
    if "example" in row:
        assert set(row["example"]) == {"arguments", "input"}
    else:
        assert row["parameters"] > 50_000_000
        family = row["defined"].partition(":")[0]
        assert any("example" in ROWS[other] and ROWS[other]["defined"].startswith(family) for other in MODELS)


@pytest.mark.parametrize("key", [key for key in MODELS if "parameters" in ROWS[key]])
def test_the_number_of_parameters_is_counted(key):
    module, _, name = ROWS[key]["defined"].partition(":")
    with torch.device("meta"):
        model = getattr(importlib.import_module(module), name)()
    assert sum(parameter.numel() for parameter in model.parameters()) == ROWS[key]["parameters"]


def test_a_parity_is_with_what_the_golden_files_were_made_with():
    golden = (CHECKOUT / "tests" / "golden").glob("*.safetensors")
    peers = {safe_open(path, "pt").metadata()["peer"] for path in golden}
    assert {peer for row in ROWS.values() if "parity" in row for peer in row["parity"].split(", ")} == peers


def test_ids_names_and_covered_systems_are_unique():
    for column in (0, 1):
        names = Counter(row["name"][column].casefold() for row in ROWS.values())
        assert max(names.values()) == 1, names.most_common(3)
    covered = Counter(system for row in ROWS.values() for system in row.get("covers", []))
    assert max(covered.values()) == 1, covered.most_common(3)


def test_every_recipe_is_in_a_row():
    assert {recipe for row in ROWS.values() for recipe in row.get("recipes", [])} == RECIPES


def test_papers_are_whole_and_cited():
    cited = {row["paper"] for row in ROWS.values() if "paper" in row}
    assert set(catalogue.papers()) == cited
    for paper in catalogue.papers().values():
        assert set(paper) in ({"authors", "year", "title", "arxiv"}, {"authors", "year", "title", "venue"})
        if "arxiv" in paper:
            assert re.fullmatch(r"\d{4}\.\d{4,5}", paper["arxiv"])
            assert 2000 + int(paper["arxiv"][:2]) == paper["year"]


@pytest.mark.parametrize(
    "name", ["resnet-18", "ResNet-18", "resnet18", "RESNET_18", "resnet 18", "残差网络-18", "resnet‐18", "ＲｅｓＮｅｔ－18"]
)
def test_a_system_is_found_by_any_of_its_names(name):
    assert catalogue.find(name)[0] == "resnet-18"


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("lenet-fashion-mnist", "lenet"),
        ("lenet_digits", "lenet"),
        ("read_table", "table-preprocessing"),
        ("deferred-init", "lazy-initialisation"),
        ("multi-layer perceptron", "mlp"),
        ("Batch Normalization", "batch-normalisation"),
        ("层规范化", "layer-normalisation"),
    ],
)
def test_a_recipe_a_function_a_covered_system_or_another_name_leads_to_its_row(name, key):
    assert catalogue.find(name)[0] == key


def test_an_unknown_name_is_refused_with_what_is_close():
    with pytest.raises(LookupError, match=r"no 'resnet-19'; did you mean resnet or resnet-18 or"):
        catalogue.find("resnet-19")
    with pytest.raises(LookupError, match=r"no 'qqqqqqqq'$"):
        catalogue.find("qqqqqqqq")


def test_the_line_of_a_definition_is_where_it_stands():
    place, docstring = catalogue.locate("thalweg.models.vision.resnet:Block.forward")
    file, _, line = place.rpartition(":")
    assert Path(file).read_text(encoding="utf8").splitlines()[int(line) - 1].strip().startswith("def forward")
    assert "arXiv:1512.03385" in docstring
    with pytest.raises(LookupError, match="defines no resnet19"):
        catalogue.locate("thalweg.models.vision.resnet:resnet19")
    with pytest.raises(LookupError, match="there is no"):
        catalogue.locate("thalweg.models.vision.resnot:resnet18")
    with pytest.raises(LookupError, match="Lineal"):
        catalogue.locate("torch.nn:Lineal")


def test_the_page_of_a_system_has_what_a_learner_looks_for(monkeypatch):
    monkeypatch.chdir(CHECKOUT)
    page = catalogue.show("残差网络-18")
    assert "ResNet-18 · 残差网络-18" in page
    assert re.search(r"src/thalweg/models/vision/resnet\.py:\d+", page)
    assert "y = relu(shortcut(x) + branch(x))" in page  # the formula
    assert "He, Zhang, Ren, Sun 2015, Deep residual learning for image recognition, arXiv:1512.03385" in page
    assert "LBDL 5.2 · D2L 7.6" in page
    assert "11,689,512" in page


def test_the_listing_has_exactly_the_fields_that_are_promised():
    listing = json.loads(json.dumps(catalogue.listing()))
    fields = ["id", "name", "kind", "chapter", "defined", "paper", "taught", "covers", "recipes", "results"]
    assert all(list(entry) == fields for entry in listing)
    assert [entry["id"] for entry in listing] == list(ROWS)


def test_an_id_in_two_chapters_is_refused(monkeypatch, tmp_path):
    for number in (1, 2):
        (tmp_path / f"0{number}_part{number}.toml").write_text('[same]\nname = ["a", "b"]\n')
    monkeypatch.setattr(catalogue, "CATALOGUE", tmp_path)
    with pytest.raises(ValueError, match=r"02_part2\.toml: same is in chapter part1 too"):
        catalogue.rows.__wrapped__()


def test_reading_the_catalogue_imports_neither_torch_nor_numpy():
    code = (
        "import sys; from thalweg import catalogue; catalogue.listing(); catalogue.results(); catalogue.show('resnet-18');"
        "sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_chapters_are_numbered_in_the_order_of_the_systems():
    names = [path.name for path in CATALOGUE.glob("*.toml") if path.name != "papers.toml"]
    assert names
    assert all(re.fullmatch(r"\d\d_[a-z_]+\.toml", name) for name in names)

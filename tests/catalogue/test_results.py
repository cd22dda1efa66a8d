"""Results: what runs wrote, joined to the catalogue."""

import copy
import json
import re
from pathlib import Path

import pytest

from thalweg import catalogue

RECIPE = "lenet-digits"
FINISHED = {
    "recipe": RECIPE,
    "arguments": {"epochs": 60},
    "command": "thalweg run lenet-digits --seed 3",
    "seed": 3,
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "dirty": False,
    "date": "2025-11-21",
    "seconds": 12.5,
    "machine": {"processor": "A Processor", "cores": 2, "threads": 2, "accelerator": None, "bf16": True},
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "precision": "bf16",
    "metrics": {
        "test/accuracy": {"value": 0.9889, "higher_is_better": True},
        "test/loss": {"value": 0.04, "higher_is_better": False},
    },
}


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """Writes a run and an empty folder of results, which the catalogue then reads."""
    monkeypatch.setattr(catalogue, "results_folder", lambda: tmp_path / "results")
    (tmp_path / "results").mkdir()

    def write(name: str = "run", **changes):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "run.json").write_text(json.dumps({**copy.deepcopy(FINISHED), **changes}))
        return folder

    return write


def test_a_recorded_run_comes_back_a_metric_an_entry(finished):
    assert catalogue.results() == []
    path = catalogue.record(finished())
    assert path.name == "lenet-digits.json"
    first, second = catalogue.results()
    fields = [
        "recipe",
        "metric",
        "value",
        "higher_is_better",
        "seconds",
        "seed",
        "command",
        "commit",
        "machine",
        "versions",
        "date",
    ]
    assert list(first) == fields
    assert (first["recipe"], first["metric"], first["value"], first["higher_is_better"]) == (
        RECIPE,
        "test/accuracy",
        0.9889,
        True,
    )
    assert (second["metric"], second["value"], second["higher_is_better"]) == ("test/loss", 0.04, False)
    assert all(first[name] == FINISHED[name] for name in fields[4:])


def test_runs_are_added_and_none_is_added_twice(finished):
    catalogue.record(finished())
    catalogue.record(finished())
    assert len(catalogue.runs(RECIPE)) == 1
    catalogue.record(finished(seed=4, recipe="lenet_digits"))
    assert [run["seed"] for run in catalogue.runs(RECIPE)] == [3, 4]
    assert {run["recipe"] for run in catalogue.runs(RECIPE)} == {RECIPE}


def test_the_page_and_the_listing_show_what_was_measured(finished):
    catalogue.record(finished())
    page = catalogue.show("lenet")
    assert "thalweg run lenet-digits" in page
    assert "test/accuracy 0.9889, test/loss 0.04   12 s on A Processor, 2 threads, seed 3, 2025-11-21, commit 012345678" in page
    assert "no recorded run" in page  # of the other recipe
    (entry,) = [entry for entry in catalogue.listing() if entry["id"] == "lenet"]
    assert [result["value"] for result in entry["results"]] == [0.9889, 0.04]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": {}}, "not finished"),
        ({"dirty": True}, r"dirty=True: expected a run of committed code"),
        ({"commit": None}, r"commit=None"),
        ({"recipe": "mine.py:recipe"}, r"the recipe mine\.py:recipe is in no row"),
    ],
)
def test_a_run_that_cannot_be_repeated_is_refused(finished, changes, message):
    with pytest.raises(ValueError, match=message):
        catalogue.record(finished(**changes))
    assert catalogue.results() == []


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"run\.json is missing"):
        catalogue.record(tmp_path)


def test_results_in_the_repository_are_of_catalogued_recipes_and_name_no_machine_path():
    for path in catalogue.results_folder().glob("*.json"):
        text = path.read_text(encoding="utf8")
        assert not re.search(r"/(work|tmp|root|home)/", text), path
        if path.stem != "benchmarks":
            for run in json.loads(text):
                assert run["recipe"] == path.stem
                assert run["metrics"]
                assert run["dirty"] is False
    recorded = {path.stem for path in catalogue.results_folder().glob("*.json")} - {"benchmarks"}
    assert recorded <= {recipe for row in catalogue.rows().values() for recipe in row.get("recipes", [])}


def test_an_installed_package_carries_its_results(monkeypatch, tmp_path):
    package = tmp_path / "src" / "thalweg"
    package.mkdir(parents=True)
    monkeypatch.setattr(catalogue, "PACKAGE", package)
    assert catalogue.results_folder() == tmp_path / "results"  # of a checkout
    (package / "results").mkdir()
    assert catalogue.results_folder() == package / "results"


def test_paths_in_commands_and_notes_are_recorded_by_their_last_names_and_addresses_as_they_are(finished):
    told = {"command": "thalweg run x --data /home/me/a.b/photos --lr 1/2 --pretrained timm/resnet18", "commit": "a1",
            "notes": {"model": "from the weights of /mnt/w.pth, of https://example.org/a/b"}}  # fmt: skip
    catalogue.record(finished(**told))
    held = catalogue.runs(RECIPE)[0]
    assert held["command"] == "thalweg run x --data photos --lr 1/2 --pretrained timm/resnet18"
    assert held["notes"] == {"model": "from the weights of w.pth, of https://example.org/a/b"}


def test_a_path_among_the_arguments_is_recorded_by_its_last_name(finished, tmp_path):
    catalogue.record(finished(arguments={"epochs": 3, "encoder": str(tmp_path / "out" / "byol"), "pool": "cls"}))
    assert catalogue.runs(RECIPE)[0]["arguments"] == {"epochs": 3, "encoder": "byol", "pool": "cls"}


@pytest.mark.parametrize("name", ["README.md", "README.zh.md", "docs/results.md"])
def test_every_figure_of_the_tables_was_recorded(name):
    text = (Path(catalogue.__file__).parents[3] / name).read_text(encoding="utf8")
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|\D*([\d.]+)( %)?", text, re.MULTILINE)
    assert len(rows) >= 8
    for recipe, number, percent in rows:
        decimals = len(number.partition(".")[2])
        values = [held["value"] * (100 if percent else 1) for run in catalogue.runs(recipe) for held in run["metrics"].values()]
        assert number in [f"{value:.{decimals}f}" for value in values], recipe


def test_runs_of_a_recipe_are_told_apart_by_what_was_typed(finished):
    catalogue.record(finished())
    assert "    --seed 3: test/accuracy 0.9889" in catalogue.show("lenet")

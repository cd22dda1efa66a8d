"""Every catalogued model of ours keeps the contract of its kind, tried on the small example of its row."""

import importlib
import tomllib
from pathlib import Path

import checks
import pytest

import thalweg
from thalweg.vocabulary import KINDS

CATALOGUE = Path(thalweg.__file__).parent / "catalogue"
ROWS = {
    key: row for path in sorted(CATALOGUE.glob("[0-9]*.toml")) for key, row in tomllib.loads(path.read_text("utf8")).items()
}
MODELS = {key: row for key, row in ROWS.items() if set(row["kind"].split()) & set(KINDS)}
EXAMPLES = [key for key, row in MODELS.items() if "example" in row]


def builder(key):
    module, _, name = MODELS[key]["defined"].partition(":")
    return getattr(importlib.import_module(module), name)


def instance(key):
    row = MODELS[key]
    arguments, kinds = row["example"]["arguments"], row["kind"].split()
    return checks.random_model(builder(key), arguments), checks.example_input(kinds, arguments, row["example"]["input"])


def test_every_kind_of_model_is_checked():
    assert set(checks.PROMISES) == set(KINDS)
    assert len(EXAMPLES) >= 10


@pytest.mark.parametrize("key", EXAMPLES)
def test_a_model_is_built_without_memory(key):
    checks.is_built_without_memory(builder(key), MODELS[key]["example"]["arguments"])


@pytest.mark.parametrize("key", EXAMPLES)
def test_a_model_answers_as_its_kinds_promise(key):
    model, x = instance(key)
    for kind in set(MODELS[key]["kind"].split()) & set(KINDS):
        checks.answers_as(kind, model, x)


@pytest.mark.parametrize("key", EXAMPLES)
def test_a_model_learns_with_every_parameter(key):
    checks.learns_with_every_parameter(*instance(key))


@pytest.mark.parametrize("key", EXAMPLES)
def test_a_model_comes_back_from_its_folder(key, tmp_path):
    checks.comes_back_from_its_folder(*instance(key), tmp_path)


@pytest.mark.parametrize("key", EXAMPLES)
def test_a_model_stays_finite_in_bfloat16(key):
    checks.stays_finite_in_bfloat16(*instance(key))


@pytest.mark.parametrize("key", EXAMPLES)
def test_a_model_keeps_its_names_when_compiled(key):
    checks.keeps_its_names_when_compiled(instance(key)[0])

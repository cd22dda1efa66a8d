"""What is drawn of attention is what it reads."""

import importlib
import re
from functools import partial
from pathlib import Path

import torch
from torch.testing import assert_close

from thalweg.inspection.attention_patterns import attention_matrix, attention_patterns
from thalweg.layers.attention import attention, attention_weights
from thalweg.layers.sparse_attention import longformer, pattern_mask, sparse_attention


def test_the_matrix_of_a_way_to_attend_is_its_weights():
    query, key = torch.randn(2, 12, 4).double()
    assert_close(attention_matrix(attention, query, key), attention_weights(query[None, None], key[None, None])[0, 0])
    found = attention_matrix(partial(sparse_attention, window=2, tokens=1), query, key)
    assert torch.equal(found > 0, pattern_mask([longformer(2, 1)], 12)[0])


def test_every_way_is_drawn_and_none_twice_alike():
    before = torch.get_rng_state()
    figure = attention_patterns(32)
    assert torch.equal(torch.get_rng_state(), before)
    drawn = {axis.get_title(): axis.images[0].get_array() for axis in figure.axes if axis.images}
    assert {"all", "window", "strided", "Longformer", "Big Bird", "Reformer", "Routing", "Sinkhorn"} <= drawn.keys()
    assert all(abs(drawn["all"] - drawn[name]).max() > 1e-3 for name in drawn.keys() - {"all"})
    assert (drawn["causal"].data == torch.tensor(drawn["causal"].data).tril().numpy()).all()
    assert (drawn["Big Bird"][drawn["Longformer"] > 0] > 0).all()


def test_the_table_names_every_layer_and_every_layer_is_there():
    """docs/attention.md: each way of the survey has a row, whose place exists; each layer of these modules has a row."""
    page = (Path(__file__).parents[2] / "docs" / "attention.md").read_text(encoding="utf8")
    places = re.findall(r"^\|[^|]+\|[^|]*\| `(\w+)\.(\w+)` \|", page, re.MULTILINE)
    assert len(places) == len(set(places)) == 16
    for module, name in places:
        assert hasattr(importlib.import_module(f"thalweg.layers.{module}"), name)
    for module in {module for module, _ in places} - {"attention"}:
        found = importlib.import_module(f"thalweg.layers.{module}")
        layers = {name for name, item in vars(found).items()
                  if isinstance(item, type) and item.__module__ == found.__name__ and item.__name__ == name}  # fmt: skip
        assert layers <= {name for _, name in places}

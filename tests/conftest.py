"""Every test: one torch thread, a fixed seed, shapes of annotated functions checked."""

import os
from importlib.util import find_spec

import pytest
import torch
from jaxtyping import install_import_hook

torch.set_num_threads(1)
if find_spec("numba"):
    import thalweg.layers.pair_by_pair
    import thalweg.layers.suppression  # noqa: F401  # before the hook, which is nothing for a compiler
# an int is a float, as everywhere in Python
install_import_hook("thalweg", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def data_folder():
    """The folder of the real data sets; the test is skipped where there is none."""
    if not os.environ.get("THALWEG_DATA"):
        pytest.skip("THALWEG_DATA is not set: the real data sets are not at hand")
    return os.environ["THALWEG_DATA"]

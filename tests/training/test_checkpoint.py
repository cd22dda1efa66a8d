"""Checkpoints: what goes in comes out, and what is damaged is refused by name."""

import json
import math
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from thalweg.training import checkpoint
from thalweg.weights import CorruptFile

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
          torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn]  # fmt: skip


@st.composite
def tensors(draw):
    """Tensors of every type, of no to three axes, empty too, contiguous or not."""
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    values = torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))), dtype=torch.float64) * 9
    return values.transpose(0, -1).to(draw(st.sampled_from(DTYPES))) if shape else values.to(draw(st.sampled_from(DTYPES)))


keys = st.one_of(st.text(max_size=4), st.integers(), st.sampled_from(["a", "b", "a.b", "1", 1, "0", "a.0", "tensor", "items"]))
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), tensors())
states = st.recursive(leaves, lambda held: st.one_of(st.lists(held, max_size=3), st.dictionaries(keys, held, max_size=4)))


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert (
            one.contiguous().reshape(-1).view(torch.uint8).tolist() == other.contiguous().reshape(-1).view(torch.uint8).tolist()
        )
    elif isinstance(one, dict):
        assert list(one) == list(other)
        assert [type(key) for key in one] == [type(key) for key in other]
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_same(first, second)
    elif isinstance(one, float):
        assert one == other or (math.isnan(one) and math.isnan(other))
    else:
        assert one == other


ALIKE = {"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}, 1: torch.ones(2), "1": torch.ones(3), "1.0": torch.ones(4)}


@settings(deadline=None, max_examples=200)
@given(states)
@example(ALIKE)
def test_a_state_packs_into_json_and_tensors_and_back(state):
    held: dict = {}
    packed = json.loads(json.dumps(checkpoint.pack(state, held)))
    assert_same(checkpoint.unpack(packed, held), state)


@settings(deadline=None, max_examples=25)
@given(st.dictionaries(st.text(max_size=3), states, max_size=4))
def test_a_state_comes_back_from_its_file_as_it_went_in(state):
    with TemporaryDirectory() as folder:
        checkpoint.write(Path(folder), 1, state)
        assert_same(checkpoint.read(Path(folder)), state)


def test_tensors_that_share_memory_are_written_whole(tmp_path):
    base = torch.arange(6.0)
    state = {"all": base, "again": base, "part": base[2:4], "turned": base.view(2, 3).T}
    checkpoint.write(tmp_path, 1, state)
    assert_same(checkpoint.read(tmp_path), state)


def test_tuples_come_back_as_lists(tmp_path):
    checkpoint.write(tmp_path, 1, {"betas": (0.9, 0.99)})
    assert checkpoint.read(tmp_path) == {"betas": [0.9, 0.99]}


@pytest.mark.parametrize(("state", "error"), [
    ({"a": {"b": object()}}, r"state\.a\.b: a checkpoint holds tensors and plain values, not object"),
    ({"a": {(1, 2): 3}}, r"state\.a: the key \(1, 2\) of a dictionary in a checkpoint is no plain value"),
])  # fmt: skip
def test_what_no_checkpoint_can_hold_is_named(tmp_path, state, error):
    with pytest.raises(TypeError, match=error):
        checkpoint.write(tmp_path, 1, state)
    assert list(tmp_path.iterdir()) == []


def test_the_two_newest_checkpoints_are_kept(tmp_path):
    for number in (9, 10, 99, 100):
        checkpoint.write(tmp_path, number, {"number": number})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000099.safetensors", "step-00000100.safetensors"]
    assert checkpoint.read(tmp_path) == {"number": 100}


def test_where_there_is_no_checkpoint_there_is_no_state(tmp_path):
    assert checkpoint.read(tmp_path / "nowhere") is None


def damages(size, header):
    """Ways to damage a file: (name, function of its bytes)."""
    yield "empty", lambda content: b""
    for length in (1, 7, 8, 9, header, header + 4, size - 1):
        yield f"cut to {length}", lambda content, length=length: content[:length]
    for place in (0, 3, 7, 8, 9, 12, *range(16, header, 23), header - 1, header, header + 5, size // 2, size - 1):
        for bit in (0, 6):
            yield (
                f"bit {bit} of byte {place}",
                lambda content, place=place, bit=bit: (
                    content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
                ),
            )
    yield "longer", lambda content: content + b"\0"
    yield "of zeros", lambda content: bytes(len(content))


def test_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_it_used(tmp_path):
    for number in (3, 6):
        checkpoint.write(tmp_path, number, {"number": number, "weights": [torch.arange(40.0), torch.ones(3, dtype=torch.bool)]})
    newest = tmp_path / "step-00000006.safetensors"
    content = newest.read_bytes()
    for name, damage in damages(len(content), 8 + int.from_bytes(content[:8], "little")):
        newest.write_bytes(damage(content))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert checkpoint.read(tmp_path)["number"] == 3, name
        assert len(said) == 1, name
        assert f"{newest} is damaged" in str(said[0].message), name
        assert str(said[0].message).endswith("trying the checkpoint before it"), name
    newest.write_bytes(content)
    assert checkpoint.read(tmp_path)["number"] == 6


def test_where_every_checkpoint_is_damaged_all_are_named(tmp_path):
    for number in (3, 6):
        checkpoint.write(tmp_path, number, {"number": number})
        (tmp_path / f"step-0000000{number}.safetensors").write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(
            CorruptFile, match=r"every checkpoint is damaged: step-00000003\.safetensors, step-00000006\.safetensors"
        ),
    ):
        checkpoint.read(tmp_path)


def test_a_checkpoint_is_a_safetensors_file_that_others_can_read(tmp_path):
    checkpoint.write(tmp_path, 1, {"task": {"weight": torch.arange(3.0)}})
    assert torch.equal(load_file(tmp_path / "step-00000001.safetensors")["state.task.weight"], torch.arange(3.0))

"""Files of tensors are whole, checked and named when damaged; tables are read both ways and strictly."""

import contextlib
import errno
import json
import os
import re
import resource
import signal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from thalweg import weights
from thalweg.weights import (
    CorruptFile,
    from_public,
    read_safetensors,
    read_tensors,
    to_public,
    translate,
    understood,
    write_tensors,
    write_whole,
)

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.step": torch.tensor(7), "空": torch.tensor([True, False])}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool, torch.complex64],
)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_every_type_and_shape_comes_back_bit_equal(dtype, shape, tmp_path):
    tensor = torch.randint(0, 2, shape).to(dtype)
    write_tensors(tmp_path / "x", {"x": tensor, "transposed": tensor.mT if len(shape) == 2 else tensor})
    read, state = read_tensors(tmp_path / "x")
    assert read["x"].dtype == dtype
    assert torch.equal(read["x"], tensor)
    assert state is None


def test_a_state_comes_back_beside_the_tensors(tmp_path):
    state = {"步": [1, 2.5, None, True, "é\n"], "nested": {"a": []}}
    write_tensors(tmp_path / "x", TENSORS, state)
    read, found = read_tensors(tmp_path / "x")
    assert equal(read, TENSORS)
    assert found == state


def test_tensors_that_share_memory_are_written_apart(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    shared = {"whole": whole, "same": whole, "row": whole[1], "column": whole[:, 1], "empty": whole[:0], "none": whole[:0]}
    write_tensors(tmp_path / "x", shared)
    assert equal(read_tensors(tmp_path / "x")[0], shared)
    assert (tmp_path / "x").stat().st_size < 1200


def test_what_was_read_can_be_changed_without_changing_the_file(tmp_path):
    write_tensors(tmp_path / "x", TENSORS)
    read, _ = read_tensors(tmp_path / "x")
    read["a.weight"].zero_()
    assert equal(read_tensors(tmp_path / "x")[0], TENSORS)


@pytest.fixture
def survives(tmp_path):
    """Whether a content, written over a file in place, is read as if nothing had happened."""
    with open(tmp_path / "x", "wb", buffering=0) as file:

        def check(content):
            file.seek(0)
            file.truncate(len(content))
            file.write(content)
            with contextlib.suppress(CorruptFile):
                return bool(read_tensors(tmp_path / "x"))

        yield check


def content_of_a_file(folder):
    write_tensors(folder / "whole", TENSORS, {"step": 3})
    return (folder / "whole").read_bytes()


def test_every_flipped_bit_is_refused(tmp_path, survives):
    content = content_of_a_file(tmp_path)
    assert survives(content)
    number = int.from_bytes(content)
    flips = ((number ^ 1 << place).to_bytes(len(content)) for place in range(8 * len(content)))
    assert not any(survives(flipped) for flipped in flips)


def test_every_truncation_is_refused(tmp_path, survives):
    content = content_of_a_file(tmp_path)
    assert not any(survives(content[:length]) for length in range(len(content)))
    assert not survives(content + b"\0")


def test_damage_is_named(tmp_path):
    content = content_of_a_file(tmp_path)
    (tmp_path / "x").write_bytes(content[:-1] + b"\7")
    with pytest.raises(CorruptFile, match=f"{tmp_path}/x is damaged: its content does not match its SHA-256"):
        read_tensors(tmp_path / "x")
    (tmp_path / "x").write_bytes(content[:100])
    with pytest.raises(CorruptFile, match=f"{tmp_path}/x is damaged"):
        read_tensors(tmp_path / "x")


def test_a_file_without_our_digest_is_refused_unless_asked_for_as_public(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "x")
    with pytest.raises(CorruptFile, match="does not match its SHA-256"):
        read_tensors(tmp_path / "x")
    assert read_safetensors(tmp_path / "x")[0]["a"].shape == (2,)


def test_a_missing_file_is_missing_and_not_damaged(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "x")


@pytest.mark.parametrize("failure", [RuntimeError("no"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_a_writer_that_fails_leaves_nothing_behind_and_the_old_file_whole(failure, tmp_path):
    path = tmp_path / "x"
    path.write_text("before")

    def write(partial):
        partial.write_text("a half")
        raise failure

    with pytest.raises(type(failure)):
        write_whole(path, write)
    assert [file.name for file in tmp_path.iterdir()] == ["x"]
    assert path.read_text() == "before"


def test_a_disk_that_is_full_at_the_last_moment_leaves_the_old_file_whole(tmp_path, monkeypatch):
    write_tensors(tmp_path / "x", TENSORS, "before")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_tensors(tmp_path / "x", TENSORS, "after")
    assert [file.name for file in tmp_path.iterdir()] == ["x"]
    assert read_tensors(tmp_path / "x")[1] == "before"


def test_a_file_system_that_refuses_is_an_error_of_the_system_with_its_number(tmp_path):
    """safetensors says it in words only; whoever waits for a full disk looks at the number."""
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            write_tensors(tmp_path / "x", {"a": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_no_reader_ever_sees_a_part(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")

    def write(partial):
        partial.write_text("new")
        assert path.read_text() == "old"
        assert partial.parent == path.parent  # the same file system, so that the move is one step
        assert partial.name.startswith(".")

    write_whole(path, write)
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize(
    ("pattern", "into", "name", "expected"),
    [
        ("layer{1}.{0}.conv{1}.*", "stages.{0}.{0}.layers.{0}.0.*", "layer4.10.conv2.weight", "stages.3.10.layers.1.0.weight"),
        ("a.*", "b.c.*", "a.x.y", "b.c.x.y"),
        ("a.b", "c", "axb", None),  # a point is a point
        ("a.{0}.b", "c.{0}", "a.x.b", None),
        ("a.{0}", "c.{0}", "a.1.2", None),
    ],
)
def test_a_pattern_renames(pattern, into, name, expected):
    assert translate(pattern, into, name) == expected


@given(st.integers(0, 99), st.integers(0, 99), st.text("abc.", min_size=1))
def test_a_pattern_is_read_both_ways(first, second, rest):
    pattern, into = "x{1}.{0}.y.*", "s.{0}.t{1}.*"
    name = f"s.{first}.t{second + 1}.{rest}"
    assert translate(pattern, into, translate(into, pattern, name)) == name


TABLE = {
    "emb": ("embedding.weight", "transposed"),
    ("h.{1}.q", "h.{1}.k", "h.{1}.v"): "blocks.{0}.qkv",
    "h.{1}.*": "blocks.{0}.*",
    "tied": None,
}
OURS = {
    "embedding.weight": torch.arange(6.0).reshape(3, 2),
    "blocks.0.qkv": torch.arange(12.0).reshape(6, 2),
    "blocks.0.up": torch.ones(2),
    "blocks.1.qkv": -torch.arange(12.0).reshape(6, 2),
    "blocks.1.up": torch.zeros(2),
}


def test_a_table_goes_out_and_in_bit_equal():
    public = to_public(OURS, TABLE)
    assert set(public) == {"emb", *(f"h.{i}.{n}" for i in (1, 2) for n in ("q", "k", "v", "up"))}
    assert public["emb"].shape == (2, 3)
    assert torch.equal(public["h.2.k"], OURS["blocks.1.qkv"][2:4])
    assert equal(from_public({**public, "tied": torch.zeros(1)}, TABLE, OURS), OURS)


def test_one_error_lists_everything_missing_unknown_and_misshapen():
    public = to_public(OURS, TABLE)
    del public["h.1.k"], public["h.2.up"]
    public |= {"stranger": torch.zeros(1), "h.3.q": torch.zeros(2, 2), "emb": torch.zeros(3, 2), "h.2.v": torch.zeros(3, 2)}
    with pytest.raises(ValueError, match="does not fit") as caught:
        from_public(public, TABLE, OURS)
    missing, unknown, misshapen = str(caught.value).split(": ", 1)[1].split("; ")
    assert missing == "missing ['h.1.k', 'h.2.up']"
    assert unknown == "unknown ['stranger', 'h.3.q']"
    assert misshapen == "misshapen ['emb (3, 2) instead of (2, 3)', 'h.2.v (3, 2) instead of (2, 2)']"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"h.1.k": None}, "missing ['h.1.k']; unknown []; misshapen []"),
        ({"stranger": torch.zeros(1)}, "missing []; unknown ['stranger']; misshapen []"),
        ({"h.1.up": torch.zeros(3)}, "missing []; unknown []; misshapen ['h.1.up (3,) instead of (2,)']"),
    ],
)
def test_each_alone_is_enough_to_refuse(change, words):
    public = {name: tensor for name, tensor in {**to_public(OURS, TABLE), **change}.items() if tensor is not None}
    with pytest.raises(ValueError, match=re.escape(words)):
        from_public(public, TABLE, OURS)


def test_a_tensor_of_ours_that_no_line_names_has_no_public_form():
    with pytest.raises(ValueError, match="extra: no line of the table names it"):
        to_public({**OURS, "extra": torch.zeros(1)}, TABLE)


def test_halves_become_the_type_of_the_model():
    public = {name: tensor.half() for name, tensor in to_public(OURS, TABLE).items()}
    assert equal(from_public(public, TABLE, OURS), OURS)


def test_old_checkpoints_without_batch_counters_fit():
    expected = {"n.weight": torch.ones(2), "n.num_batches_tracked": torch.tensor(5)}
    found = from_public({"m.weight": torch.ones(2)}, {"m.*": "n.*"}, expected)
    assert found["n.num_batches_tracked"] == 0


def test_a_config_that_says_more_than_we_understand_is_refused_with_all_of_it():
    config = json.loads('{"size": 3, "act": "relu", "magic": true, "bias": false, "dtype": "float32"}')
    understood({"size": 3, "act": "gelu"}, ["size"], act="gelu")
    with pytest.raises(ValueError, match=r"act='relu' \(expected 'gelu'\), magic=True, bias=False: not understood"):
        understood(config, ["size"], act="gelu")

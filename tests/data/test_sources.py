"""Sources: found or downloaded whole and checked, or an error that says what to do; and what the data sets hold."""

import gzip
import hashlib
import lzma
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
import torch

from thalweg.data import sources
from thalweg.data.sources import (
    CIFAR10_RECORD,
    MissingData,
    cifar10,
    cifar10_records,
    digits,
    fashion_mnist,
    fetch,
    find,
    idx,
    mnist,
    tiny_shakespeare,
)

CONTENT = b"what was to be sent" * 1000
SUM = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def places(tmp_path, monkeypatch):
    """An empty data folder and an empty cache, in place of the person's."""
    data, cache = tmp_path / "data", tmp_path / "cache"
    data.mkdir()
    monkeypatch.setenv("THALWEG_DATA", str(data))
    monkeypatch.setenv("THALWEG_CACHE", str(cache))
    return data, cache


@pytest.fixture
def server():
    """A server on this machine: /whole, /short (ends too early, as when a line drops), /other, /missing."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/missing":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            sent = {"/whole": CONTENT, "/short": CONTENT[:7000], "/other": CONTENT[::-1]}[self.path]
            self.wfile.write(sent)

        def log_message(self, *_):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_address[1]}"
    running.shutdown()


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_download_is_kept_and_not_repeated(places, server):
    _, cache = places
    assert fetch("set/file", f"{server}/whole", SUM) == CONTENT
    assert files(cache) == ["set/file"]
    assert fetch("set/file", "http://127.0.0.1:9/nowhere", SUM) == CONTENT


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("/short", MissingData, r"THALWEG_DATA.*ended after 7,000 of 19,000 bytes"),
        ("/missing", MissingData, "THALWEG_DATA.*404"),
        ("/other", ValueError, "SHA-256 .* expected .*nothing of it was kept"),
    ],
)
def test_a_download_that_is_not_right_leaves_nothing_behind(places, server, path, error, message):
    _, cache = places
    with pytest.raises(error, match=message) as raised:
        fetch("set/file", server + path, SUM)
    assert "\n" not in str(raised.value)
    assert files(cache) == []
    assert fetch("set/file", f"{server}/whole", SUM) == CONTENT  # and does not stand in the way of the next


def test_without_a_network_the_error_names_the_places_looked_at(places):
    data, cache = places
    with pytest.raises(MissingData) as raised:
        fetch("set/file", "http://127.0.0.1:9/file", SUM)
    assert f"THALWEG_DATA ({data})" in str(raised.value)
    assert str(cache) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_data_folder_comes_before_the_cache(places, monkeypatch):
    data, cache = places
    for folder, content in ((data, b"data"), (cache, b"cache")):
        (folder / "set").mkdir(parents=True)
        (folder / "set" / "file").write_bytes(content)
    assert find("set/file") == data / "set" / "file"
    (data / "set" / "file").unlink()
    assert find("set/file") == cache / "set" / "file"
    monkeypatch.delenv("THALWEG_DATA")
    assert find("set/file") == cache / "set" / "file"
    assert find("set/other") is None


def test_the_cache_is_in_the_usual_place_unless_named(monkeypatch, tmp_path):
    monkeypatch.delenv("THALWEG_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert sources.cache_folder() == tmp_path / "thalweg"
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path / "own"))
    assert sources.cache_folder() == tmp_path / "own"


def test_a_file_found_with_another_checksum_is_refused_by_name(places):
    data, _ = places
    (data / "file").write_bytes(CONTENT + b"!")
    with pytest.raises(ValueError, match=rf"{data}.*SHA-256 .*expected {SUM}"):
        fetch("file", "http://127.0.0.1:9/file", SUM)


def test_idx_is_type_rank_extents_and_bytes_in_row_order():
    raw = b"\x00\x00\x08\x03" + b"".join(size.to_bytes(4) for size in (2, 3, 4)) + bytes(range(24))
    assert torch.equal(idx(gzip.compress(raw)), torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: gzip.compress(whole)[:-9], "not a whole gzip file"),
        (lambda whole: b"no gzip at all", "not a whole gzip file"),
        (lambda whole: gzip.compress(whole[:-1]), r"5 values, its header says \[2, 3\]"),
        (lambda whole: gzip.compress(whole + b"0"), r"7 values, its header says \[2, 3\]"),
        (lambda whole: gzip.compress(b"\x00\x00\x0d" + whole[3:]), "expected a file of unsigned bytes"),
        (lambda whole: gzip.compress(whole[:7]), "expected a file of unsigned bytes"),
        (lambda whole: gzip.compress(b""), "expected a file of unsigned bytes"),
    ],
)
def test_a_damaged_idx_file_is_refused(damage, message):
    whole = b"\x00\x00\x08\x02\x00\x00\x00\x02\x00\x00\x00\x03" + bytes(6)
    with pytest.raises(ValueError, match=message):
        idx(damage(whole))


def records(count: int, first: int = 0) -> bytes:
    pixels = torch.randint(0, 256, (count, CIFAR10_RECORD), dtype=torch.uint8)
    pixels[:, 0] = (torch.arange(count) + first) % 10
    return pixels.numpy().tobytes()


def test_cifar10_records_are_a_label_and_three_planes():
    content = bytes([7]) + bytes(1024) + bytes([1]) * 1024 + bytes([2]) * 1024
    read = cifar10_records(content)
    assert read["label"].tolist() == [7]
    assert read["image"].shape == (1, 3, 32, 32)
    assert [int(plane.unique()) for plane in read["image"][0]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [(records(2)[:-1], "6145 bytes"), (b"", "0 bytes"), (bytes([10]) + records(1)[1:], "label is 10, expected 0 to 9")],
)
def test_damaged_cifar10_bytes_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        cifar10_records(content)


def test_a_part_of_cifar10_is_enough_and_its_damaged_file_is_named(places):
    data, _ = places
    folder = data / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "data_batch_3.bin.xz").write_bytes(lzma.compress(records(40)))
    with pytest.raises(MissingData, match=r"cifar-10-batches-bin holds no test_batch"):
        cifar10()
    (folder / "test_batch.bin").write_bytes(records(20))
    splits = cifar10()
    assert (len(splits.train["label"]), len(splits.valid["label"]), len(splits.test["label"])) == (30, 10, 20)
    (folder / "data_batch_4.bin").write_bytes(records(3)[:-5])
    with pytest.raises(ValueError, match=r"data_batch_4\.bin is damaged"):
        cifar10()
    (folder / "data_batch_4.bin").unlink()
    (folder / "data_batch_3.bin.xz").write_bytes(lzma.compress(records(40))[:-8])
    with pytest.raises(ValueError, match=r"data_batch_3\.bin\.xz is damaged"):
        cifar10()


def test_the_archive_of_cifar10_is_unpacked_whole_or_not_at_all(places, monkeypatch):
    _, cache = places

    def archive(names):
        content = BytesIO()
        with tarfile.open(fileobj=content, mode="w:gz") as members:
            for name in [*names, "../outside.bin", "/outside.bin"]:
                held = records(20)
                (entry := tarfile.TarInfo(name)).size = len(held)
                members.addfile(entry, BytesIO(held))
        return content.getvalue()

    names = [f"cifar-10-batches-bin/{name}.bin" for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch")]
    asked = []

    def answer(url, sha256):
        asked.append((url, sha256))
        return archive(names[: None if len(asked) > 1 else 4])

    monkeypatch.setattr(sources, "download", answer)
    with pytest.raises(KeyError, match=r"data_batch_5\.bin"):
        cifar10()
    assert files(cache) == []
    splits = cifar10()
    assert len(splits.train["label"]) + len(splits.valid["label"]) == 100
    assert files(cache) == sorted(f"cifar-10/{name}" for name in names)
    cifar10()
    assert len(asked) == 2
    assert asked[1][1] == "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"


def test_a_damaged_text_is_refused(places):
    data, _ = places
    (data / "tiny-shakespeare").mkdir()
    path = data / "tiny-shakespeare" / "input.txt.gz"
    path.write_bytes(gzip.compress(b"to be or not"))
    with pytest.raises(ValueError, match=r"input\.txt\.gz: its text has SHA-256"):
        tiny_shakespeare()
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"input\.txt\.gz is damaged"):
        tiny_shakespeare()


def counts(splits) -> tuple[int, int, int]:
    for part in (splits.train, splits.valid, splits.test):
        assert part["image"].dtype == torch.uint8
        assert part["label"].dtype == torch.int64
        assert set(part["label"].tolist()) == set(range(10))
        assert int(part["image"].max()) == 255
    assert len(splits.classes) == 10
    return len(splits.train["label"]), len(splits.valid["label"]), len(splits.test["label"])


def test_digits_are_1797_images_of_8x8():
    splits = digits()
    assert counts(splits) == (1295, 143, 359)
    assert splits.train["image"].shape[1:] == (1, 8, 8)


def test_mnist_is_70000_images_of_28x28(data_folder):
    splits = mnist()
    assert counts(splits) == (54001, 5999, 10000)
    assert splits.train["image"].shape[1:] == (1, 28, 28)
    assert splits.test["label"][:5].tolist() == [7, 2, 1, 0, 4]


def test_fashion_mnist_is_70000_images_of_28x28_alike_in_number(data_folder):
    splits = fashion_mnist()
    assert counts(splits) == (54000, 6000, 10000)
    assert splits.train["label"].bincount().tolist() == [5400] * 10
    assert splits.classes[int(splits.test["label"][0])] == "ankle boot"


def test_the_part_of_cifar10_at_hand_is_colour_of_32x32(data_folder):
    splits = cifar10()
    train, valid, test = counts(splits)
    assert (train + valid) % 10000 == 0
    assert test in (2000, 10000)
    assert splits.train["image"].shape[1:] == (3, 32, 32)
    assert splits.classes[int(splits.test["label"][0])] == "cat"


def test_tiny_shakespeare_is_1115394_characters(data_folder):
    text = tiny_shakespeare()
    assert len(text) == 1115394
    assert text.startswith("First Citizen:\nBefore we proceed")
    assert len(set(text)) == 65

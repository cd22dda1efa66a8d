"""Folders of images: split, decoded and streamed alike whether or not they fit into memory; what is broken is reported."""

import gc
import threading
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image

from thalweg.data import folders
from thalweg.data.augmentation import flip, shift
from thalweg.data.folders import FolderStream, ImageFolder
from thalweg.data.images import UnreadableImage
from thalweg.data.streams import TensorStream, generator


def draw(path: Path, seed: int, size=(24, 20), mode: str = "RGB") -> None:
    """A file of random pixels that no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = torch.randint(0, 256, (size[1], size[0], 3), dtype=torch.uint8, generator=generator(seed))
    Image.fromarray(pixels.numpy()).convert(mode).save(path)


@pytest.fixture
def photos(tmp_path):
    """Three classes of 20, 12 and 7 images of several extents and formats."""
    seed = 0
    for name, count in {"cat": 20, "two words": 12, "鸟": 7}.items():
        for number in range(count):
            seed += 1
            suffix = ("png", "jpg", "webp", "bmp")[number % 4]
            draw(tmp_path / name / f"{number:02}.{suffix}", seed, (20 + number, 24))
    return tmp_path


def paths(folder: ImageFolder, part: str) -> set[Path]:
    return {picture.path for picture in folder.pictures if picture.part == part}


def test_a_folder_is_split_by_class_the_same_way_every_time(photos):
    folder = ImageFolder(photos)
    assert folder.classes == ("cat", "two words", "鸟")
    streams = folder.streams((8, 8), 4)
    counts = {
        part: torch.cat([batch["label"] for batch in getattr(streams, part)]).bincount().tolist()
        for part in ("train", "valid", "test")
    }
    assert counts == {"train": [14, 8, 5], "valid": [3, 2, 1], "test": [3, 2, 1]}
    again = ImageFolder(photos)
    torch.manual_seed(99)  # the split is the data's, not the run's
    again.streams((16, 16), 7)
    for part in counts:
        assert paths(folder, part) == paths(again, part)
        assert len(paths(folder, part)) == sum(counts[part])
    assert len(set.union(*(paths(folder, part) for part in counts))) == 39


def test_every_image_has_the_class_of_its_folder(tmp_path):
    for name, colour in {"b": (0, 0, 255), "r": (255, 0, 0), "g": (0, 255, 0)}.items():
        for number in range(5):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("RGB", (9, 9), colour).save(tmp_path / name / f"{number}.png")
    streams = ImageFolder(tmp_path).streams((9, 9), 4, memory=0)
    for stream in (streams.train, streams.valid, streams.test):
        for batch in stream:
            for image, label in zip(batch["image"], batch["label"], strict=True):
                assert image[:, 4, 4].tolist() == {"b": [0, 0, 255], "r": [255, 0, 0], "g": [0, 255, 0]}["bgr"[label]]


def test_in_memory_and_decoded_on_the_way_give_the_same_batches_from_any_start(photos):
    def streams(memory):
        torch.manual_seed(5)
        return ImageFolder(photos).streams((10, 12), 6, augment=[flip(), shift(2)], memory=memory)

    kept, decoded = streams(2**30), streams(0)
    assert isinstance(kept.train, TensorStream)
    assert isinstance(decoded.train, FolderStream)
    assert kept.train.tensors["image"].shape == (27, 3, 10, 12)
    for start in (0, 3, 4, 11):
        for one, other in islice(zip(kept.train.batches(start), decoded.train.batches(start), strict=True), 7):
            assert torch.equal(one["image"], other["image"])
            assert torch.equal(one["label"], other["label"])
            assert one["image"].dtype == torch.uint8
    for part in ("train", "valid", "test"):
        assert len(getattr(kept, part)) == len(getattr(decoded, part))
        for one, other in zip(getattr(kept, part), getattr(decoded, part), strict=True):
            assert torch.equal(one["image"], other["image"])
            assert torch.equal(one["label"], other["label"])
    number = decoded.train.batch(8)  # asked for alone, without the threads' look ahead
    assert torch.equal(number["image"], kept.train.batch(8)["image"])


def test_decoding_goes_no_further_ahead_than_it_says_and_its_threads_end(photos, monkeypatch):
    streams = ImageFolder(photos).streams((8, 8), 4, memory=0)
    decoded = []
    monkeypatch.setattr(folders, "read_image", lambda path, size: decoded.append(path) or torch.zeros(3, 8, 8).byte())
    batches = streams.train.batches()
    for number in range(1, 12):
        next(batches)
        assert len(decoded) <= (number + folders.AHEAD) * 4
    assert len(decoded) > 11 * 4 - 7  # passes hold 27 images in 7 batches
    batches.close()
    gc.collect()
    for thread in threading.enumerate():
        if "ThreadPool" in thread.name:
            thread.join(5)
            assert not thread.is_alive()


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Train", "Validation", "TEST")])
def test_a_split_made_by_the_person_is_kept(tmp_path, names):
    seed = 0
    for part, count in zip(names, (6, 3, 2), strict=True):
        for name in ("a", "b"):
            for number in range(count):
                seed += 1
                draw(tmp_path / part / name / f"{number}.png", seed)
    folder = ImageFolder(tmp_path)
    streams = folder.streams((8, 8), 4)
    assert folder.classes == ("a", "b")
    assert [stream.size for stream in (streams.train, streams.valid, streams.test)] == [12, 6, 4]
    assert {path.parts[-3] for path in paths(folder, "valid")} == {names[1]}


@pytest.mark.parametrize(
    ("parts", "sizes"), [(("train",), [10, 2, None]), (("train", "valid"), [12, 12, None]), (("train", "test"), [10, 2, 12])]
)
def test_what_the_person_has_not_split_is_split_from_the_training_images(tmp_path, parts, sizes):
    for index, part in enumerate(parts):
        for name in ("a", "b"):
            for number in range(6):
                draw(tmp_path / part / name / f"{number}.png", hash((index, name == "a", number)) % 10**6)
    streams = ImageFolder(tmp_path).streams((8, 8), 4)
    assert [stream and stream.size for stream in (streams.train, streams.valid, streams.test)] == sizes


def test_a_class_may_be_called_train(tmp_path):
    for name in ("train", "bus"):
        for number in range(4):
            draw(tmp_path / name / f"{number}.png", number + 50 * (name == "bus"))
    assert ImageFolder(tmp_path).classes == ("bus", "train")


def test_images_in_deeper_folders_belong_to_the_class_and_hidden_files_to_nobody(tmp_path):
    for number in range(4):
        draw(tmp_path / "a" / "2024" / f"{number}.png", number)
        draw(tmp_path / "b" / f"{number}.png", number + 9)
        draw(tmp_path / ".thumbnails" / f"{number}.png", number + 19)
    (tmp_path / "a" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "readme.txt").write_text("not in a class")
    folder = ImageFolder(tmp_path)
    assert folder.classes == ("a", "b")
    assert len(folder.pictures) == 8
    assert folder.skipped == []


def test_broken_files_are_left_out_counted_and_named(photos):
    for number, content in enumerate([b"", b"words", (photos / "cat" / "00.png").read_bytes()[:300]]):
        (photos / "cat" / f"broken{number}.png").write_bytes(content)
    (photos / "鸟" / "notes.csv").write_text("a,b")
    folder = ImageFolder(photos)
    assert len(folder.skipped) == 3  # the truncated one looks well from outside
    for memory in (0, 2**30):
        folder = ImageFolder(photos)
        streams = folder.streams((8, 8), 4, memory=memory)
        assert sum(stream.size for stream in (streams.train, streams.valid, streams.test)) == 39
        assert sum(len(batch["image"]) for stream in (streams.train, streams.valid, streams.test) for batch in stream) == 39
        line = folder.report()
        assert "\n" not in line
        assert line.startswith("skipped 4 of 43 files: ")
        assert "cat/broken0.png (empty)" in line
        assert "cat/broken1.png (not an image of a known format)" in line
        assert line.endswith(" and 1 more")
        assert any("truncated" in reason for _, reason in folder.skipped)


def test_a_file_more_or_less_moves_hardly_any_other_between_the_parts(tmp_path):
    for number in range(40):
        draw(tmp_path / "ab"[number % 2] / f"{number}.png", number, (4, 4))

    def parts():
        folder = ImageFolder(tmp_path)
        folder.streams((4, 4), 8)
        return {picture.path: picture.part for picture in folder.pictures}

    def moved():
        nonlocal before
        after = parts()
        count = sum(after[path] != part for path, part in before.items() if path in after)
        before = after
        return count

    before = parts()
    for number in range(40, 45):
        draw(tmp_path / "a" / f"{number}.png", number, (4, 4))
        assert moved() <= 3  # a new split would move about 17
        (tmp_path / "b" / f"{2 * number - 79}.png").write_bytes(b"broken")
        assert moved() <= 3


@pytest.mark.parametrize(
    ("copy", "expected"), [("train/a/9.png", 0), ("train/b/9.png", 1), ("valid/a/9.png", 1), ("valid/b/9.png", 1)]
)
def test_the_same_image_in_two_parts_or_classes_is_counted(tmp_path, copy, expected):
    fill(tmp_path, ["train/a", "train/b", "valid/a", "valid/b"])
    (tmp_path / copy).write_bytes((tmp_path / "train" / "a" / "0.png").read_bytes())
    folder = ImageFolder(tmp_path)
    folder.streams((8, 8), 4)
    assert folder.repeated == expected


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("RGB", 3), ("P", 3)])
def test_a_folder_of_grey_images_has_one_channel(tmp_path, mode, channels):
    for number in range(8):
        draw(tmp_path / "ab"[number % 2] / f"{number}.png", number, (28, 28), mode)
    folder = ImageFolder(tmp_path)
    assert folder.channels == channels
    for memory in (0, 2**30):
        (batch,) = ImageFolder(tmp_path).streams((28, 28), 9, memory=memory).train
        assert batch["image"].shape[1:] == (channels, 28, 28)
    assert folder.extent == 28


def test_the_extent_is_that_of_the_typical_image(tmp_path):
    for number, size in enumerate([(60, 60), (90, 40), (60, 60), (4000, 10), (60, 60), (7, 7)]):
        draw(tmp_path / "ab"[number % 2] / f"{number}.png", number, size)
    assert ImageFolder(tmp_path).extent == 60


def fill(root: Path, names, count: int = 4) -> Path:
    for index, name in enumerate(names):
        for number in range(count):
            draw(root / name / f"{number}.png", 100 * index + number)
    return root


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "gone", "data=.*gone: no such folder"),
        (lambda root: draw(root / "f.png", 0) or root / "f.png", r"data=.*f\.png: a file, expected a folder"),
        (lambda root: root, r"at least two subfolders, one a class, and found \[\]"),
        (lambda root: fill(root, ["only"]), r"at least two subfolders, one a class, and found \['only'\]"),
        (lambda root: fill(root, ["a", "b", "empty"], 0) and fill(root, ["a", "b"]), "class 'empty' has 0 images"),
        (lambda root: fill(fill(root, ["a"], 4), ["b"], 2), "class 'b' has 2 images to train on, expected at least 3"),
        (lambda root: fill(root, ["train/a", "train/b", "test/c"]), r"test holds the classes \['c'\]"),
        (lambda root: fill(root, ["train/a", "valid/a"]), r"at least two subfolders.*\['a'\]"),
    ],
)
def test_a_folder_that_cannot_be_learned_from_is_refused_in_one_line(tmp_path, make, message):
    (tmp_path / "empty").mkdir() if "empty" in message else None
    with pytest.raises(ValueError, match=message) as raised:
        ImageFolder(make(tmp_path))
    assert "\n" not in str(raised.value)


def test_a_class_of_which_only_broken_images_are_left_is_refused_with_the_report(tmp_path):
    fill(tmp_path, ["a", "b"])
    for path in (tmp_path / "b").iterdir():
        path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"class 'b' has 0 images to train on.*; skipped 4 of 8 files: b/0\.png \("):
        ImageFolder(tmp_path).streams((8, 8), 4)


def test_a_file_that_vanishes_or_breaks_during_training_is_named(photos):
    folder = ImageFolder(photos)
    streams = folder.streams((8, 8), 4, memory=0)
    path = next(picture.path for picture in folder.pictures if picture.part == "train")
    path.write_bytes(b"words")
    with pytest.raises(UnreadableImage, match=path.name):
        list(streams.train)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=path.name):
        list(streams.train)

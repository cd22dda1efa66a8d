"""Images with any number of labels: every form of the list is read alike, and what is wrong is counted and named."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from thalweg.data.streams import generator
from thalweg.data.tagged import TaggedFolder


def put(path: Path, seed: int, mode: str = "RGB") -> None:
    """A file of random pixels that no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = torch.randint(0, 256, (20, 24, 3), dtype=torch.uint8, generator=generator(seed))
    Image.fromarray(pixels.numpy()).convert(mode).save(path)


LABELS = [("dog", "red"), ("dog",), (), ("cat", "dog", "red"), ("red",), ("cat",), ("dog", "cat"), ("red", "dog")]


@pytest.fixture
def folder(tmp_path):
    """Eight images in two folders whose names say that they are to be trained on, and one for validation."""
    for number in range(8):
        put(tmp_path / f"train_{number % 2}" / f"{number}.png", number)
    put(tmp_path / "valid" / "8.png", 8)
    return tmp_path


def listed(folder: Path, *lines: str, name: str = "labels.csv") -> TaggedFolder:
    (folder / name).write_text("\n".join(lines), encoding="utf8")
    return TaggedFolder(folder)


def labels(folder: TaggedFolder) -> dict[str, set[str]]:
    return {picture.path.name: set(picture.label) for picture in folder.pictures}


EXPECTED = {f"{number}.png": set(held) for number, held in enumerate(LABELS)} | {"8.png": {"cat", "dog", "red"}}
ROWS = [*LABELS, ("cat", "dog", "red")]


def where(number: int) -> str:
    return f"valid/{number}" if number == 8 else f"train_{number % 2}/{number}"


def rows(write, named=lambda number: f"{where(number)}.png") -> list[str]:
    return [f"{named(number)},{write(held)}" for number, held in enumerate(ROWS)]


def columns(held, yes: str = "1", no: str = "0") -> str:
    return ",".join(yes if name in held else no for name in ("red", "cat", "dog"))


FORMS = {
    "spaces": ["file,labels", *rows(" ".join)],
    "commas": ["file,labels", *rows(lambda held: f'"{", ".join(held)}"')],
    "commas without quotes": ["file,labels", *rows(",".join)],
    "strokes": ["image_name,tags", *rows(" | ".join)],
    "no header": rows(" ".join),
    "names alone": ["file,labels", *rows(" ".join, lambda number: f"{number}.png")],
    "names without endings, as competitions have them": ["id,labels", *rows(" ".join, str)],
    "paths of another machine": ["file,labels", *rows(" ".join, lambda number: where(number).replace("/", "\\") + ".png")],
    "semicolons between columns": ["file;labels", *(line.replace(",", ";", 1) for line in rows(" ".join))],
    "a column a label": ["id,red,cat,dog", *rows(columns, str)],
    "a column a label, in words": ["id,red,cat,dog", *rows(lambda held: columns(held, "True", ""), where)],
    "a line a label": ["file,label", *(f"{number},{name}" for number, held in enumerate(ROWS) for name in (*held, ""))],
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_the_same(folder, form):
    found = listed(folder, *FORMS[form])
    assert labels(found) == EXPECTED
    assert sorted(found.classes) == ["cat", "dog", "red"]
    assert found.classes == (("red", "cat", "dog") if "column a" in form else ("cat", "dog", "red"))
    assert ("further lines" in found.report()) is (form == "a line a label")
    splits = found.streams((8, 10), 4)
    assert splits.classes == found.classes
    assert [part and part.size for part in (splits.train, splits.valid, splits.test)] == [8, 1, None]
    batch = splits.train.fetch(torch.arange(8))
    assert batch["image"].shape == (8, 3, 8, 10)
    for picture, row in zip(found.pictures, batch["label"], strict=False):
        assert {found.classes[place] for place in row.nonzero().flatten().tolist()} == EXPECTED[picture.path.name]
    assert dict(zip(found.classes, found.frequency(), strict=True)) == {"cat": 4 / 10, "dog": 6 / 10, "red": 5 / 10}


def test_labels_of_several_words_are_told_apart_by_commas(folder):
    found = listed(folder, "file,labels", '0.png,"dining table, cup"', "1.png,cup", "2.png,dining table", "8.png,cup")
    assert labels(found)["0.png"] == {"dining table", "cup"}
    assert found.classes == ("cup", "dining table")


def test_what_is_wrong_is_left_out_counted_and_named(folder):
    (folder / "train_0" / "broken.png").write_bytes(b"no image")
    put(folder / "train_1" / "0.png", 99)
    put(folder.parent / "outside.png", 98)
    (folder / "valid" / "again.png").write_bytes((folder / "train_1" / "1.png").read_bytes())
    more = ["gone.png,dog", "0,dog", "../outside.png,dog", "broken.png,dog", "3,blue", "valid/again,green"]
    found = listed(folder, "file,labels,photographer", *(f"{line},me" for line in [*rows(" ".join, where), *more]), "")
    report = found.report()
    assert labels(found) == EXPECTED | {"3.png": {*EXPECTED["3.png"], "blue"}, "again.png": {"green"}}
    assert found.classes == ("blue", "cat", "dog", "red")
    lines = [f"labels.csv, line {line}" for line in ("11 (gone.png)", "12 (0)", "13 (../outside.png)")]
    assert f"3 lines whose file is not in the folder, or there more than once, left out: {', '.join(lines)}" in report
    assert "1 images that cannot be read, left out: train_0/broken.png (not an image of a known format)" in report
    assert "1 further lines of an image, whose labels it has as well: labels.csv, line 15 (3)" in report
    assert "1 images without a line, left out: train_1/0.png" in report
    assert "1 columns after that of the labels, left out: photographer" in report
    assert "1 labels without an image to train on, left out: green" in report
    found.streams((8, 8), 4)
    report = found.report()
    assert "1 images in more than one part, so that no accuracy can be trusted: train_1/1.png = valid/again.png" in report
    assert "1 images that are the same and have other labels: train_1/1.png = valid/again.png" in report
    assert "\n" not in report


def test_of_columns_those_that_are_no_label_and_lines_that_say_neither_are_left_out(folder):
    lines = ["id,width,red,dog", *(f"{number},{24 + number},{number % 2},1" for number in range(9))]
    lines[3] = "2,26,maybe,1"
    lines[4] = "3,27,1"
    found = listed(folder, *lines)
    assert found.classes == ("red", "dog")
    assert set(labels(found)) == {f"{number}.png" for number in (0, 1, 4, 5, 6, 7, 8)}
    assert "1 columns of something else than 0 and 1, left out: width" in found.report()
    assert "1 lines with something else than 0 and 1, left out: labels.csv, line 4" in found.report()
    assert "1 lines of another length than the header, left out: labels.csv, line 5" in found.report()


def test_a_file_that_breaks_when_it_is_decoded_takes_its_label_along_without_ending_anything(folder):
    path = folder / "train_0" / "2.png"
    path.write_bytes(path.read_bytes()[:-300])
    found = listed(folder, "file,labels", *rows(" ".join, str)[:2], "2,rare", *rows(" ".join, str)[3:])
    assert "rare" in found.classes
    for memory in (0, 2**30):
        splits = found.streams((8, 8), 4, memory=memory)
        assert splits.train.size == 7
        assert "1 images that cannot be read, left out: train_0/2.png" in found.report()
        assert all(0 < share < 1 for share in found.frequency())


def test_what_nobody_has_split_is_split_the_same_way_every_time(tmp_path):
    for number in range(20):
        put(tmp_path / "all" / f"{number}.jpg", number, "L")
    found = [listed(tmp_path, *(f"{number}.jpg,{'ab'[number % 2]}" for number in range(20))) for _ in range(2)]
    parts = [{picture.path: picture.part for picture in one.pictures} for one in found]
    assert parts[0] == parts[1]
    assert sorted(parts[0].values()) == 3 * ["test"] + 14 * ["train"] + 3 * ["valid"]
    assert (found[0].channels, found[0].extent) == (1, 22)
    assert found[0].streams((4, 4), 2).train.fetch(torch.arange(3))["image"].shape == (3, 1, 4, 4)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "expected labels.csv, a line an image: its file, then its labels; found no CSV file"),
        ({"a.csv": "x", "b.csv": "x"}, r"expected labels\.csv.*; found a\.csv, b\.csv"),
        ({"a.csv": ""}, "0 images with a line, expected at least three; 9 images without a line"),
        ({"a.csv": "file,labels\n0,dog\n1,dog\n2,dog"}, None),
        ({"sample.csv": "x", "train.csv": "file,labels\n0,dog\n1,dog\n2,dog"}, None),
        ({"labels.csv": "file,labels\n0,\n1,\n8,dog"}, "no label of an image to train on; .*1 labels without an image"),
        ({"labels.csv": "file,labels\n0,dog\n1,dog"}, "2 images with a line, expected at least three"),
        ({"labels.csv": "file,labels\n0," + "x" * 200_000}, r"labels\.csv, line 2: not a CSV file that can be read"),
    ],
)
def test_a_folder_that_cannot_be_learned_from_is_refused_in_one_line(folder, files, message):
    for name, text in files.items():
        (folder / name).write_text(text)
    if message is None:
        assert TaggedFolder(folder).classes == ("dog",)
        return
    with pytest.raises(ValueError, match=message) as raised:
        TaggedFolder(folder)
    assert "\n" not in str(raised.value)


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        TaggedFolder(tmp_path / "none")

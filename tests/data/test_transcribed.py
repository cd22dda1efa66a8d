"""Images with their texts: by name or by list, what is wrong is counted and named."""

import pytest
import torch
from PIL import Image

from thalweg.data.transcribed import TranscribedImages


def put(path, shade=0, size=(40, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 90, 200 - shade)).save(path)


def texts(folder):
    return sorted((each.path.name, each.text) for each in folder.examples)


def test_images_are_named_by_what_is_on_them(tmp_path):
    for number, name in enumerate(("AB1", "AB1_2", "BA", "A_x_y", "B1", "BB")):
        put(tmp_path / f"{name}.png", number)
    put(tmp_path / "_9.png", 9)
    folder = TranscribedImages(tmp_path)
    assert texts(folder) == sorted([("AB1.png", "AB1"), ("AB1_2.png", "AB1"), ("BA.png", "BA"), ("A_x_y.png", "A"),
                                    ("B1.png", "B1"), ("BB.png", "BB")])  # fmt: skip
    assert set(folder.alphabet) <= set("AB1")
    assert folder.longest == 3
    assert folder.aspect == 2
    assert "1 images whose name says no text, left out: _9.png" in folder.report()
    splits = folder.streams((8, 24), 4)
    sizes = [part.size for part in (splits.train, splits.valid, splits.test)]
    assert sum(sizes) == len(folder.examples)
    batch = splits.train.fetch(torch.arange(sizes[0]))
    said = {"".join(folder.alphabet[token - 1] for token in row if token) for row in batch["tokens"].tolist()}
    assert batch["image"].shape[1:] == (3, 8, 24)
    assert said <= {"AB1", "BA", "A", "B1", "BB"}


def test_a_list_of_files_and_texts_goes_before_names_and_its_faults_are_told(tmp_path):
    for number in range(8):
        put(tmp_path / "some" / f"{number}.png", number)
    (tmp_path / "some" / "broken.png").write_bytes(b"not an image")
    put(tmp_path.parent / "outside.png", 77)
    lines = ["file,text", *(f'some/{n}.png,"{"AAB"[n % 3]} {n % 2}"' for n in range(8)), "some/0.png,twice", "some/none.png,A",
             "../outside.png,A", "some/1.png", "some/broken.png,A"]  # fmt: skip
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    folder = TranscribedImages(tmp_path)
    assert len(folder.examples) == 8
    assert texts(folder)[1] == ("1.png", "A 1")
    report = folder.report()
    assert "1 lines whose file another line has, left out: labels.csv, line 10 (some/0.png)" in report
    assert "2 lines whose file is not in the folder, left out: labels.csv, line 11 (some/none.png)" in report
    assert "1 lines without a file and a text, left out: labels.csv, line 13" in report
    assert "1 images that cannot be read, left out: some/broken.png (not an image of a known format)" in report


def test_a_symbol_that_only_held_out_texts_have_is_named_and_leakage_too(tmp_path):
    for number, name in enumerate(("train/AB", "train/BA", "train/A", "valid/AA", "valid/AZ")):
        put(tmp_path / f"{name}.png", number)
    put(tmp_path / "valid" / "BA.png", 1)
    folder = TranscribedImages(tmp_path)
    assert "1 texts with Z, which no training text has, left out: valid/AZ.png" in folder.report()
    assert folder.longest == 3  # AA needs a blank between
    splits = folder.streams((8, 16), 4)
    assert splits.test is None
    assert "1 images in more than one part, so that no accuracy can be trusted: train/BA.png = valid/BA.png" in folder.report()


def test_a_folder_that_holds_nothing_to_read_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        TranscribedImages(tmp_path / "none")
    put(tmp_path / "A.png")
    with pytest.raises(ValueError, match=r"1 images with a text, expected at least three"):
        TranscribedImages(tmp_path)

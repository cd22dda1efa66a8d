"""Texts and their classes: a person's own in each form, what is wrong with them, and batches of like length."""

import csv
import json
import tarfile
from io import BytesIO
from itertools import product

import pytest

from thalweg.data.classified import Text, apart, imdb, own_texts, sst2
from thalweg.data.sources import MissingData

GOOD = [f"a fine film, number {number}" for number in range(20)]
BAD = [f'a bore; "truly" so,\nnumber {number}' for number in range(20)]


def whole(found):
    return sorted((one.text, one.label) for part in (found.train, found.valid, found.test) for one in part)


EXPECTED = sorted([(text, "good") for text in GOOD] + [(" ".join(text.split()), "bad") for text in BAD])


@pytest.mark.parametrize("form", ["headed.csv", "semicolons.csv", "two.tsv", "lines.jsonl", "folder", "utf-16.csv"])
def test_every_form_of_a_persons_own_texts_gives_the_same(tmp_path, form):
    path = tmp_path / form
    rows = [(text, label) for texts, label in ((GOOD, "good"), (BAD, "bad")) for text in texts]
    if form == "folder":
        for number, (text, label) in enumerate(rows):
            (path / label).mkdir(parents=True, exist_ok=True)
            (path / label / f"{number}.txt").write_text(text, encoding="utf-8-sig" if number == 3 else "utf-8")
        (path / "README").write_text("not a text of a class")
    elif form == "lines.jsonl":
        path.write_text("\n".join(json.dumps({"id": 1, "Label": label, "review": text}) for text, label in rows) + "\n\n")
    else:
        with open(path, "w", newline="", encoding="utf-16" if form == "utf-16.csv" else "utf-8") as file:
            marks = {"semicolons.csv": ";", "two.tsv": "\t"}
            writer = csv.writer(file, delimiter=marks.get(form, ","))
            if form == "two.tsv":
                writer.writerows((label, text) for text, label in rows)
            else:
                writer.writerow(["id", "Text", "sentiment"])
                writer.writerows((number, *row) for number, row in enumerate(rows))
    found = own_texts(path)
    assert found.classes == ("bad", "good")
    assert whole(found) == EXPECTED
    assert [len(part) for part in (found.train, found.valid, found.test)] == [28, 6, 6]
    assert not found.faults
    again = own_texts(path)
    assert (again.train, again.valid) == (found.train, found.valid)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("stray.tsv", [(f'"great film {n} , he said' if n % 5 == 2 else f"so, this {n} is it", "good") for n in range(20)]),
        ("plain.tsv", [(f"Well, this, honestly, was {n}", "good") for n in range(20)]),
        ("marks.csv", [(f'"It was bad; I left; never {n}"', "good") for n in range(20)]),
        ("ends.csv", [(f"some\u2028text\x0b {n}", "good") for n in range(20)]),
    ],
)
def test_marks_in_texts_do_not_part_columns_nor_rows(tmp_path, name, rows):
    rows += [(f"bore {n}", "bad") for n in range(20)]
    mark = "\t" if name.endswith("tsv") else ","
    (tmp_path / name).write_text("\n".join(mark.join(row) for row in rows), encoding="utf-8")
    found = own_texts(tmp_path / name)
    expected = [(" ".join((text.strip('"') if name == "marks.csv" else text).split()), label) for text, label in rows]
    assert whole(found) == sorted(expected)
    assert not found.faults


def test_what_is_wrong_with_a_table_is_left_out_and_named_by_its_lines(tmp_path):
    good = [f"{text} {n},{label}".encode() for text, label in (("fine", "good"), ("bore", "bad")) for n in range(5)]
    wrong = [b"fine 1,good", b"both,good", b"both,bad", b"caf\xe9,bad", b",bad", b"alone", b"single,rare", b"so, so,bad"]
    lines = [b"text,label", *good, *wrong]
    (tmp_path / "a.csv").write_bytes(b"\n".join(lines))
    found = own_texts(tmp_path / "a.csv")
    assert found.classes == ("bad", "good")
    assert len(whole(found)) == 10
    assert found.faults.lines() == [
        "1 not in UTF-8, left out: line 15",
        "2 of another number of columns than 2, left out: line 17, line 19",
        "1 repetitions, left out: line 12",
        "1 texts of classes that have fewer than 3, left out: line 18 (rare)",
        "2 texts that are there with different classes, left out: line 13 (good), line 14 (bad)",
        "1 without a text and a class, left out: line 16",
    ]


def test_what_is_wrong_with_lines_of_json_is_left_out_and_named(tmp_path):
    good = [json.dumps({"text": f"{word} {n}", "label": n % 2}) for n in range(10) for word in ("fine",)]
    (tmp_path / "a.jsonl").write_text("\n".join([*good, "{", "[1]", '{"text": "x"}', '{"text": ["x"], "label": "1"}']))
    found = own_texts(tmp_path / "a.jsonl")
    assert found.classes == ("0", "1")
    assert found.faults.lines() == [
        "1 not JSON, left out: line 11",
        "1 not an object, left out: line 12",
        "2 without a text and a class, left out: line 13, line 14",
    ]


def test_a_pair_is_one_text_to_judge_and_what_lacks_its_second_is_left_out(tmp_path):
    rows = [{"sentence1": "one", "sentence2": f"{n}", "class": "odd" if n % 2 else "even"} for n in range(8)]
    rows += [{"sentence1": "one", "class": "odd"}, rows[0]]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = own_texts(tmp_path / "a.jsonl")
    assert {(one.text, one.second, one.label) for part in (found.train, found.valid, found.test) for one in part} == {
        ("one", f"{n}", "odd" if n % 2 else "even") for n in range(8)
    }
    assert found.faults.lines() == [
        "1 repetitions, left out: line 10",
        "1 without the second text that others have, left out: line 9",
    ]


def test_parts_that_a_person_made_stay_and_what_is_in_two_is_named(tmp_path):
    for part, texts in (("train", GOOD[:10]), ("test", GOOD[8:14])):
        for number, text in enumerate(texts):
            for label in ("good", "bad"):
                (tmp_path / part / label).mkdir(parents=True, exist_ok=True)
                (tmp_path / part / label / f"{number}.txt").write_text(f"{label} {text}")
    (tmp_path / "test" / "odd").mkdir()
    (tmp_path / "test" / "odd" / "0.txt").write_text("odd")
    found = own_texts(tmp_path)
    assert [len(part) for part in (found.train, found.valid, found.test)] == [16, 4, 12]
    assert found.faults.lines() == [
        "4 texts that are in train too, so that no accuracy can be trusted: bad/0.txt, bad/1.txt, good/0.txt and 1 more",
        "1 texts whose class is not in train, left out: odd/0.txt (odd)",
    ]
    (tmp_path / "train" / "odd").mkdir()
    (tmp_path / "train" / "odd" / "0.txt").write_text("odd")
    alone = own_texts(tmp_path)
    assert (alone.train, alone.valid, alone.test) == (found.train, found.valid, found.test)
    assert "1 texts of classes that have but one, of which none can be validated, left out: odd/0.txt (odd)" in (
        alone.faults.lines()
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.csv", None, r"data=.*none\.csv: no such file"),
        ("a.txt", "good film", r"data=.*a\.txt: expected a \.csv, a \.jsonl or a folder"),
        ("a.csv", "a,b,c\n1,2,3\n", r"expected two columns, or a header that names one of text, .* first line is 'a,b,c'"),
        (
            "b.csv",
            "text,label\nx,good\ny,good\nz,good\nw,bad\n",
            r"classes \['good'\], expected at least two; 1 texts of classes",
        ),
        ("c.csv", "", r"first line is ''"),
    ],
)
def test_data_that_cannot_be_learned_from_are_refused(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=words):
        own_texts(tmp_path / name)


def test_a_share_of_every_class_is_apart_and_does_not_move_when_a_text_more_comes():
    texts = [Text(f"{label} {number}", label) for label, count in (("a", 40), ("b", 10)) for number in range(count)]
    parts = apart(texts, (0.2, 0.1))
    assert [[sum(one.label == label for one in part) for label in "ab"] for part in parts] == [[28, 7], [8, 2], [4, 1]]
    more = apart([*texts, Text("a 40", "a")], (0.2, 0.1))
    assert len({*parts[1]} & {*more[1]}) >= 9


def test_reviews_of_imdb_are_read_from_their_archive(tmp_path, monkeypatch):
    (tmp_path / "imdb").mkdir()
    with tarfile.open(tmp_path / "imdb" / "aclImdb_v1.tar.gz", "w:gz") as archive:
        for part, polarity, number in product(("train", "test"), ("pos", "neg", "unsup"), range(10)):
            text = f"{part} {polarity} {number}<br /><br />end".encode()
            member = tarfile.TarInfo(f"aclImdb/{part}/{polarity}/{number}_1.txt")
            member.size = len(text)
            archive.addfile(member, BytesIO(text))
    monkeypatch.setenv("THALWEG_DATA", str(tmp_path))
    found = imdb()
    assert [len(part) for part in (found.train, found.valid, found.test)] == [18, 2, 20]
    assert {one.label for one in found.valid} == {"positive", "negative"}
    assert found.test[0] == Text("test pos 0  end", "positive", "aclImdb/test/pos/0_1.txt")
    monkeypatch.setenv("THALWEG_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path / "none"))
    (tmp_path / "none" / "imdb").mkdir(parents=True)
    (tmp_path / "none" / "imdb" / "aclImdb_v1.tar.gz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"aclImdb_v1\.tar\.gz is damaged"):
        imdb()
    (tmp_path / "none" / "imdb" / "aclImdb_v1.tar.gz").unlink()
    with pytest.raises(MissingData, match=r"aclImdb_v1\.tar\.gz and .* are neither in THALWEG_DATA nor in the cache"):
        imdb()


def test_sst2_is_whole(data_folder):
    found = sst2()
    assert [len(part) for part in (found.train, found.valid, found.test)] == [6920, 872, 1821]
    assert sum(one.label == "positive" for one in found.test) == 909
    assert found.train[1].text.startswith("apparently reassembled")

"""A person's own documents: every form that is read, what is left out and named, and parts that share nothing."""

import gzip
import json
import math

import pytest

from thalweg.data.documents import joined, own_documents
from thalweg.data.pairs import EOS
from thalweg.data.subwords import Subwords, learn_subwords


def lines(path, count):
    path.write_text("\n".join(json.dumps({"text": f"document {n}"}) for n in range(count)))
    return path


def test_many_documents_are_dealt_whole_and_no_two_parts_share_one(tmp_path):
    found = own_documents(lines(tmp_path / "a.jsonl", 100))
    parts = [set(part) for part in (found.train, found.valid, found.test)]
    assert [*map(len, parts)] == [80, 10, 10]
    assert len(set.union(*parts)) == 100
    (tmp_path / "b.jsonl").write_text("\n".join((tmp_path / "a.jsonl").read_text().split("\n")[::-1]))
    assert own_documents(tmp_path / "b.jsonl") == found  # the order of the lines decides nothing


def test_few_documents_are_cut_at_the_ends_of_lines_and_nothing_is_lost(tmp_path):
    text = "\n".join(f"line {n} of some" for n in range(100))
    (tmp_path / "a.txt").write_text(text)
    found = own_documents(tmp_path / "a.txt")
    assert "\n".join([*found.train, *found.valid, *found.test]) == text
    for part, share in ((found.train, 0.8), (found.valid, 0.1), (found.test, 0.1)):
        assert abs(len(part[0]) - share * len(text)) < 20
    (tmp_path / "b.txt").write_text("水往低处流" * 1000)  # neither lines nor blanks
    found = own_documents(tmp_path / "b.txt")
    assert [len(part[0]) for part in (found.train, found.valid, found.test)] == [4000, 500, 500]


def test_a_folder_gives_texts_of_any_depth_and_names_what_it_leaves_out(tmp_path):
    for name, content in {
        "a.txt": "one",
        "deep/b.MD": "two",
        "c.txt.gz": gzip.compress(b"three"),
        "d.txt": "four".encode("utf-16"),
        "again.txt": "one\n",
        "empty.txt": " ",
        "latin.txt": "caf\u00e9".encode("latin-1"),
        "broken.txt.gz": b"no gzip",
        "cut.txt.gz": gzip.compress(b"six" * 99)[:12] + b"\xff" * 20,
        "picture.png": b"\x89PNG",
        ".hidden/e.txt": "five",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    found = own_documents(tmp_path)
    assert len(found.train) == 4
    assert found.faults["repetitions, left out"] == ["again.txt (a.txt)"]
    (left,) = (places for fault, places in found.faults.items() if fault.startswith("files that cannot be read"))
    assert [place.split(" (")[0] for place in left] == ["broken.txt.gz", "cut.txt.gz", "empty.txt", "latin.txt"]
    assert left[3] == "latin.txt (expected text in UTF-8, or in UTF-16 with its mark; line 1 is not)"


def test_bad_lines_of_json_are_left_out_and_named(tmp_path):
    good = lines(tmp_path / "a.jsonl", 30).read_bytes()
    bad = [b"{", b"[1]", b'{"title": "x"}', b'{"text": 3}', b'{"text": " "}', b'{"text": "caf\xe9"}', b'{"text": "document 7"}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([good, b"", *bad]))
    found = own_documents(tmp_path / "a.jsonl")
    assert len(found.train) + len(found.valid) + len(found.test) == 30
    assert dict(found.faults) == {
        "not JSON, left out": ["line 32"],
        "not an object, left out": ["line 33"],
        'without a "text", left out': ["line 34", "line 35", "line 36"],
        "not in UTF-8, left out": ["line 37"],
        "repetitions, left out": ["line 38 (line 8)"],
    }


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none", None, "no such file or folder"),
        ("empty.txt", b"\n", "holds no text"),
        ("binary.txt", b"\x00\xff", "expected text in UTF-8"),
        ("bad.jsonl", b"{\n[]", "holds no text, expected .* 1 not JSON, left out: line 1"),
    ],
)
def test_where_there_is_no_text_one_line_says_so(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said) as found:
        own_documents(tmp_path / name)
    assert "\n" not in str(found.value)
    with pytest.raises(ValueError, match="holds no text"):
        own_documents((tmp_path / "folder").mkdir() or tmp_path / "folder")


def test_documents_stand_between_ends_and_the_sizes_of_tokens_are_those_of_their_bytes():
    texts = ["the valley and the river", "水往低处流 🏞️", "a <eos> that was typed"]
    subwords = Subwords(learn_subwords(texts, 300, marks=["<mark>"]))
    tokens = joined(texts, subwords)
    assert tokens[0] == tokens[-1] == EOS
    assert int((tokens == EOS).sum()) == 4
    assert int(subwords.sizes()[tokens].sum()) == sum(len(text.encode()) for text in texts)
    assert subwords.sizes()[: len(["<pad>", "<bos>", "<eos>", "<unk>", "<mark>"])].sum() == 0
    assert math.isclose(float(subwords.sizes()[5:261].float().mean()), 1)

"""Pairs of sentences: words and their tokens, parts that share no source sentence, batches of like length."""

import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.data.pairs import (
    BOS,
    EOS,
    PAD,
    UNK,
    Corpus,
    Pairs,
    Words,
    apart,
    frequent,
    multi30k,
    own_pairs,
    read_pairs,
    separate,
    tatoeba_fra_eng,
)
from thalweg.data.sources import MissingData


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Go.", ["go", "."]),
        ("Ça\u202fsuffit\u202f!", ["ça", "suffit", "!"]),
        ("J’ai dit: «Où es-tu?»", ["j'ai", "dit", ":", "«", "où", "es-tu", "?", "»"]),
        ("Ten $5 notes... OK", ["ten", "$", "5", "notes", ".", ".", ".", "ok"]),
        (" \u00a0", []),
    ],
)
def test_punctuation_is_split_off_and_an_apostrophe_inside_of_a_word_is_not(text, words):
    assert separate(text) == words
    assert separate(" ".join(words)) == words


def test_a_sentence_becomes_tokens_with_an_end_and_comes_back():
    words = Words("the cat . sleeps")
    assert words.encode("The dog sleeps.").tolist() == [4, UNK, 7, 6, EOS]
    assert words.decode([BOS, 4, UNK, 7, 6, EOS, 5, 5]) == "the <unk> sleeps ."
    assert words.encode(words.decode([4, UNK])).tolist() == [4, UNK, EOS]
    assert words.decode([4, PAD, PAD]) == "the"
    assert len(words) == 8


@pytest.mark.parametrize("words", ["", "cat dog cat", "cat <pad>"])
def test_a_vocabulary_is_of_different_words(words):
    with pytest.raises(ValueError, match="words: expected different words"):
        Words(words)


def test_the_most_frequent_words_come_first_and_the_rare_not_at_all():
    assert frequent(["b a", "a c b", "a d"], 2) == "a b"
    assert frequent(["b a", "a c b", "a d"], 1) == "a b c d"


def test_who_has_heard_a_text_knows_its_strangers_and_no_others():
    words = Words("hello you", strangers=2)
    assert len(words) == 8
    heard = words.hearing("hello bob and ann , hello bob")
    assert len(heard) == 8
    assert heard.encode("ann hello , bob and you").tolist() == [UNK, 4, UNK, 6, 7, 5, EOS]  # the first two have tokens
    assert heard.decode([4, 6, UNK, EOS]) == "hello bob <unk>"
    assert heard.pieces([7, 5]) == ["and", "you"]
    assert words.encode("bob").tolist() == [UNK, EOS]
    assert words.decode([6, 7]) == "<unk0> <unk1>"
    assert words.hearing("hello you").encode("you").tolist() == [5, EOS]


def test_what_is_no_pair_is_left_out_and_counted():
    lines = ["Go.\tVa !\tCC-BY", "go .\tva !", "no tab", "empty\t ", "One two three four\tUn"]
    found, left_out = read_pairs(lines, longest=3)
    assert found == [("go .", "va !")]
    assert left_out == {"repeated": [2], "without a source and a target": [3, 4], "longer than 3 words": [5]}
    assert read_pairs([" Go. \tVa\u202f!"], words=False) == ([("Go.", "Va !")], {})


@pytest.mark.parametrize("seed", range(5))
def test_no_source_sentence_is_in_two_parts(seed):
    drawn = torch.randint(12, (60, 2), generator=torch.Generator().manual_seed(seed)).tolist()
    pairs = [*{(f"source {one}", f"target {other}") for one, other in drawn}]
    corpus = apart(pairs, held_out=2)
    sources = [{source for source, _ in part} for part in (corpus.train, corpus.valid, corpus.test)]
    assert [len(part) for part in sources[1:]] == [2, 2]
    assert sum(map(len, sources)) == len(set().union(*sources))
    assert sorted(corpus.train + corpus.valid + corpus.test) == sorted(pairs)
    again = apart(pairs[::-1], held_out=2)
    assert sorted(again.test) == sorted(corpus.test)


def written(tmp_path, content):
    path = tmp_path / "pairs.tsv"
    path.write_bytes(content)
    return path


LINES = [f"Source {number}.\tZiel — {number}!" for number in range(60)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_file_of_ones_own_is_read_as_it_is_written(tmp_path, encoding, end):
    corpus = own_pairs(written(tmp_path, (end.join(LINES) + end).encode(encoding)))
    assert not corpus.left_out
    assert [len(part) for part in (corpus.train, corpus.valid, corpus.test)] == [54, 3, 3]
    assert sorted(corpus.train + corpus.valid + corpus.test) == sorted(tuple(line.split("\t")) for line in LINES)


def test_lines_of_ones_own_file_that_hold_no_pair_are_left_out_and_named(tmp_path):
    lines = [line.encode() for line in LINES]
    lines[3], lines[5], lines[10], lines[20] = "Füße\tfeet".encode("latin-1"), b"no tab", b"", b"x" * 500 + b"\ty"
    lines += [lines[0], *[b"\t"] * 6]
    corpus = own_pairs(written(tmp_path, b"\n".join(lines)))
    assert corpus.left_out == {
        "not in UTF-8 (line 4)": 1,
        "without a source and a target (lines 6, 11, 62, 63, 64 and 3 more)": 8,
        "longer than 400 characters (line 21)": 1,
        "repeated (line 61)": 1,
    }
    assert len(corpus.train + corpus.valid + corpus.test) == 56


def test_sources_that_differ_in_case_and_spaces_alone_are_in_one_part(tmp_path):
    lines = [form.format(number) + f"\t{form}" for number in range(40) for form in ("Go {} .", "go {}.", "GO  {}.")]
    corpus = own_pairs(written(tmp_path, "\n".join(lines).encode()))
    numbers = [
        {"".join(filter(str.isdigit, source)) for source, _ in part} for part in (corpus.train, corpus.valid, corpus.test)
    ]
    assert [len(part) for part in numbers] == [36, 2, 2]
    assert len(set().union(*numbers)) == 40


def test_what_is_no_file_of_pairs_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"data=.*: expected a file of lines `source TAB target`: Is a directory"):
        own_pairs(tmp_path)
    with pytest.raises(ValueError, match="it holds zero bytes"):
        own_pairs(written(tmp_path, "a\tb".encode("utf-16-le")))
    with pytest.raises(
        ValueError, match=r"2 different sources .* at least 20; left out: 1 without a .* \(line 2\), 1 repeated"
    ):
        own_pairs(written(tmp_path, b"a\tb\n\nc\td\na\tb\nA\tB"))


def test_parts_that_would_leave_nothing_to_train_on_are_refused():
    with pytest.raises(ValueError, match="held_out=2: expected at least 1, and less than half of 4"):
        apart([(source, "x") for source in "abcd"], held_out=2)


lengths = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=40)


def sentences(sizes):
    """A pair of each two sizes whose first tokens are its number."""
    return [[torch.tensor([10 + number, *[5] * (size[side] - 1)]) for number, size in enumerate(sizes)] for side in (0, 1)]


@settings(max_examples=60, deadline=None)
@given(lengths, st.integers(1, 7), st.booleans())
def test_a_pass_holds_every_pair_once_padded_and_masked(sizes, batch_size, shuffle):
    source, target = sentences(sizes)
    seen = []
    for batch in Pairs(source, target, batch_size, shuffle=shuffle):
        assert len(batch["source_tokens"]) <= batch_size
        for read, real, written, counted in zip(*batch.values(), strict=True):
            number = int(read[0]) - 10
            assert torch.equal(read[real], source[number])
            assert written[counted].tolist() == [BOS, *target[number].tolist()]
            assert not read[~real].any()
            assert not written[~counted].any()
            seen.append(number)
        assert batch["source_mask"].any(0).all()
        assert batch["target_mask"].any(0).all()
    assert sorted(seen) == list(range(len(sizes)))
    assert shuffle or seen == sorted(seen)


def test_a_shuffled_batch_is_of_like_lengths_and_a_function_of_the_seed_and_its_number():
    torch.manual_seed(3)
    sizes = [(int(n), int(n)) for n in torch.randint(1, 30, (600,))]
    stream = Pairs(*sentences(sizes), 20, shuffle=True)
    real, padded = 0, 0
    for batch in stream:
        real, padded = real + int(batch["target_mask"].sum()), padded + batch["target_mask"].numel()
    assert padded < 1.1 * real
    means = [float(batch["target_mask"].sum(1).float().mean()) for batch in stream]
    assert means != sorted(means)
    number = 47
    batch = stream.batch(number)
    again = Pairs(*sentences(sizes), 20, shuffle=True)
    again.seed = stream.seed
    assert all(torch.equal(batch[name], tensor) for name, tensor in again.batch(number).items())
    passes = [[stream.indices(epoch * len(stream) + place).tolist() for place in range(len(stream))] for epoch in (0, 1)]
    assert passes[0] != passes[1]


def test_a_corpus_may_be_measured_on_its_first_pairs_alone():
    one, two = ("a", "b"), ("c", "d")
    corpus = Corpus([one], [one, two], [two, one], {})
    assert corpus.measured_on(None) == corpus
    assert corpus.measured_on(1) == Corpus([one], [one], [two], {})
    with pytest.raises(ValueError, match="measured=0: expected at least 1 pair"):
        corpus.measured_on(0)


def test_sides_of_unequal_number_are_refused():
    with pytest.raises(ValueError, match="target: 1 sentences for 2 of the source"):
        Pairs([torch.tensor([5])] * 2, [torch.tensor([5])], 2)


def test_tatoeba_is_what_d2l_reads(data_folder):
    corpus = tatoeba_fra_eng()
    everything = corpus.train + corpus.valid + corpus.test
    assert len(everything) + sum(corpus.left_out.values()) == 167_130
    assert ("go .", "va !") in everything
    assert not {source for source, _ in corpus.train} & {source for source, _ in corpus.valid + corpus.test}
    assert len({source for source, _ in corpus.test}) == 1000


def test_multi30k_is_whole_and_its_training_part_knows_no_held_out_source(data_folder):
    corpus = multi30k("en", "fr")
    assert [len(part) for part in (corpus.train, corpus.valid, corpus.test)] == [28_999, 1_014, 1_000]
    assert corpus.left_out == {"also held out": 1}
    assert corpus.test[0][0] == "a man in an orange hat starring at something ."
    written = multi30k("en", "de", words=False)
    assert written.test[0] == ("A man in an orange hat starring at something.",
                               "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt.")  # fmt: skip
    assert len(written.train) == 28_999


def test_an_archive_that_is_missing_damaged_or_another_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("THALWEG_DATA", str(tmp_path))
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path / "cache"))
    with pytest.raises(MissingData, match=r"fra-eng\.zip is neither in THALWEG_DATA nor in the cache"):
        tatoeba_fra_eng()
    path = tmp_path / "tatoeba-fra-eng" / "fra-eng.zip"
    path.parent.mkdir()
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="is damaged"):
        tatoeba_fra_eng()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("fra-eng/fra.txt", "Go.\tVa !\n")
    with pytest.raises(ValueError, match="SHA-256"):
        tatoeba_fra_eng()

"""Word pieces: what they are made of, how texts become batches, and what is refused."""

import pytest

from thalweg.data.wordpieces import SPECIAL, WordPieces, learn_wordpieces

TEXT = learn_wordpieces(["the running runner runs", "a walker walks, walking on"] * 5, 60)


def test_a_word_is_its_longest_pieces_from_the_left():
    pieces = WordPieces(TEXT)
    vocabulary = set(pieces.pieces(range(len(pieces))))
    for word in ("running", "runs", "walkinger", "runninger"):
        found, rest = [], word
        while rest:
            mark = "##" if found else ""
            end = max(end for end in range(1, len(rest) + 1) if mark + rest[:end] in vocabulary)
            found, rest = [*found, mark + rest[:end]], rest[end:]
        tokens = pieces.encode([word])[0].ids
        assert pieces.pieces(tokens) == ["[CLS]", *found, "[SEP]"]
        assert pieces.goes_on()[tokens].tolist() == [False, False, *[True] * (len(found) - 1), False]
    assert len(found) > 1


def test_the_first_tokens_are_special_and_a_pair_of_texts_is_two_segments():
    pieces = WordPieces(TEXT)
    assert pieces.pieces(range(5)) == list(SPECIAL)
    batch = pieces.batch(["the", "a walker"], ["runs", "walks on"])
    assert batch["tokens"].shape == batch["mask"].shape == batch["segment"].shape
    assert batch["mask"].sum(1).tolist() == [len(one.ids) for one in pieces.encode(["the", "a walker"], ["runs", "walks on"])]
    row = batch["tokens"][1].tolist()
    assert (row[0], row.count(pieces.sep), row[-1]) == (pieces.cls, 2, pieces.sep)
    assert batch["segment"][1].tolist() == [int(place > row.index(pieces.sep)) for place in range(len(row))]
    assert pieces.decode(batch["tokens"][0].tolist()) == "the runs"


def test_what_is_typed_is_text_unless_marks_are_asked_for():
    assert WordPieces(TEXT).mask not in WordPieces(TEXT).encode(["the [MASK] runs"])[0].ids
    assert WordPieces(TEXT, marks=True).encode(["the [MASK] runs"])[0].ids.count(WordPieces(TEXT).mask) == 1


def test_a_text_is_cut_to_the_longest_and_a_later_one_is_not():
    pieces = WordPieces(TEXT)
    assert len(pieces.encode(["the runner runs on"], longest=4)[0].ids) == 4
    assert len(pieces.encode(["the runner runs on"])[0].ids) > 4


@pytest.mark.parametrize(("text", "words"), [("{}", "expected that of a tokenizer.json"), ("no json", "expected that of")])
def test_what_is_no_tokenizer_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        WordPieces(text)


def test_a_tokenizer_without_special_tokens_and_a_vocabulary_without_room_are_refused():
    with pytest.raises(ValueError, match=r"lacks \[MASK\]"):
        WordPieces(TEXT.replace("[MASK]", "[XXXX]"))
    with pytest.raises(ValueError, match="vocab_size=5: expected more than 5"):
        learn_wordpieces(["a"], 5)


def test_the_same_texts_give_the_same_pieces():
    words = " ".join(f"{a}{b}{c}" for a in "xyzuvw" for b in "aeiou" for c in "klmnprst")
    assert len({learn_wordpieces([words], 120) for _ in range(5)}) == 1

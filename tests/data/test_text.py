"""Characters and windows of a long text."""

import gzip
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.data.own_text import read_text
from thalweg.data.text import Characters, Partition, WholeWords, Windows, segment, vocabulary


@given(st.text(min_size=1))
def test_what_is_encoded_decodes_to_itself(text):
    characters = Characters("".join(sorted(set(text))))
    tokens = characters.encode(text)
    assert tokens.shape == (len(text),)
    assert tokens.max() < len(characters)
    assert characters.decode(tokens.tolist()) == text


def test_unknown_characters_are_named():
    with pytest.raises(ValueError, match=r"the characters 'xé' are not in the alphabet 'abc'"):
        Characters("abc").encode("abxaé")


@pytest.mark.parametrize("alphabet", ["", "abca"])
def test_an_alphabet_is_of_different_characters(alphabet):
    with pytest.raises(ValueError, match=f"alphabet='{alphabet}'"):
        Characters(alphabet)


sizes = st.integers(1, 9).flatmap(lambda c: st.tuples(st.just(c), st.integers(1, c), st.integers(c + 1, 60), st.integers(1, 5)))


@settings(max_examples=200, deadline=None)
@given(sizes)
def test_windows_in_order_predict_every_token_but_the_first_exactly_once(size):
    context, stride, time, batch_size = size
    counted, heard = torch.zeros(time, dtype=torch.long), []
    for batch in Windows(torch.arange(time), context, batch_size, stride=stride):
        tokens, mask = batch["tokens"], batch["mask"]
        assert tokens.shape == mask.shape
        assert tokens.shape[1] == context + 1
        assert mask[:, 1:].any(1).all()  # no window in vain
        predicted = tokens[:, 1:][mask[:, 1:]]
        counted += predicted.bincount(minlength=time)
        assert ((tokens[:, 1:] - tokens[:, :-1] == 1) | ~mask[:, 1:]).all()  # what is counted follows what was read
        heard += (predicted - tokens[:, :1].expand(-1, context)[mask[:, 1:]]).tolist()
    assert counted.tolist() == [0] + (time - 1) * [1]
    assert sum(n < min(context - stride + 1, time) for n in heard) <= context - stride  # only where the text begins


@settings(max_examples=100, deadline=None)
@given(sizes, st.integers(0, 5))
def test_a_shuffled_pass_predicts_tokens_at_most_once_in_whole_windows(size, number):
    context, stride, time, batch_size = size
    time += stride - 1
    stream = Windows(torch.arange(time), context, batch_size, stride=stride, shuffle=True)
    counted = torch.zeros(time, dtype=torch.long)
    for position in range(len(stream)):
        batch = stream.batch(number * len(stream) + position)
        counted += batch["tokens"][:, 1:][batch["mask"][:, 1:]].bincount(minlength=time)
    assert counted.max() == 1
    assert counted.sum() >= time - 2 * stride


def test_batches_are_a_function_of_the_seed_and_their_number():
    def tokens(seed, numbers):
        torch.manual_seed(seed)
        stream = Windows(torch.arange(500), 8, 4, shuffle=True)
        return [stream.batch(number)["tokens"].tolist() for number in numbers]

    assert tokens(1, [5, 40, 5]) == tokens(1, [5, 40, 5])
    assert tokens(1, [40]) == [tokens(1, range(41))[40]]
    assert tokens(1, [40]) != tokens(2, [40])


def test_every_pass_cuts_the_text_at_another_place_and_in_another_order():
    stream = Windows(torch.arange(1000), 10, 1000, shuffle=True)
    starts = [stream.batch(number)["tokens"][:, 0] for number in range(8)]
    assert len({int(start[0]) % 10 for start in starts}) > 2
    assert all(not torch.equal(start, start.sort().values) for start in starts)


@pytest.mark.parametrize(
    ("time", "arguments", "message"),
    [
        (10, {"stride": 9}, "stride=9: expected 1 to context=8"),
        (10, {"stride": -1}, "stride=-1"),
        (8, {}, "a text of 8, expected at least 9 for context=8"),
        (15, {"shuffle": True}, "a text of 15, expected at least 16"),
    ],
)
def test_what_gives_no_windows_is_refused_by_name(time, arguments, message):
    with pytest.raises(ValueError, match=message):
        Windows(torch.arange(time), 8, 4, **arguments)


def test_windows_are_augmented_as_other_batches_are():
    marked = next(iter(Windows(torch.arange(30), 4, 2, augment=[lambda batch, random: {**batch, "mark": torch.ones(1)}])))
    assert set(marked) == {"tokens", "mask", "mark"}


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 60), st.booleans())
def test_a_batch_goes_on_where_the_one_before_ended(context, rows, more, shuffle):
    tokens = torch.arange(context * (1 + rows) + more)
    stream = Partition(tokens, context, rows, shuffle=shuffle)
    batches = list(stream)
    for before, after in pairwise(batches):
        assert torch.equal(before["tokens"][:, -1], after["tokens"][:, 0])
    assert [batch["begins"].tolist() for batch in batches] == [[k == 0] * rows for k in range(len(batches))]
    predicted = torch.cat([batch["tokens"][:, 1:] for batch in batches], 1)
    assert len(set(predicted.flatten().tolist())) == predicted.numel()
    assert predicted.numel() > len(tokens) - 1 - context * (rows + shuffle)
    if not shuffle:
        assert int(batches[0]["tokens"][0, 0]) == 0


def test_a_text_too_short_for_its_rows_is_refused():
    with pytest.raises(ValueError, match="a text of 11, expected at least 12 for context=3 and batch_size=3"):
        Partition(torch.arange(11), 3, 3)


def test_a_word_is_a_token_and_another_is_unknown():
    words = WholeWords("the <unk> cat <eos> sat")
    assert words.encode("the dog sat <eos>").tolist() == [0, 1, 4, 3]
    assert words.decode([0, 2, 4]) == "the cat sat"
    assert "".join(words.pieces([0, 2])) == "the cat "
    assert len(words) == 5
    for wrong in ("the cat the <unk>", "the cat"):
        with pytest.raises(ValueError, match="expected different words and <unk> among them"):
            WholeWords(wrong)


def test_a_text_becomes_words_or_characters(monkeypatch):
    text = "The cat’s HAT, 3 hats: 我们喜欢NLP。"
    assert segment(text) == ["the", "cat's", "hat", "3", "hats", "我们喜欢nlp"]
    assert segment(text, "characters") == ["the", "cat's", "hat", "3", "hats", *"我们喜欢", "nlp"]
    for by in ("words", "characters"):
        assert segment("हिन्दी भाषा में, u\u0308ber Cafe\u0301", by) == ["हिन्दी", "भाषा", "में", "über", "café"]
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(ImportError, match=r"pip install 'thalweg\[chinese\]'"):
        segment(text, "jieba")
    monkeypatch.setitem(sys.modules, "jieba", SimpleNamespace(cut=lambda text: ["我们", "喜欢", "，", "nlp"]))
    assert segment("我们喜欢，NLP", "jieba") == ["我们", "喜欢", "nlp"]
    with pytest.raises(ValueError, match="by='letters'"):
        segment(text, "letters")


def test_text_goes_to_numbers_and_back_by_words_and_by_characters():
    """The whole way: read, cut, list what there is, number it; what is rare becomes unknown."""
    text = "the time machine the time traveller the end"
    words = vocabulary(segment(text), least=2)
    coder = WholeWords(" ".join([*words.words, "<unk>"]))
    assert coder.decode(coder.encode(text).tolist()) == "the time <unk> the time <unk> the <unk>"
    every = WholeWords(" ".join([*vocabulary(segment(text)).words, "<unk>"]))
    assert every.decode(every.encode(text).tolist()) == text
    letters = Characters("".join(sorted(set(text))))
    assert letters.decode(letters.encode(text).tolist()) == text
    assert len(letters.encode(text)) > len(every.encode(text))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_text_of_ones_own_is_read_as_it_is_written(encoding, tmp_path):
    (tmp_path / "b.txt").write_text("zwei 词", encoding=encoding)
    assert read_text(tmp_path / "b.txt") == "zwei 词"
    (tmp_path / "a.txt").write_text("eins", encoding=encoding)
    (tmp_path / "c.csv").write_text("drei", encoding=encoding)
    assert read_text(tmp_path) == "eins\nzwei 词"
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress("vier".encode(encoding)))
    assert read_text(tmp_path / "d.txt.gz") == "vier"


def test_what_is_no_text_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes("naïve".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.txt: expected text in UTF-8, .* line 1 is not"):
        read_text(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no text in a \.txt file"):
        read_text(tmp_path / "empty")
    (tmp_path / "a.txt").write_bytes(b" \n")
    with pytest.raises(ValueError, match="holds no text"):
        read_text(tmp_path / "a.txt")

"""Broken texts: each corruption is its definition, and what is to be written restores what was."""

import re
from collections import Counter

import pytest
import torch

from thalweg.data.corruption import CORRUPTIONS, Corrupted, Marks
from thalweg.data.pairs import BOS, EOS, PAD
from thalweg.data.streams import generator

MARKS = Marks(4, tuple(range(5, 15)), 20)
TEXTS = [torch.tensor([*range(30, 40), 20, *range(50, 57), 20, *range(70, 70 + number), 20]) for number in range(3, 30)]


def broken(name):
    for number, text in enumerate(TEXTS):
        yield text.tolist(), *(part.tolist() for part in CORRUPTIONS[name](text, MARKS, generator(number)))


def test_masked_tokens_stand_in_their_places():
    for text, read, written in broken("mask"):
        assert written == text
        assert len(read) == len(text)
        assert sum(one != other for one, other in zip(read, text, strict=True)) == read.count(4) == round(0.15 * len(text))


def test_deleted_tokens_leave_no_mark():
    for text, read, written in broken("delete"):
        assert written == text
        rest = iter(text)
        assert all(token in rest for token in read)  # in their order
        assert len(text) - len(read) == round(0.15 * len(text))


def restored(read, spans, marks):
    """What is read, with the spans in place of the marks."""
    held = iter(spans)
    return [token for one in read for token in (next(held) if one in marks else [one])]


def test_a_span_of_any_length_is_one_mask():
    lengths = Counter()
    for text, read, written in broken("infill"):
        assert written == text
        pattern = "".join(r"((?:\d+ )*?)" if token == 4 else f"{token} " for token in read)
        found = re.fullmatch(pattern, "".join(f"{token} " for token in text))
        spans = [span.split() for span in found.groups()]
        lengths.update(map(len, spans))
        assert sum(map(len, spans)) == len(text) - (len(read) - read.count(4)) == round(0.3 * len(text))
    assert lengths[0] > 0  # a mask where nothing was
    assert max(lengths) > 3


def test_sentences_change_places_whole():
    changed = 0
    for text, read, written in broken("permute"):
        assert written == text

        def sentences(tokens):
            return " ".join(map(str, tokens)).split(" 20")

        assert sorted(map(str.strip, sentences(read))) == sorted(map(str.strip, sentences(text)))
        changed += read != text
    assert changed > len(TEXTS) / 2


def test_a_rotated_text_begins_elsewhere():
    for text, read, written in broken("rotate"):
        assert written == text
        assert read in [text[start:] + text[:start] for start in range(len(text))]


def test_numbered_marks_stand_for_spans_that_alone_are_written():
    for text, read, written in broken("t5"):
        marks = [token for token in read if token in MARKS.sentinels]
        assert marks == list(MARKS.sentinels[: len(marks)])
        assert [token for token in written if token in MARKS.sentinels] == list(MARKS.sentinels[: len(marks) + 1])
        assert written[-1] == MARKS.sentinels[len(marks)]
        spans, now = [], []
        for token in written[1:]:
            if token in MARKS.sentinels:
                spans.append(now)
                now = []
            else:
                now.append(token)
        assert all(spans)
        assert restored(read, spans, set(MARKS.sentinels)) == text
        assert sum(map(len, spans)) == round(0.15 * len(text))


def test_a_fragment_of_half_the_text_is_masked_and_written():
    for text, read, written in broken("mass"):
        start = read.index(4)
        assert read.count(4) == len(written) == round(len(text) / 2)
        assert text[start : start + len(written)] == written
        assert read[:start] + written + read[start + len(written) :] == text


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_shortest_text_survives_every_corruption(name):
    read, written = CORRUPTIONS[name](torch.tensor([30]), MARKS, generator(0))
    assert len(read) <= 2
    assert len(written) <= 2


def test_batches_of_broken_texts_are_a_function_of_their_number():
    torch.manual_seed(0)
    stream = Corrupted(TEXTS, MARKS, ["infill", "permute"], 8, shuffle=True)
    torch.manual_seed(0)
    other = Corrupted(TEXTS, MARKS, ["infill", "permute"], 8, shuffle=True)
    torch.rand(3)
    batch = stream.batch(2)
    assert all(torch.equal(tensor, other.batch(2)[name]) for name, tensor in batch.items())
    assert not torch.equal(batch["source_tokens"][:, :5], stream.batch(2 + len(stream))["source_tokens"][:, :5])
    assert (batch["target_tokens"][:, 0] == BOS).all()
    for side in ("source", "target"):
        tokens, real = batch[f"{side}_tokens"], batch[f"{side}_mask"]
        assert torch.equal(real, tokens != PAD)
        assert (tokens.gather(1, real.sum(1, keepdim=True) - 1) == EOS).all()
    with pytest.raises(ValueError, match=r"corruptions=\['shred'\]"):
        Corrupted(TEXTS, MARKS, ["shred"], 8)

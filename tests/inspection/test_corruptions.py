"""The drawing of every corruption shows each of them on the text that is given."""

import pytest

from thalweg.data.corruption import CORRUPTIONS
from thalweg.inspection.corruptions import draw_corruptions

TEXT = "The old man saw New York from the sea . He said that it was large ."


def test_every_scheme_is_a_line_of_the_drawing():
    shown = [text.get_text() for text in draw_corruptions(TEXT).axes[0].texts]
    assert {"text", "token masking", "entity masking", "span masking", "  written", *CORRUPTIONS} <= set(shown)
    assert shown.count("York") >= 5
    assert "[MASK]" in shown
    assert "<0>" in shown


def test_a_text_of_few_words_is_refused():
    with pytest.raises(ValueError, match="has 2 words, expected at least 5"):
        draw_corruptions("two words")

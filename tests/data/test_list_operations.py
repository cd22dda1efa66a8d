"""Lists within lists: what the words say, worked out anew, is the label."""

from statistics import median_low

import pytest
import torch

from thalweg.data.list_operations import WORDS, list_operations


def worked_out(words):
    """The value of the words, read from the last to the first: what an operator finds up to its bracket is a list."""
    stack = []
    for word in reversed(words):
        if word == "]":
            stack.append([])
        elif word.isdigit():
            stack[-1].append(int(word))
        else:
            numbers = stack.pop()
            found = {"[MAX": max, "[MIN": min, "[MED": median_low, "[SM": lambda them: sum(them) % 10}[word](numbers)
            if not stack:
                return found
            stack[-1].append(found)
    raise AssertionError(words)


def test_the_label_is_what_the_words_come_to():
    batch = list_operations(200, 48, seed=0, depth=4)
    lengths, depths = batch["mask"].sum(1), []
    for tokens, mask, label in zip(batch["tokens"], batch["mask"], batch["label"], strict=True):
        words = [WORDS[token] for token in tokens[mask].tolist()]
        assert worked_out(words) == label
        opened = torch.tensor([word.startswith("[") - (word == "]") for word in words]).cumsum(0)
        assert opened[-1] == 0
        depths.append(int(opened.max()))
    assert max(depths) == 4
    assert 12 <= lengths.min() < lengths.max() <= 48
    assert batch["label"].unique().tolist() == list(range(10))
    assert torch.equal(list_operations(5, 48, seed=0, depth=4)["tokens"], batch["tokens"][:5])
    assert not torch.equal(list_operations(5, 48, seed=1, depth=4)["tokens"], batch["tokens"][:5])
    with pytest.raises(ValueError, match="longest=7"):
        list_operations(1, 7, 0)

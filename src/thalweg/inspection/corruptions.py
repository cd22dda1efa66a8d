"""Every way to hide or to break a text that models of language are pre-trained on, on one sentence.   LEE BERT"""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from thalweg import figures
from thalweg.data.corruption import CORRUPTIONS, SENTINELS, Marks
from thalweg.data.masking import choose_units, corrupt, span_units, units
from thalweg.data.pretraining import names
from thalweg.data.streams import generator

HIDDEN, MOVED = "firebrick", "steelblue"


def draw_corruptions(text: str, seed: int = 0) -> Figure:
    """A text of separate words as each scheme makes a model read it: hidden words in red, moved ones in blue.

    A line each of token, name and span masking; then BART's corruptions, T5's marks and MASS's fragment, with what is to be
    written where that is not the text.   ValueError for a text of fewer than five words.
    """
    words = text.split()
    if len(words) < 5:
        raise ValueError(f"text: {text!r:.100} has {len(words)} words, expected at least 5")
    known = [*dict.fromkeys(words), "[MASK]", *(f"<{number}>" for number in range(SENTINELS))]
    number = {word: place for place, word in enumerate(known)}
    tokens = torch.tensor([number[word] for word in words])
    marks = Marks(number["[MASK]"], tuple(number[f"<{place}>"] for place in range(SENTINELS)), number.get(".", -1))
    rows, titles = [[(word, "") for word in words]], ["text"]
    for title, chosen, read in _masked(tokens, words, number["[MASK]"], seed):
        rows.append([(known[token], HIDDEN if hidden else "") for token, hidden in zip(read, chosen, strict=True)])
        titles.append(title)
    for title, change in CORRUPTIONS.items():
        read, written = (part.tolist() for part in change(tokens, marks, generator(seed)))
        moved = MOVED if title in ("permute", "rotate") else ""
        rows.append([(known[token], HIDDEN if token >= number["[MASK]"] else moved) for token in read])
        titles.append(title)
        if written != tokens.tolist():
            rows.append([(known[token], "") for token in written])
            titles.append("  written")
    return figures.pieces(rows, titles)


def _masked(tokens: Tensor, words: list[str], mask: int, seed: int) -> list[tuple[str, list[bool], list[int]]]:
    """Name, what is hidden and what is read, of each masking of an encoder."""
    every, free = torch.ones(1, len(words), dtype=torch.bool), torch.ones(1, len(words), dtype=torch.bool)
    laid = {"token": units(every, free), "entity": units(torch.tensor([names(words)]), free),
            "span": span_units(every, free, generator(seed, 1), longest=4)}  # fmt: skip
    found = []
    for number, (title, unit) in enumerate(laid.items()):
        random = generator(seed, 2, number)
        chosen = choose_units(unit, 0.25, random)
        read = corrupt(tokens[None], chosen, random, mask_token=mask, vocab_size=mask, unit=unit)
        found.append((f"{title} masking", chosen[0].tolist(), read[0].tolist()))
    return found

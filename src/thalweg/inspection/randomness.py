"""What chance does to a text: the higher the temperature, the more different its texts are, and the fewer their real words.

A text to be gone on with may go on in many ways; a translation may not. So chance is for the first and not for the second.
LEE: Transformer
"""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from thalweg import figures
from thalweg.tasks.language_modelling import LanguageModelling


class Randomness(NamedTuple):
    """diversity: the share of different ones among all runs of four characters.   quality: of words, those that are known."""

    temperature: float
    diversity: float
    quality: float


def by_temperature(
    task: LanguageModelling,
    known: str,
    start: str,
    *,
    temperatures: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0),
    texts: int = 8,
    length: int = 200,
) -> list[Randomness]:
    """Diversity and quality of texts that a model writes, at each temperature.   known: a text of real words

    ValueError if start is empty, or texts or length below 1.
    """
    if texts < 1 or length < 1:
        raise ValueError(f"texts={texts}, length={length}: expected at least 1")
    words, found = set(known.split()), []
    for temperature in temperatures:
        written = task.predict({"text": [start] * texts}, length=length, temperature=temperature)["text"]
        written = [text[len(start) :] for text in written]
        runs = [text[place : place + 4] for text in written for place in range(len(text) - 3)]
        said = [word for text in written for word in text.split()[1:-1]]  # the first and the last may be cut
        found.append(Randomness(temperature, len(set(runs)) / max(1, len(runs)),
                                sum(word in words for word in said) / max(1, len(said))))  # fmt: skip
    return found


def table(rows: Sequence[Randomness]) -> str:
    """The rows as lines of text."""
    lines = [f"{row.temperature:11.2f}  {row.diversity:9.1%}  {row.quality:7.1%}" for row in rows]
    return "\n".join(["temperature  diversity  quality", *lines])


def drawn(rows: Sequence[Randomness]) -> Figure:
    """Diversity and quality over the temperature."""
    lines = {name: [(row.temperature, getattr(row, name)) for row in rows] for name in ("diversity", "quality")}
    return figures.curves(lines, xlabel="temperature", ylabel="share")

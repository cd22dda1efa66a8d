"""Series: numbers in the order of time, and parts of them of which none foresees another.   D2L 8.1

What lies between known values is easy to guess, what comes after them is not: so training ends where validation begins, and
validation where the test does.
"""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from thalweg.data.sources import MissingData
from thalweg.data.streams import generator
from thalweg.vocabulary import Batch


class Series(NamedTuple):
    """values: [time feature]; names: of the features; left_out: what was not understood of a file, in words."""

    values: Float[Tensor, "time feature"]
    names: tuple[str, ...]
    left_out: str = ""


def sine(length: int = 1000, noise: float = 0.2, seed: int = 0) -> Series:
    """x_t = sin(0.01 t) + noise, t = 1 ... length: what comes next is known but for the noise, whose deviation is given."""
    wave = torch.sin(0.01 * torch.arange(1, length + 1))
    return Series((wave + noise * torch.randn(length, generator=generator(seed)))[:, None], ("sin(t / 100) + noise",))


def eeg() -> Series:
    """Ten seconds of the voltage at a place of a person's head, 800 values, carried by matplotlib: an electroencephalogram."""
    from matplotlib.cbook import get_sample_data

    try:
        content = Path(get_sample_data("eeg.dat", asfileobj=False)).read_bytes()
    except FileNotFoundError as error:
        raise MissingData("eeg.dat: this matplotlib carries no sample data; install one from PyPI") from error
    values = torch.frombuffer(bytearray(content), dtype=torch.float64).view(800, 4)
    return Series(values[:, :1].float(), ("voltage of the brain, in deviations",))


def read_series(path: Path, column: str | None = None) -> Series:
    """A column of a CSV file; rows in which it has no number are left out, and told by their lines.

    column: its name in the header; if None, the last of those with the most numbers. The first line is a header where none
    of its fields is a number; fields are parted by commas, semicolons or tabs, whichever the first line has most of.
    ValueError for a column that is not there, or fewer than two numbers.
    """
    text = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    first = next((line for line in text if line.strip()), "")
    read = csv.reader(text, delimiter=max(",;\t", key=first.count), skipinitialspace=True)
    rows = dict((read.line_num, row) for row in read if any(row))  # noqa: C402, the line is another at each row
    names = next(iter(rows.values()), [])
    if any(_number(field) is not None for field in names):
        names = [str(place) for place in range(1, 1 + len(names))]
    elif rows:
        del rows[min(rows)]
    columns = [[_number(row[place]) if place < len(row) else None for row in rows.values()] for place in range(len(names))]
    if not names or column not in (None, *names):
        raise ValueError(f"column={column!r}: {path} has {', '.join(names) or 'no columns'}")
    counts = [(sum(number is not None for number in numbers), place) for place, numbers in enumerate(columns)]
    place = max(counts)[1] if column is None else names.index(column)
    found = [number for number in columns[place] if number is not None]
    if len(found) < 2:
        raise ValueError(f"{path}: {len(found)} numbers in column {names[place]!r}, expected at least two")
    bad = [str(line) for line, number in zip(rows, columns[place], strict=True) if number is None]
    told = f"{len(bad):,} rows without a number, lines {', '.join(bad[:8])}{', ...' * (len(bad) > 8)}" if bad else ""
    return Series(torch.tensor(found)[:, None], (names[place],), told)


def _number(field: str) -> float | None:
    try:
        return number if math.isfinite(number := float(field)) else None
    except ValueError:
        return None


def in_time(length: int, shares: Sequence[float]) -> list[tuple[int, int]]:
    """Where parts begin and end that follow each other in time.   shares: of the length, in order; their sum is 1

    ValueError for others, or if a part would be empty.
    """
    if not math.isclose(sum(shares), 1) or min(shares) <= 0:
        raise ValueError(f"shares={shares}: expected numbers above 0 whose sum is 1")
    ends = [round(length * sum(shares[: number + 1])) for number in range(len(shares))]
    parts = list(zip([0, *ends], ends, strict=False))
    if any(start == end for start, end in parts):
        raise ValueError(f"length={length}: too short for parts of {', '.join(f'{share:g}' for share in shares)} of it")
    return parts


def windows(values: Float[Tensor, "time feature"], read: int, ahead: int, start: int, end: int) -> Batch:
    """All stretches of read + ahead values of which those ahead, which are to be foretold, lie between start and end.

    What is read may lie before: it is the past.   series [window read+ahead feature], time [window read+ahead].
    ValueError if there is none.
    """
    places = torch.arange(max(start, read), end - ahead + 1)[:, None] + torch.arange(-read, ahead)
    if not len(places):
        raise ValueError(f"read={read}, ahead={ahead}: more than lies between {start} and {end} of a series of {len(values)}")
    return {"series": values[places], "time": places}


def leaks(train: Batch, held_out: Batch, read: int) -> int:
    """How many training examples know of a time that is to be foretold, or of a later one: it should be none.

    time: of every value of an example, [example time].   read: values of a held-out example that are the past.
    """
    return int((train["time"].amax(1) >= held_out["time"][:, read].min()).sum())

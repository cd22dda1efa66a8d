"""Tables: a CSV file of numbers, words and gaps becomes columns of floats.   D2L 2.2"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "?")


def read_table(path: Path, delimiter: str = ",") -> dict[str, Tensor]:
    """The columns of a CSV file with a header, by name, each a float tensor [row].

    A column of numbers keeps its name, its gaps take the mean of the numbers there are. A column of anything else
    becomes a column of zeros and ones for each word, `colour=red`, and one for its gaps, `colour=`.
    Gaps are empty, NA, N/A, NaN, null or ?.   torch.stack(list(columns.values()), 1) is the matrix [row feature].
    ValueError, with the line, for a row of another length than the header, a name twice, or no rows.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
        names = next(lines, [])
        if len(set(names)) < len(names):
            raise ValueError(f"{path}: the header names a column twice: {names}")
        rows = []
        for row in lines:
            if row and len(row) != len(names):
                raise ValueError(f"{path}, line {lines.line_num}: {len(row)} fields, the header names {len(names)}")
            if row:
                rows.append([field.strip() for field in row])
    if not rows:
        raise ValueError(f"{path}: expected a header and at least one row")
    columns: dict[str, Tensor] = {}
    for name, fields in zip(names, zip(*rows, strict=True), strict=True):
        columns |= _numbers(name, fields) or _indicators(name, fields)
    return columns


def write_table(path: Path, columns: Mapping[str, Sequence[object] | Tensor]) -> None:
    """Writes columns of equal length as a CSV file with a header: what a competition takes as a submission.

    ValueError, with their lengths, for columns of unequal length.
    """
    lists = {name: column.tolist() if isinstance(column, Tensor) else list(column) for name, column in columns.items()}
    if len({len(column) for column in lists.values()}) != 1:
        raise ValueError(f"columns: expected equal lengths, got { {name: len(column) for name, column in lists.items()} }")
    with open(path, "w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(lists)
        lines.writerows(zip(*lists.values(), strict=True))


def _numbers(name: str, fields: tuple[str, ...]) -> dict[str, Tensor]:
    """The column of numbers, its gaps filled with their mean; empty if it holds anything else or nothing."""
    try:
        column = torch.tensor([float("nan" if field in MISSING else field) for field in fields], dtype=torch.float64)
    except ValueError:
        return {}
    mean = column.nanmean()
    return {} if mean.isnan() else {name: torch.where(column.isnan(), mean, column).float()}


def _indicators(name: str, fields: tuple[str, ...]) -> dict[str, Tensor]:
    """A column of zeros and ones for each word, in alphabetical order, and one for the gaps if there are any."""
    words = ["" if field in MISSING else field for field in fields]
    return {f"{name}={word}": torch.tensor([float(held == word) for held in words]) for word in sorted(set(words))}

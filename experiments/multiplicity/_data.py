"""The user's table: a CSV file, one person a line, made into a design and labels."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}  # how files say that a cell is empty
MOST = 20  # different texts of a categorical column


class Table(NamedTuple):
    """line (n,) of each person in the file; x (n, d), the intercept first; y (n,), 1 or 0; names of the d columns."""

    line: list[int]
    x: np.ndarray
    y: np.ndarray
    names: list[str]


def read(path: Path, label: str, positive: str | None) -> Table:
    """A table whose first line names the columns. Numbers are standardised, texts one-hot, the first text left out.

    label: the column to predict; positive: its value that counts as 1, needed unless the column holds 0 and 1.
    Raises ValueError, naming lines and columns, for a cell that is missing or not finite, a row of another length, a
    column without variation or with too many texts, and a label that cannot be read.
    """
    header, lines, rows = _rows(path)
    if label not in header:
        raise ValueError(f"label = {label!r}: must be a column of {path}: {', '.join(header)}")
    at = header.index(label)
    features = [k for k in range(len(header)) if k != at]
    if not features:
        raise ValueError(f"{path}: has no column beside {label}")
    cells = {k: [row[k] for row in rows] for k in range(len(header))}
    y = _labels(label, cells[at], positive)
    names, columns = ["intercept"], [np.ones(len(rows))]
    for k in features:
        for name, column in _columns(header[k], cells[k], lines):
            names.append(name)
            columns.append(column)
    return Table(lines, np.stack(columns, axis=1), y, names)


def _rows(path: Path) -> tuple[list[str], list[int], list[list[str]]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            reader = csv.reader(file)
            found = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path}: not a CSV file in UTF-8, and must be one: {error}") from None
    found = [(number, row) for number, row in found if any(row)]
    if len(found) < 2:
        raise ValueError(f"{path}: no people; the first line must name the columns, each other one be a person")
    header = found[0][1]
    twice = sorted({name for name in header if header.count(name) > 1 or not name})
    if twice:
        raise ValueError(f"{path}: column names {', '.join(map(repr, twice))}: must be different, and not empty")
    wrong = []
    for number, row in found[1:]:
        if len(row) != len(header):
            wrong.append(f"  line {number}: {len(row)} cells, the header has {len(header)}")
        missing = [name for name, cell in zip(header, row, strict=False) if cell.lower() in MISSING]
        if missing:
            wrong.append(f"  line {number}: no value for {', '.join(missing)}")
    if wrong:
        advice = "fill these in, or leave the lines or columns out; each line must have one cell for each column"
        raise ValueError(f"{path}: {len(wrong)} bad line(s), nothing was used; {advice}:\n" + "\n".join(wrong[:20]))
    return header, [number for number, _ in found[1:]], [row for _, row in found[1:]]


def _labels(label: str, cells: list[str], positive: str | None) -> np.ndarray:
    known = sorted(set(cells))
    if positive is None:
        numbers = {cell: _number(cell) for cell in known}
        if set(numbers.values()) != {0.0, 1.0}:
            raise ValueError(f"positive: missing; say which value of {label} counts as 1, one of {_some(known)}")
        return np.array([numbers[cell] for cell in cells], float)
    if positive not in known:
        raise ValueError(f"positive = {positive!r}: must be a value of {label}: {_some(known)}")
    if len(known) == 1:
        raise ValueError(f"label = {label!r}: every line has {positive!r}; there must be two values at least")
    return np.array([cell == positive for cell in cells], float)


def _columns(name: str, cells: list[str], lines: list[int]) -> list[tuple[str, np.ndarray]]:
    numbers = [_number(cell) for cell in cells]
    if all(x is not None for x in numbers):
        values = np.array(numbers, float)
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise ValueError(f"line {lines[bad[0]]}: {name} = {cells[bad[0]]}: must be finite")
        if np.ptp(values) == 0:
            raise ValueError(f"column {name}: every line has {cells[0]}: leave it out, the intercept says as much")
        return [(name, (values - values.mean()) / values.std())]
    texts = sorted(set(cells))
    if sum(x is None for x in numbers) < len(cells) / 2:
        odd = next(k for k, x in enumerate(numbers) if x is None)
        raise ValueError(
            f"line {lines[odd]}: {name} = {cells[odd]!r:.40}: must be a number, as most of that column are"
        )
    if len(texts) == 1:
        raise ValueError(f"column {name}: every line has {texts[0]!r:.40}: leave it out, the intercept says as much")
    if len(texts) > MOST:
        raise ValueError(
            f"column {name}: has {len(texts)} different texts, at most {MOST}: group them, or leave it out"
        )
    return [(f"{name}={text}", np.array([cell == text for cell in cells], float)) for text in texts[1:]]


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _some(values: list[str]) -> str:
    shown = ", ".join(f"{value!r:.30}" for value in values[:8])
    return shown + (f" and {len(values) - 8} more" if len(values) > 8 else "")

"""The user's table: a CSV file with a header, one observation a row, read as numbers or as categories."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

SHOWN = 10  # bad cells or lines that are named one by one


class Table(NamedTuple):
    """The rows of a file: line numbers (n,), names of the columns, and the text of every cell."""

    line: list[int]
    columns: list[str]
    cells: list[list[str]]

    def __len__(self) -> int:
        return len(self.line)


def read(path: Path, columns: str = "") -> Table:
    """The columns named (separated by commas; all if none is) of a CSV file with a header; blank lines are skipped.

    Raises ValueError for a file that is no table, a column that is not there or there twice, and a list of all rows
    with too many or too few cells, or an empty one.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, skipinitialspace=True)
            rows = [(reader.line_num, [c.strip() for c in row]) for row in reader if any(c.strip() for c in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a CSV file in UTF-8, and must be one: {error}") from None
    if len(rows) < 2:
        raise ValueError(f"{path}: {len(rows)} line(s); must have a header that names the columns, and rows below")
    header = rows[0][1]
    wanted = [name.strip() for name in columns.split(",")] if columns else header
    for name in wanted:
        if (times := header.count(name)) != 1 or wanted.count(name) != 1:
            raise ValueError(f"columns: {name!r} stands {times} times in the header and {wanted.count(name)} times in "
                             f"what is asked for; must be once each of {', '.join(header)!r:.200}")  # fmt: skip
    places = [header.index(name) for name in wanted]
    errors, cells = [], []
    for number, row in rows[1:]:
        if len(row) != len(header):
            errors.append(f"  line {number}: {len(row)} cells, the header has {len(header)}")
        elif empty := [name for name, k in zip(wanted, places, strict=True) if not row[k]]:
            errors.append(f"  line {number}: nothing in {', '.join(empty)}")
        else:
            cells.append([row[k] for k in places])
    _complain(path, errors)
    return Table([number for number, _ in rows[1:]], wanted, cells)


def numbers(path: Path, table: Table) -> np.ndarray:
    """The table as numbers (n, d). Raises ValueError with every cell that is none, by its line."""
    errors, found = [], np.full((len(table), len(table.columns)), np.nan)
    for i, (line, row) in enumerate(zip(table.line, table.cells, strict=True)):
        for k, (name, cell) in enumerate(zip(table.columns, row, strict=True)):
            if (x := _number(cell)) is None:
                errors.append(f"  line {line}: {name} = {cell!r:.40}: must be a finite number (--columns picks)")
            else:
                found[i, k] = x
    _complain(path, errors)
    return found


def levels(table: Table) -> tuple[list[list[str]], np.ndarray]:
    """The values that each column has, in order (of number if all are), and the table as their places (n, d).

    Raises ValueError for a column with a single value.
    """
    names, places = [], []
    for k, column in enumerate(table.columns):
        values = [row[k] for row in table.cells]
        known = sorted(set(values), key=lambda v: (_number(v) or 0.0, v) if all(map(_is_number, values)) else v)
        if len(known) < 2:
            raise ValueError(f"column {column}: every row has {known[0]!r}; must have at least 2 values")
        names.append(known)
        places.append([known.index(v) for v in values])
    return names, np.array(places).T


def _number(cell: str) -> float | None:
    try:
        x = float(cell)
    except ValueError:
        return None
    return x if math.isfinite(x) else None


def _is_number(cell: str) -> bool:
    return _number(cell) is not None


def _complain(path: Path, errors: list[str]) -> None:
    if errors:
        more = [f"  and {len(errors) - SHOWN} more"] * (len(errors) > SHOWN)
        raise ValueError(f"{path}: {len(errors)} bad cell(s) or line(s), nothing was used; each line must have "
                         "one cell for each column:\n" + "\n".join(errors[:SHOWN] + more))  # fmt: skip

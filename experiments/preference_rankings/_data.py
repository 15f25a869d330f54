"""The user's pairs: a CSV file of log-probabilities, one pair a line."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sandbox.losses import PairLogProbs

LOGPS = ("chosen", "rejected", "ref_chosen", "ref_rejected")
LENGTHS = ("chosen_length", "rejected_length")
VOTES = "votes"
# What a column may hold, and in words.
ALLOWED: dict[str, tuple[Callable[[float], bool], str]] = {
    **dict.fromkeys(LOGPS, (lambda x: x <= 0, "a log-probability, <= 0")),
    **dict.fromkeys(LENGTHS, (lambda x: x >= 1 and x == int(x), "a whole number of tokens, >= 1")),
    VOTES: (lambda x: 0.5 <= x <= 1, "the share of raters for the chosen, from 0.5 to 1"),
}


class Table(NamedTuple):
    """The pairs of a file: line numbers (n,), what is known of each pair, shares of raters (n,) or None."""

    line: list[int]
    pairs: PairLogProbs
    votes: np.ndarray | None


def read(path: Path) -> Table:
    """Pairs from a CSV file with the columns chosen, rejected, ref_chosen and ref_rejected, sums over tokens in nats.

    It may have chosen_length and rejected_length, both or neither, and votes; other columns and blank lines are
    skipped. Raises ValueError for a header that lacks a column, and a list of every bad line with its number.
    """
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            rows = [(number, row) for number, row in _numbered(file) if any(cell.strip() for cell in row)]
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path}: not a CSV file in UTF-8, and must be one: {error}") from None
    if not rows:
        raise ValueError(f"{path}: empty; the first line must name the columns {', '.join(LOGPS)}")
    header = [cell.strip() for cell in rows[0][1]]
    columns = _columns(path, header)
    numbers: dict[str, list[float]] = {name: [] for name in columns}
    errors = []
    for number, row in rows[1:]:
        try:
            if len(row) != len(header):
                raise ValueError(f"{len(row)} cells, the header has {len(header)}")
            found = {name: _number(name, row[k]) for name, k in columns.items()}
        except ValueError as error:
            errors.append(f"  line {number}: {error}")
            continue
        for name, x in found.items():
            numbers[name].append(x)
    if errors:
        raise ValueError(f"{path}: {len(errors)} bad line(s), nothing was used:\n" + "\n".join(errors))
    if len(rows) == 1:
        raise ValueError(f"{path}: no pairs; each line below the names of the columns is one")
    arrays = {name: np.array(x) for name, x in numbers.items()}
    pairs = PairLogProbs(*(arrays[name] for name in LOGPS), *(arrays.get(name) for name in LENGTHS))
    return Table([number for number, _ in rows[1:]], pairs, arrays.get(VOTES))


def _numbered(file: object) -> list[tuple[int, list[str]]]:
    reader = csv.reader(file)  # type: ignore[arg-type]
    return [(reader.line_num, row) for row in reader]


def _columns(path: Path, header: list[str]) -> dict[str, int]:
    """The place of each column that is known."""
    twice = [name for name in ALLOWED if header.count(name) > 1]
    missing = [name for name in LOGPS if name not in header]
    lengths = [name for name in LENGTHS if name in header]
    if missing or twice:
        wrong = [f"no column {', '.join(missing)}"] * bool(missing) + [f"twice {', '.join(twice)}"] * bool(twice)
        raise ValueError(f"{path}: {'; '.join(wrong)}; the first line must name {', '.join(LOGPS)}, and may name "
                         f"{', '.join((*LENGTHS, VOTES))}; it is {', '.join(header)!r:.120}")  # fmt: skip
    if len(lengths) == 1:
        raise ValueError(f"{path}: {lengths[0]} alone; give both {' and '.join(LENGTHS)}, or neither")
    return {name: header.index(name) for name in ALLOWED if name in header}


def _number(name: str, cell: str) -> float:
    holds, allowed = ALLOWED[name]
    try:
        x = float(cell)
    except ValueError:
        raise ValueError(f"{name} = {cell!r:.40}: must be {allowed}") from None
    if not math.isfinite(x) or not holds(x):
        raise ValueError(f"{name} = {cell.strip()}: must be finite, and {allowed}")
    return x

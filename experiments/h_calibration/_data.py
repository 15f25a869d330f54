"""The user's predictions: logits or probabilities of a classifier, with labels, from an .npz or a .csv file."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments._npz import read_npz

SMALLEST = 1e-20  # a probability below it is read as it
OFF = 1e-3  # by how much a row of probabilities may miss 1
SHOWN = 10  # bad rows that are named


class Predictions(NamedTuple):
    """Logits, or logarithms of probabilities, (N, C), and labels (N,), or None where the file has none."""

    logits: np.ndarray
    labels: np.ndarray | None


def read(path: Path, need_labels: bool = True) -> Predictions:
    """Predictions from a file.

    .npz: arrays ``logits`` (N, C), or ``probs`` whose rows sum to one within 0.001, and ``labels`` (N,), from 0 to
    C - 1. .csv: columns named logit... (or prob...), in the order of the classes, and label; others are ignored.

    Raises ValueError for a file of another kind, and names bad rows: in .npz by their index, in .csv by their line.
    """
    if path.suffix == ".npz":
        values, kind, labels, places = *_npz(path), None
    elif path.suffix == ".csv":
        values, kind, labels, places = _csv(path)
    else:
        raise ValueError(f"{path}: must be an .npz or a .csv file")
    if labels is None and need_labels:
        raise ValueError(f"{path}: no labels; give an array labels, or a column label")
    return _checked(path, values, kind, labels, places)


def _npz(path: Path) -> tuple[np.ndarray, str, np.ndarray | None]:
    arrays = read_npz(path, ("logits", "probs", "labels"))
    kinds = [kind for kind in ("logits", "probs") if kind in arrays]
    if len(kinds) != 1:
        raise ValueError(
            f"{path}: it has {', '.join(arrays) or 'neither'}; must have one of logits and probs, and labels"
        )
    values = arrays[kinds[0]]
    if values.ndim != 2 or values.shape[1] < 2 or not np.issubdtype(values.dtype, np.number):
        raise ValueError(f"{path}: {kinds[0]}: {values.dtype} {values.shape}; must be numbers (N, C), C >= 2")
    return values, kinds[0], arrays.get("labels")


def _csv(path: Path) -> tuple[np.ndarray, str, np.ndarray | None, list[int]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a CSV file in UTF-8, and must be one: {error}") from None
    header = [cell.strip() for cell in rows[0][1]] if rows else []
    columns = {
        kind: [k for k, name in enumerate(header) if re.fullmatch(rf"{kind}\D*\d+", name)] for kind in ("logit", "prob")
    }
    kinds = [kind for kind, places in columns.items() if places]
    if len(kinds) != 1 or len(columns[kinds[0]]) < 2:
        raise ValueError(
            f"{path}: columns {', '.join(header)!r:.80}; must have logit0, logit1 ... or prob0, prob1 ..., and label"
        )
    wanted = [*columns[kinds[0]], *([header.index("label")] if "label" in header else [])]
    numbers, errors = [], []
    for line, row in rows[1:]:
        try:
            numbers.append([float(row[k]) for k in wanted])
        except (ValueError, IndexError):
            errors.append(f"line {line}: {len(row)} cells, not all of them numbers")
    _refuse(path, errors)
    if not numbers:
        raise ValueError(f"{path}: no rows; there must be one for each prediction")
    table = np.array(numbers)
    labels = table[:, -1] if "label" in header else None
    values = table[:, : len(columns[kinds[0]])]
    return values, {"logit": "logits", "prob": "probs"}[kinds[0]], labels, [line for line, _ in rows[1:]]


def _checked(
    path: Path, values: np.ndarray, kind: str, labels: np.ndarray | None, lines: list[int] | None
) -> Predictions:
    """Every bad row is named, and nothing is used."""

    def name(i: int) -> str:
        return f"row {i}" if lines is None else f"line {lines[i]}"

    rows, classes = values.shape
    if not rows:
        raise ValueError(f"{path}: no rows; there must be one for each prediction")
    errors = {int(i): f"{kind} = {_short(values[i])}: must be finite"
              for i in np.flatnonzero(~np.isfinite(values).all(axis=1))}  # fmt: skip
    if kind == "probs":
        negative = (values < 0).any(axis=1)
        off = np.abs(values.sum(axis=1) - 1) > OFF
        for i in np.flatnonzero(negative | off):
            errors.setdefault(int(i), f"probs = {_short(values[i])}: must be >= 0 and sum to one, they sum to "
                                      f"{values[i].sum():.6g}")  # fmt: skip
    if labels is not None:
        if labels.shape != (rows,):
            raise ValueError(f"{path}: labels {labels.shape}; must be ({rows},), one a row")
        with np.errstate(invalid="ignore"):
            bad = ~((labels >= 0) & (labels < classes) & (labels == np.floor(labels)))
        for i in np.flatnonzero(bad):
            errors.setdefault(int(i), f"label = {labels[i]:g}: must be a whole number from 0 to {classes - 1}")
    _refuse(path, [f"{name(i)}: {words}" for i, words in sorted(errors.items())])
    if labels is not None:
        labels = labels.astype(int)
        if (labels == labels[0]).all():
            raise ValueError(f"{path}: all labels are {labels[0]} (from {name(0)} on); must be of two classes at least")
    logits = values if kind == "logits" else np.log(np.maximum(values, SMALLEST))
    return Predictions(logits.astype(float), labels)


def _refuse(path: Path, errors: list[str]) -> None:
    if errors:
        more = [f"and {len(errors) - SHOWN} more"] if len(errors) > SHOWN else []
        raise ValueError(f"{path}: {len(errors)} bad row(s), nothing was used: " + "; ".join([*errors[:SHOWN], *more]))


def _short(row: np.ndarray) -> str:
    words = [f"{x:g}" for x in row[:4]] + ["..."] * (len(row) > 4)
    return f"({', '.join(words)})"

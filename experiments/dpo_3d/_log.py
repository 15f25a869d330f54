"""A training log of one pair, read from a CSV file and checked: all of it is used, or nothing."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from sandbox.measures import safe_interval

NEEDED = ("step", "chosen", "rejected")
GRADIENTS = ("norm_chosen", "norm_rejected", "inner")
LEAST = 3  # rows
PARALLEL = 1 + 1e-3  # |inner| over the product of the norms, all three printed with four digits or more
ROUNDING = 1e-3  # below this a difference in nats, a probability or a share is taken for the log's rounding
SEEN = 0.01  # the pair's probability below which the rest says nothing of dispersion
SHOWN = 10  # bad lines that are named one by one


class Log(NamedTuple):
    """Columns of a log, float64 (rows,) each: steps that increase, log-probabilities <= 0 in nats.

    unseen: by name, perhaps none. products: |g_w|, |g_l| and <g_w, g_l>, or None.
    """

    step: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray
    unseen: dict[str, np.ndarray]
    products: tuple[np.ndarray, np.ndarray, np.ndarray] | None


def read_log(path: Path) -> Log:
    """Read a log with the columns step, chosen, rejected, and perhaps norm_chosen, norm_rejected and inner together.

    Columns of any other name are log-probabilities of unseen responses. Blank lines are skipped.

    Raises ValueError that names the file, and lists bad lines with number and column: a missing, unnamed or repeated
    column, too few or too many values, what is no finite number, steps that are negative or do not increase, positive
    log-probabilities, norms that are not positive, an inner product above that of the norms, fewer than 3 rows.
    FileNotFoundError if there is no such file.
    """
    records = _records(path)
    line, header = next(records, (0, []))
    if not header:
        raise ValueError(f"{path}: empty; it must begin with a line of column names: {', '.join(NEEDED)} ...")
    names = [name.strip() for name in header]
    if problem := _wrong_names(names):
        raise ValueError(f"{path}: line {line}: {problem}")
    rows, errors, last = [], [], None
    for line, values in records:
        row, wrong = _row(names, values)
        step = row.get("step")
        if step is not None and last is not None and step <= last[0]:
            same = f"repeats line {last[1]}" if step == last[0] else f"must be above {last[0]:g} of line {last[1]}"
            wrong.insert(0, f"step = {step:g}: {same}; steps must increase")
        last = last if step is None else (step, line)
        if wrong:
            errors.append(f"  line {line}: {'; '.join(wrong)}")
        rows.append(row)
    if errors:
        more = [f"  and {len(errors) - SHOWN} more"] * (len(errors) > SHOWN)
        raise ValueError("\n".join([f"{path}: {len(errors)} bad line(s), nothing was used:", *errors[:SHOWN], *more]))
    if len(rows) < LEAST:
        raise ValueError(f"{path}: {len(rows)} row(s) below the names, up to line {line}: at least {LEAST} are needed")
    columns = {name: np.array([row[name] for row in rows]) for name in names}
    unseen = {name: column for name, column in columns.items() if name not in (*NEEDED, *GRADIENTS)}
    products = None
    if GRADIENTS[0] in columns:
        norm_w, norm_l, inner = (columns[name] for name in GRADIENTS)
        products = norm_w, norm_l, np.clip(inner, -norm_w * norm_l, norm_w * norm_l)
    return Log(columns["step"], columns["chosen"], columns["rejected"], unseen, products)


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number of the line in which it ends, and the fields, of every record that is not blank."""
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}: line {line}: not UTF-8; it must be text in that encoding") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield reader.line_num, fields
    except csv.Error as error:
        raise ValueError(f"{path}: line {reader.line_num}: {error}") from None


def _wrong_names(names: list[str]) -> str:
    """What is wrong with the column names; empty if nothing."""
    unnamed = [str(i) for i, name in enumerate(names, 1) if not name]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    missing = [name for name in NEEDED if name not in names]
    given = [name for name in GRADIENTS if name in names]
    wrong = [f"no column {', '.join(missing)}; found: {', '.join(map(repr, names))}"] * bool(missing)
    wrong += [f"column {', '.join(twice)} more than once"] * bool(twice)
    wrong += [f"column number {', '.join(unnamed)} has no name"] * bool(unnamed)
    if 0 < len(given) < len(GRADIENTS):
        lacking = [name for name in GRADIENTS if name not in names]
        wrong.append(f"{', '.join(given)} without {', '.join(lacking)}: give all three or none")
    return "; ".join(wrong)


def _row(names: list[str], values: list[str]) -> tuple[dict[str, float], list[str]]:
    """The finite numbers of a line by column, and what is wrong with it."""
    if len(values) != len(names):
        return {}, [f"{len(values)} value(s) for {len(names)} columns"]
    row, wrong = {}, []
    for name, text in zip(names, values, strict=True):
        try:
            row[name] = float(text)
        except ValueError:
            wrong.append(f"{name} = {text.strip()!r}: must be a number")
            continue
        if not math.isfinite(row[name]):
            wrong.append(f"{name} = {row.pop(name)}: must be finite")
        elif allowed := _not_allowed(name, row[name]):
            wrong.append(f"{name} = {row[name]:g}: must be {allowed}")
    if all(name in row for name in GRADIENTS):
        norm_w, norm_l, inner = (row[name] for name in GRADIENTS)
        if min(norm_w, norm_l) > 0 and abs(inner) > norm_w * norm_l * PARALLEL:
            wrong.append(f"inner = {inner:g}: must be within ±{norm_w * norm_l:g}, the product of the norms")
    return row, wrong


def _not_allowed(name: str, x: float) -> str:
    """What a value of this column must be, if ``x`` is not; else empty."""
    if name == "step":
        return ">= 0" if x < 0 else ""
    if name in GRADIENTS:
        return "> 0" if name != "inner" and x <= 0 else ""
    other = "" if name in NEEDED else " (a column of another name is that of unseen responses)"
    return f"<= 0, a log-probability in nats{other}" if x > 0 else ""


# -- what follows from it at once --------------------------------------------------------------------------------------


def margin(log: Log) -> np.ndarray:
    """log(pi_w / pi_l) above that of the first row, in nats."""
    odds = log.chosen - log.rejected
    return odds - odds[0]


def unseen_log_mass(log: Log) -> tuple[np.ndarray | None, str]:
    """Log of the unseen mass (rows,): the total of the unseen columns, or all but the pair; else None and why.

    It is -inf where all but the pair is too little to be more than rounding.
    """
    pair = np.exp(log.chosen) + np.exp(log.rejected)
    listed = logsumexp(np.stack([*log.unseen.values()]), axis=0) if log.unseen else None
    whole = pair if listed is None else pair + np.exp(listed)
    if np.any(whole > 1 + ROUNDING):
        row = int(np.argmax(whole > 1 + ROUNDING))
        return None, (f"the probabilities at step {log.step[row]:g} sum to {whole[row]:.3g}: these are not those of "
                      "whole, different responses to one prompt")  # fmt: skip
    if listed is not None:
        return listed, ""
    if pair[0] < SEEN:
        return None, (f"chosen and rejected together begin with a probability of {pair[0]:.1g}, the rest with nearly "
                      "all: log columns of unseen responses to see where it goes")  # fmt: skip
    if pair[0] > 1 - ROUNDING:
        return None, "chosen and rejected together begin with all probability: nothing is unseen"
    return np.log(1 - pair, out=np.full_like(pair, -np.inf), where=1 - pair >= ROUNDING), ""


def safe_ratios(log: Log) -> tuple[np.ndarray, np.ndarray] | None:
    """The open interval (low, high) of beta_rejected / beta_chosen in which chosen rises and rejected falls, (rows,).

    It is (<g_w, g_l> / |g_l|^2, |g_w|^2 / <g_w, g_l>): that of d_w / d_l, inverted, which exchanges the two norms.
    """
    if log.products is None:
        return None
    norm_w, norm_l, inner = log.products
    low, high = safe_interval(norm_l, norm_w, inner)
    return np.asarray(low), np.asarray(high)

"""Your own data: which risks would another model, just as good, have put elsewhere?

``--data FILE.csv --label COLUMN`` reads one person a line; the first line names the columns. Numbers are standardised,
texts one-hot, an intercept is added. ``--positive VALUE`` says which value of the label counts as 1, unless it is 0 or
1. A logistic model is fitted; --epsilon-rel is how much worse, as a share of its loss, another one may be; --delta the
move of a risk that counts as a conflict; --ridge a penalty, where no best model exists without. ``--data example``
reads irises.

Ambiguity counts different models for different people: no single model does all that. Discrepancy is one model's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from jax import Array
from matplotlib.figure import Figure
from scipy.special import gammainc

from experiments import _terminal
from experiments.harness import Report, knob
from experiments.multiplicity._data import read
from experiments.multiplicity.real import IRIS
from sandbox import multiplicity as m
from sandbox.validate import in_range, nonnegative, positive

SHOWN = 20  # rows of the table
SMALL = 60  # conflicts up to which the integer programme is tried
NODES = 2000  # of it
BLUE, RED = "#0072B2", "#D55E00"


@dataclass(frozen=True)
class User:
    """Your own data, and what counts as near-optimal and as a conflict."""

    data: Path | None = knob(None, "your people, a CSV file with a header; or: example")
    label: str | None = knob(None, "the column to predict")
    positive: str | None = knob(None, "its value that counts as 1; not needed if it holds 0 and 1")
    epsilon_rel: float = knob(0.01, "how much worse than the best a model may be, as a share of its loss")
    delta: float = knob(0.1, "move of a risk that counts as a conflict, from 0 to 1")
    ridge: float = knob(0.0, "penalty: ridge / 2 times the squared coefficients, beside the mean loss in nats")


def report(setup: Any, given: User, key: Array) -> Report:
    """The numbers, the table of the widest ranges and the figure; what they mean is printed before them.

    Raises ValueError for data or a constant that cannot be used.
    """
    record = diagnosis(given, key, setup.searched)
    out = _terminal.console()
    for line in notes(record):
        out.print(line, markup=False, highlight=False)
    return Report(record, table(record), [("user", figure(record), caption(record))])


def diagnosis(given: User, key: Array, searched: int = 2000) -> dict[str, Any]:
    """The record of the user's people, in the order of the file; errors as ``report``."""
    if given.data is None:
        raise ValueError("data: missing; give a file, or: example")
    share, delta = positive("epsilon_rel", given.epsilon_rel), in_range("delta", given.delta, 0, 1, "()")
    nonnegative("ridge", given.ridge)
    example = str(given.data) == "example" and not given.data.exists()
    label, value = given.label, given.positive
    if example:
        label, value = label or "species", value or "virginica"
    if label is None:
        raise ValueError("label: missing; name the column to predict")
    path = IRIS if example else given.data
    people = read(path, label, value)
    rows, ones, weight, place = m.merged(people.x, people.y)
    baseline = m.fit(rows, ones, weight, given.ridge)
    n, d = people.x.shape
    epsilon = share * float(baseline.loss)
    found = m.ranges(baseline, epsilon)
    lower, upper = (np.asarray(jax.nn.sigmoid(end)) for end in (found.low, found.high))
    conflicts = np.asarray(m.ambiguity(baseline, found, delta), float)
    nodes = NODES if n * conflicts @ np.asarray(baseline.weight) <= SMALL else 0
    most = m.discrepancy(baseline, found, epsilon, delta, key=key, count=n, searched=searched, nodes=nodes)
    flips = (lower <= 0.5) & (upper >= 0.5)
    w = np.asarray(baseline.weight)
    p = np.asarray(baseline.risk)
    return {
        "file": path.name, "label": label, "positive": value, "n": n, "d": d, "columns": people.names,
        "loss": float(baseline.loss), "epsilon": epsilon, "delta": delta, "ridge": given.ridge,
        "ambiguity": float(conflicts @ w), "discrepancy": {"lower": most.lower, "upper": most.upper},
        "mean_width": float((upper - lower) @ w), "flip_share": float(flips @ w),
        "certificate": float(np.max(found.gap)), "likelihood_ratio": 2 * n * epsilon,
        "confidence": float(gammainc(d / 2, n * epsilon)),
        "coefficients": [float(c) for c in baseline.w],
        "rows": [
            {"line": line, "p": float(p[k]), "lower": float(lower[k]), "upper": float(upper[k]),
             "flips": bool(flips[k])}
            for line, k in zip(people.line, place, strict=True)
        ],
    }  # fmt: skip


def table(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The widest ranges, a row each."""
    widest = sorted(record["rows"], key=lambda row: row["lower"] - row["upper"])
    return [
        {
            "line": row["line"],
            "risk": float(f"{row['p']:.3g}"),
            "lowest": float(f"{row['lower']:.3g}"),
            "highest": float(f"{row['upper']:.3g}"),
            "label can flip": "yes" if row["flips"] else "",
        }
        for row in widest[:SHOWN]
    ]


def notes(record: Mapping[str, Any]) -> list[str]:
    """What the numbers mean, and how far to trust them."""
    most = record["discrepancy"]
    exact = most["lower"] == most["upper"]
    one = f"{most['lower']:.1%}" if exact else f"between {most['lower']:.1%} and {most['upper']:.1%}"
    lines = [
        f"{record['file']}: {record['n']} people, {record['d']} coefficients; loss {record['loss']:.4g} nats. "
        "Models may "
        f"be worse by {record['epsilon']:.3g}: all of them lie in the {record['confidence']:.0%} confidence "
        "region of a "
        "likelihood-ratio test.",
        f"Some such model moves the risk by {record['delta']:g} or more for {record['ambiguity']:.1%} of the people "
        f"(ambiguity, a different model for each); a single model does so for {one} (discrepancy). For "
        f"{record['flip_share']:.1%} it can turn the label; on average a risk has a range of "
        f"{record['mean_width']:.3f}.",
    ]
    if record["certificate"] > 1e-6:
        lines.append(f"The ends of some ranges are certain to {record['certificate']:.1g} of a logit only.")
    if record["n"] > SHOWN:
        lines.append(f"The widest {SHOWN} ranges of {record['n']}; all are in numbers.json.")
    return lines


def caption(record: Mapping[str, Any]) -> str:
    """The claim, and what the figure shows."""
    return (
        f"{record['file']}, epsilon = {record['epsilon']:.3g} nats, delta = {record['delta']:g}. Every "
        "person's range of "
        "risks over all models whose mean KL from the best one is at most epsilon (C1); red: the label can flip."
    )


def figure(record: Mapping[str, Any]) -> Figure:
    """The range of every person, sorted by risk."""
    drawn, ax = plt.subplots(figsize=(6.4, 3.4))
    rows = sorted(record["rows"], key=lambda row: row["p"])
    p, low, high = (np.array([row[name] for row in rows]) for name in ("p", "lower", "upper"))
    flips, rank = np.array([row["flips"] for row in rows]), np.arange(len(rows))
    for here, colour in ((~flips, BLUE), (flips, RED)):
        ax.vlines(rank[here], low[here], high[here], color=colour, lw=max(0.3, min(2, 300 / len(rows))))
    ax.plot(rank, p, color="black", ls="-", lw=1)
    ax.axhline(0.5, color="0.5", lw=0.8, ls=":")
    ax.set(xlabel="people, sorted by risk", ylabel="risk", ylim=(0, 1), title="viable ranges")
    return drawn

"""Your own table: are its rows enough for a model of that size, and which rows pull the fit most?

``--data FILE.csv`` has one observation a row; the first line names the columns, ``--columns a,b`` picks some.
``--model gaussian``: a normal law of all columns, which are numbers; d(d+3)/2 parameters. ``--model loglinear``: all
columns are categories; main effects and interactions of two. ``--model softmax``: one column, an ordered category;
``--features`` cosines. The answer is about the fit against the closest law of the model, not about whether the model
is right. ``--data example`` reads the file beside this.

t0, b and all that follows are estimated by plugging in the fit and the empirical law; intervals are percentiles over
resampled rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax import Array
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from experiments import _terminal
from experiments.harness import Report, knob
from experiments.pn_criterion._data import Table, levels, numbers, read
from sandbox.expfam import criterion, finite, gaussian, terms
from sandbox.expfam.terms import Expansion
from sandbox.validate import in_range, one_of, whole

EXAMPLE = Path(__file__).with_name("table.csv")
MODELS = {"gaussian": "height,weight", "loglinear": "smoker,club", "softmax": "grade"}  # columns of the example
SHOWN = 12  # rows of the table
WIDEST = 30  # columns of a normal model: its arrays have d^4 numbers
ROOM = 2**25  # cells times p^2 of a model of categories: what its arrays may hold
BLUE, RED = "#0072B2", "#D55E00"


@dataclass(frozen=True)
class User:
    """Your own data, and the model to look at it with."""

    data: Path | None = knob(None, "your table, a CSV file with a header, one observation a row; or: example")
    model: str = knob("gaussian", f"what is fitted to it: {', '.join(MODELS)}")
    columns: str = knob("", "columns to use, separated by commas; by default all; of the example, some")
    features: int = knob(4, "statistics of --model softmax, at least 1 and fewer than the column has values")
    resamples: int = knob(200, "resampled tables for the intervals")


class Estimated(NamedTuple):
    """t0 and b of a table; of each distinct row its leverage, how often and where it first stands, and its words."""

    p: int
    t0: float
    b: float
    resampled: np.ndarray  # (resamples, 2): t0 and b, without those to which no fit exists
    leverage: np.ndarray
    times: np.ndarray
    first: list[int]
    words: list[str]


def report(setup: Any, given: User, key: Array) -> Report:
    """The verdicts, the table of the rows that pull most, and the figure; what they mean is printed before them.

    Raises ValueError for data or a number that cannot be used.
    """
    record = verdict(given, setup.alpha, key)
    out = _terminal.console()
    for line in notes(record):
        out.print(line, markup=False, highlight=False)
    return Report(record, table(record), [("user", figure(record), caption(record))])


def verdict(given: User, alpha: float, key: Array) -> dict[str, Any]:
    """The record of the user's table; errors as ``report``."""
    if given.data is None:
        raise ValueError("data: missing; give a file, or: example")
    one_of("model", given.model, MODELS)
    in_range("alpha", alpha, 0, 0.5, "()")
    whole("resamples", given.resamples, 20)
    whole("features", given.features)
    example = str(given.data) == "example" and not given.data.exists()
    path = EXAMPLE if example else given.data
    rows = read(path, given.columns or MODELS[given.model] * example)
    if given.model == "gaussian":
        found = _normal(path, rows, given.resamples, key)
    else:
        features, places, names = _alphabet(rows, given)
        found = _categories(rows, features, places, names, given.resamples, key)
    return {"file": path.name, "model": given.model, "columns": rows.columns, "alpha": alpha,
            "resamples": given.resamples, **_said(found, len(rows), alpha)}  # fmt: skip


def _said(found: Estimated, n: int, alpha: float) -> dict[str, Any]:
    expansion, allowed = Expansion(found.t0 / 2, found.b), float(criterion.allowed_risk(alpha))
    first, second = expansion.a / n, expansion.at(n)
    root = expansion.a**2 + 4 * expansion.b * allowed
    star = float(criterion.draws_needed(expansion, allowed)) if root >= 0 else None
    low, high = np.quantile(found.resampled, [0.025, 0.975], axis=0)
    order = np.argsort(-found.leverage, kind="stable")
    return {
        "n": n, "p": found.p, "t0": found.t0, "b": found.b,
        "t0_interval": [low[0], high[0]], "b_interval": [low[1], high[1]],
        "resamples_with_a_fit": len(found.resampled),
        "allowed_risk": allowed, "risk_first": first, "risk_second": second,
        "n_star_first": float(criterion.draws_needed_first(expansion, allowed)), "n_star_second": star,
        "accept_first": bool(first <= allowed), "accept_second": bool(second <= allowed),
        "rows": [{"line": found.first[i], "count": int(found.times[i]), "values": found.words[i],
                  "leverage": float(found.leverage[i]),
                  "share": float(found.leverage[i] * found.times[i] / (found.leverage @ found.times))}
                 for i in order[:200]],
    }  # fmt: skip


# -- the normal model --------------------------------------------------------------------------------------------------


def _normal(path: Path, rows: Table, resamples: int, key: Array) -> Estimated:
    given = numbers(path, rows)
    n, d = given.shape
    if d > WIDEST:
        raise ValueError(f"columns: {d}; a normal model can have at most {WIDEST} (--columns picks some)")
    if n < d + 2:
        raise ValueError(f"{path}: {n} rows; a normal model of {d} columns needs at least {d + 2}")
    spread = given.std(axis=0)
    x = jnp.asarray((given - given.mean(axis=0)) / np.where(spread > 0, spread, 1))  # units do not matter; digits do
    z = gaussian.whitened(x)

    def of(weights: Array) -> Array:
        found = gaussian.terms(gaussian.moments(gaussian.whitened(x, weights), weights), d)
        return jnp.stack([found.t0, terms.risk(found).b])

    t0, b = np.asarray(jax.jit(of)(jnp.ones(n, x.dtype)))
    drawn = jax.jit(partial(_resampled, of, n=n, resamples=resamples))(key, jnp.full(n, 1 / n, x.dtype))
    words = [", ".join(row) for row in rows.cells]
    return Estimated(int(gaussian.parameters(d)), float(t0), float(b), _finite(drawn),
                     np.asarray(gaussian.leverage(z)), np.ones(n), rows.line, words)  # fmt: skip


def _resampled(of: Callable[[Array], Array], key: Array, law: Array, *, n: int, resamples: int) -> Array:
    """``of`` the weights of each resampled table: how often each row or cell (K,) is drawn, n in all."""
    ends = jnp.cumsum(law)

    def one(key: Array) -> Array:
        drawn = jnp.searchsorted(ends, jax.random.uniform(key, (n,), law.dtype) * ends[-1], side="right")
        return of(jnp.zeros_like(law).at[drawn].add(1.0))

    return jax.lax.map(one, jax.random.split(key, resamples))


def _finite(drawn: Any) -> np.ndarray:
    kept = np.asarray(drawn)[np.all(np.isfinite(np.asarray(drawn)), axis=1)]
    if len(kept) < 10:
        raise ValueError(f"data: of {len(drawn)} resampled tables only {len(kept)} have a fit; too few rows for this "
                         "model, or too many rare values")  # fmt: skip
    return kept


# -- models of categories ----------------------------------------------------------------------------------------------


def _alphabet(rows: Table, given: User) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Statistics (K, p) of every possible row, the place (n,) of each row among them, and the words of each."""
    names, places = levels(rows)
    if given.model == "softmax":
        if len(names) != 1:
            raise ValueError(f"columns: {', '.join(rows.columns)!r:.200}; --model softmax takes one (--columns NAME)")
        if not 1 <= given.features < len(names[0]):
            raise ValueError(f"features = {given.features}: must be from 1 to {len(names[0]) - 1}: "
                             f"{rows.columns[0]} has {len(names[0])} values")  # fmt: skip
        return np.asarray(finite.cosines(len(names[0]), given.features)), places[:, 0], names[0]
    sizes = [len(known) for known in names]
    main = [size - 1 for size in sizes]
    p = sum(main) + sum(a * b for a, b in combinations(main, 2))
    cells = int(np.prod(sizes, dtype=float))
    if cells * p**2 > ROOM:
        given_sizes = ", ".join(f"{c} ({size} values)" for c, size in zip(rows.columns, sizes, strict=True))
        raise ValueError(f"columns: {given_sizes:.300}: {cells:,} cells and {p:,} parameters are too many; cells * "
                         f"parameters^2 must be at most {ROOM:,} (--columns picks some)")  # fmt: skip
    grid = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), axis=-1).reshape(-1, len(sizes))
    one_hot = [(grid[:, [k]] == np.arange(1, size)[None, :]).astype(float) for k, size in enumerate(sizes)]
    pairs = [(a[:, :, None] * b[:, None, :]).reshape(len(grid), -1) for a, b in combinations(one_hot, 2)]
    words = [", ".join(names[k][v] for k, v in enumerate(cell)) for cell in grid]
    return np.concatenate(one_hot + pairs, axis=1), np.ravel_multi_index(tuple(places.T), tuple(sizes)), words


def _categories(
    rows: Table, features: np.ndarray, places: np.ndarray, words: list[str], resamples: int, key: Array
) -> Estimated:
    n, x = len(rows), jnp.asarray(features)
    counts = np.bincount(places, minlength=len(features))

    @jax.jit
    def whole_fit(weights: Array) -> tuple[Array, Array, Array]:
        share = weights / jnp.sum(weights)
        fit = finite.project(x, share)
        model = jnp.exp(finite.log_law(x, fit.theta))
        found = finite.terms_at(x, model, share)
        centred = x - (model @ x)[None, :]
        white = terms.whiten(centred, (centred * model[:, None]).T @ centred)
        of = jnp.where(fit.exists, jnp.stack([found.t0, terms.risk(found).b]), jnp.nan)
        return of, fit.exists, jnp.sum(white**2, axis=1)

    of, exists, leverage = whole_fit(jnp.asarray(counts, x.dtype))
    if not exists:
        never = [words[k] for k in np.flatnonzero(counts == 0)[:3]]
        raise ValueError(f"data: no fit exists to these {n} rows: some combination of values that the model needs "
                         f"never occurs, among them {'; '.join(never)!r:.200}; use fewer columns, or merge rare "
                         "values")  # fmt: skip
    law = jnp.asarray(counts / n, x.dtype)
    drawn = jax.jit(partial(_resampled, lambda w: whole_fit(w)[0], n=n, resamples=resamples))(key, law)
    seen, first = np.unique(places, return_index=True)
    return Estimated(
        features.shape[1], float(of[0]), float(of[1]), _finite(drawn), np.asarray(leverage)[seen], counts[seen],
        [rows.line[i] for i in first], [words[k] for k in seen],
    )  # fmt: skip


# -- what is shown -----------------------------------------------------------------------------------------------------


def table(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows that pull the fit most."""
    return [
        {"line": row["line"], "rows alike": row["count"], "values": f"{row['values']:.60}",
         "leverage": float(f"{row['leverage']:.3g}"), "share of t0": f"{row['share']:.1%}"}
        for row in record["rows"][:SHOWN]
    ]  # fmt: skip


def notes(record: Mapping[str, Any]) -> list[str]:
    """What the numbers mean, and how far to trust them."""
    n, p, t0, b = (record[name] for name in ("n", "p", "t0", "b"))
    (t_low, t_high), (b_low, b_high) = record["t0_interval"], record["b_interval"]
    star = record["n_star_second"]
    first, second = ("ENOUGH" if record[f"accept_{order}"] else "NOT ENOUGH" for order in ("first", "second"))
    lines = [
        f"{record['file']}: {n} rows, {record['model']} model of {', '.join(record['columns']):.200}; p = {p}. "
        f"Allowed: {record['allowed_risk']:.3g} nats (alpha = {record['alpha']:g}).",
        f"First order:  t0 = {t0:.4g} ({t_low:.4g} to {t_high:.4g}), risk {record['risk_first']:.3g}, needs "
        f"{np.ceil(record['n_star_first']):,.0f} rows: {first}.",
        f"Second order: b = {b:.4g} ({b_low:.4g} to {b_high:.4g}), risk {record['risk_second']:.3g}, needs "
        + (f"{np.ceil(star):,.0f} rows: " if star is not None else "no number of rows to this order: ") + f"{second}.",
    ]  # fmt: skip
    if n < 2 * abs(b) / t0:
        lines.append("With so few rows the second order is larger than the first: trust neither, n is too small.")
    if t0 > 2 * p:
        lines.append(f"t0 is {t0 / p:.1f} times p: the rows scatter far more than the model says (heavy tails, "
                     "clusters). The rows below show where.")  # fmt: skip
    if abs(t0 - p) < 1e-6 * p and record["model"] != "gaussian":
        lines.append("t0 is p to the last digit, as it is for every table if the model is saturated: a says nothing.")
    if record["resamples_with_a_fit"] < 0.95 * record["resamples"]:
        lines.append("Some resampled tables have no fit and were left out: the intervals flatter.")
    lines.append("This says whether the fit is close to the best law of this model, not whether that law is right.")
    return lines


def caption(record: Mapping[str, Any]) -> str:
    """The claim, and what the figure shows."""
    return (
        f"{record['file']}, {record['model']}, p = {record['p']}. Left: risk E KL(best law of the model || fit) as a/n "
        "(C3) and with b/n^2, at other numbers of rows; dots: yours; dotted: 8 alpha^2 (C8). Right: what single rows "
        "add to t0, the mean of all leverages."
    )


def figure(record: Mapping[str, Any]) -> Figure:
    """The estimated risk over n, and the leverage of the rows."""
    drawn, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.4))
    n, a, b = record["n"], record["t0"] / 2, record["b"]
    stars = [record["n_star_first"], record["n_star_second"] or n, n]
    x = np.geomspace(min(stars) / 2.5, max(stars) * 2.5, 200)
    both = a / x + b / x**2
    left.plot(x, a / x, color=BLUE, ls="--", label="a/n")
    left.plot(x[both > 0], both[both > 0], color=RED, ls="-", label=r"$a/n + b/n^2$")
    left.axhline(record["allowed_risk"], color="black", ls=":", lw=1.2)
    left.plot(n, record["risk_first"], marker="o", color=BLUE)
    left.plot(n, record["risk_second"], marker="s", color=RED)
    left.set(xscale="log", yscale="log", xlabel="rows n", ylabel="risk (nats)", title="yours, and with other n")
    for axis in (left.xaxis, left.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    left.legend(loc="upper right")
    rows = record["rows"]
    height = np.array([row["leverage"] for row in rows])
    right.plot(np.arange(1, len(rows) + 1), height, marker="o", ls="", ms=3.5, color=BLUE)
    right.axhline(record["t0"], color="black", ls="--", lw=1)
    right.annotate("mean: t0", (len(rows), record["t0"]), (0, 4), textcoords="offset points", fontsize=8, ha="right")
    for k, row in enumerate(rows[:3]):
        right.annotate(f"line {row['line']}", (k + 1, height[k]), (6, 0), textcoords="offset points", fontsize=7.5,
                       va="center")  # fmt: skip
    right.set(xlabel="row or group of like rows, by rank", ylabel="leverage", ylim=(0, 1.1 * height.max()),
              title="who pulls the fit")  # fmt: skip
    return drawn

"""Your own classifier: how far from calibrated is it, and which map of its probabilities mends that?

``--logits FILE``: an .npz file with ``logits`` (N, C), or ``probs``, and ``labels``; or a .csv file with the columns
logit0, logit1 ... (or prob0 ...) and label. A share of the rows, drawn by --seed, fits every recalibrator, and the
others judge it: a table of metrics with bootstrap intervals, a reliability diagram, and every fitted map as
``map_NAME.npz``. ``--apply map_NAME.npz`` applies such a map to the rows of --logits, which need no labels, and writes
them to ``recalibrated.csv``. ``--logits example`` reads the file beside this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax import Array
from matplotlib.figure import Figure

from experiments import _terminal
from experiments.h_calibration._data import Predictions, read
from experiments.h_calibration._digits import EXAMPLE
from experiments.harness import Report, knob
from sandbox import calibration
from sandbox.calibration import (
    HLoss,
    Isotonic,
    MatrixScaling,
    Mixture,
    MonotoneNetwork,
    Piecewise,
    Temperature,
    VectorScaling,
    brier,
    nll,
)
from sandbox.validate import in_range, one_of, whole

OBJECTIVES = ("nll", "brier", *calibration.SUBSETS)
MAPS = (Temperature(), Mixture(), Piecewise(), MonotoneNetwork(), VectorScaling(), MatrixScaling(), Isotonic())
COLUMNS = ("NLL", "Brier", "ECE_ew", "dECE", "KS", "CWECE_a")  # of the printed table; all are in numbers.json
BEFORE, AFTER = "#D55E00", "#0072B2"
DIAGRAM = 15  # bins of equal mass


@dataclass(frozen=True)
class User:
    """Your own data, and how to look at it."""

    logits: Path | None = knob(
        None, "your predictions: .npz (logits or probs, labels) or .csv (logit0 ..., label); or: example"
    )
    share: float = knob(0.5, "share of the rows that the maps are fitted to; the others judge them")
    objective: str = knob("nll", f"what the maps minimise: {', '.join(OBJECTIVES)}; the last three are h-calibration's")
    weighting: str = knob("unweighted", f"weighting of its loss: {', '.join(calibration.WEIGHTINGS)}")
    resamples: int = knob(100, "bootstrap resamples of the intervals")
    apply: Path | None = knob(None, "a fitted map, map_NAME.npz: apply it to all rows and fit nothing")


def report(setup: Any, given: User, key: Array) -> Report:
    """Metrics before and after every recalibrator, the diagram, the maps; or, with --apply, recalibrated rows.

    Raises ValueError for data or a flag that cannot be used.
    """
    if given.logits is None:
        raise ValueError("logits: missing; give a file, or: example")
    path = EXAMPLE if str(given.logits) == "example" and not given.logits.exists() else given.logits
    if given.apply is not None:
        return applied(read(path, need_labels=False), given.apply, path.name)
    in_range("share", given.share, 0.05, 0.95)
    one_of("objective", given.objective, OBJECTIVES)
    one_of("weighting", given.weighting, calibration.WEIGHTINGS)
    whole("resamples", given.resamples, 2)
    data = read(path)
    fitted, halves = fits(data, setup, given, key)
    record = diagnosis(fitted, halves, given, jax.random.fold_in(key, 1)) | {"file": path.name}
    out = _terminal.console()
    for line in notes(record):
        out.print(line, markup=False, highlight=False)
    files = [(f"map_{name}.npz", _saver(one)) for name, one in fitted.items()]
    best = fitted[record["best"]]
    return Report(record, table(record), [("user", figure(record, halves[1], best), caption(record))], files)


def _saver(fitted: calibration.Fitted) -> Any:
    def write(path: Path) -> None:
        with open(path, "wb") as file:
            calibration.save(file, fitted)

    return write


Rows = tuple[Array, Array]


def fits(
    data: Predictions, setup: Any, given: User, key: Array
) -> tuple[dict[str, calibration.Fitted], tuple[Rows, Rows]]:
    """Every recalibrator, fitted to one part of the rows; that part and the other. Isotonic maps minimise Brier."""
    assert data.labels is not None
    rows = np.asarray(jax.random.permutation(key, len(data.labels)))
    cut = round(given.share * len(rows))
    parts = [(jnp.asarray(data.logits[part]), jnp.asarray(data.labels[part])) for part in (rows[:cut], rows[cut:])]
    for name, (_, labels) in zip(("fit", "judge"), parts, strict=True):
        if len(set(np.asarray(labels).tolist())) < 2:
            raise ValueError(
                f"share = {given.share}: of {len(rows)} rows the {len(labels)} that {name} are of one class"
            )
    simple = {"nll": nll, "brier": brier}
    window = min(setup.fit_window, 2 * (parts[0][0].size // 8) + 1)  # a quarter of the events at most
    of_windows = HLoss(window=window, subsets=given.objective, weighting=given.weighting)
    objective = simple.get(given.objective, of_windows)
    found = {}
    for one in MAPS:
        closed_form = isinstance(one, Isotonic)
        found[one.name] = calibration.fit(one, *parts[0], brier if closed_form else objective, key=key,
                                          steps=setup.steps, learning_rate=setup.learning_rate)  # fmt: skip
    return found, (parts[0], parts[1])


def diagnosis(
    fitted: Mapping[str, calibration.Fitted], halves: tuple[Rows, Rows], given: User, key: Array
) -> dict[str, Any]:
    """The record: every metric on the rows that judge, before and after, with intervals."""
    logits, labels = halves[1]
    before = jax.nn.log_softmax(logits)
    predicted = {"before": before, **{name: one(logits) for name, one in fitted.items()}}
    found = {name: calibration.bootstrap(key, x, labels, resamples=given.resamples) for name, x in predicted.items()}
    values = {name: {metric: float(x.value) for metric, x in of.items()} for name, of in found.items()}
    ends = {name: {metric: [float(x.low), float(x.high)] for metric, x in of.items()} for name, of in found.items()}
    accuracy = {name: float(jnp.mean(jnp.argmax(x, axis=1) == labels)) for name, x in predicted.items()}
    after = {name: of for name, of in values.items() if name != "before"}
    return {
        "rows": int(labels.size + halves[0][1].size),
        "fitted_to": int(halves[0][1].size),
        "classes": int(logits.shape[1]),
        "objective": given.objective,
        "before": values["before"],
        "after": after,
        "intervals": ends,
        "accuracy": accuracy,
        "best": min(after, key=lambda name: after[name]["NLL"]),
    }


def applied(data: Predictions, file: Path, name: str) -> Report:
    """Recalibrated probabilities of all rows, by a map that was saved."""
    found = calibration.load(file)
    _fits_the_classes(found, data.logits.shape[1], file)
    probs = np.exp(np.asarray(found(data.logits)))
    header = ",".join(f"prob{k}" for k in range(probs.shape[1]))

    def write(path: Path) -> None:
        np.savetxt(path, probs, fmt="%.9g", delimiter=",", header=header, comments="")

    record = {"file": name, "rows": len(probs), "classes": probs.shape[1], "map": found.map.name}
    return Report(record, [record], files=[("recalibrated.csv", write)])


def _fits_the_classes(found: calibration.Fitted, classes: int, file: Path) -> None:
    of_classes = {"scale": 1, "shift": 1, "knots": 2}
    for name, x in found.params.items():
        if name in of_classes and len(x) != classes:
            raise ValueError(f"apply = {file}: a map of {len(x)} classes, the rows have {classes}")


# -- what is shown -----------------------------------------------------------------------------------------------------


def table(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a recalibrator: metrics with their intervals."""
    rows = []
    for name, values in {"before": record["before"], **record["after"]}.items():
        ends = record["intervals"][name]
        cells = {metric: f"{values[metric]:.4f}\n{ends[metric][0]:.4f} {ends[metric][1]:.4f}" for metric in COLUMNS}
        rows.append({"map": name, **cells, "accuracy": f"{record['accuracy'][name]:.4f}"})
    return rows


def notes(record: Mapping[str, Any]) -> list[str]:
    """What the numbers are, and how far to trust them."""
    judged = record["rows"] - record["fitted_to"]
    best = record["best"]
    moved = [name for name, x in record["accuracy"].items() if x != record["accuracy"]["before"]]
    return [
        f"{record['file']}: {record['rows']} rows of {record['classes']} classes; maps fitted to "
        f"{record['fitted_to']} by {record['objective']} (isotonic ones by least "
        f"squares), judged by the other {judged}. Below a value its 95% "
        "bootstrap interval; all metrics are in numbers.json.",
        f"Lowest NLL: {best}. Chosen on the rows that judge, its advantage over the next is a little too good."
        + (f" Accuracy moved under: {', '.join(moved)}; the others keep the order of the classes." if moved else ""),
    ]


def caption(record: Mapping[str, Any]) -> str:
    """What the figure shows."""
    return (
        f"{record['file']}: the largest probability of each of {record['rows'] - record['fitted_to']} held-out rows, "
        f"in {DIAGRAM} bins of equal mass, against the share that is right; bars: two standard errors. After: the map "
        f"of the lowest NLL, {record['best']}, fitted to the other {record['fitted_to']} rows."
    )


def figure(record: Mapping[str, Any], rows: Rows, best: calibration.Fitted) -> Figure:
    """Reliability before and after, and where the confidences lie."""
    logits, labels = rows
    drawn, axes = plt.subplots(2, 2, figsize=(7.4, 4.4), sharex=True, height_ratios=(3, 1), sharey="row")
    looks = (("before", logits, BEFORE, "o"), (record["best"], best(logits), AFTER, "s"))
    for (name, x, colour, marker), (above, below) in zip(looks, axes.T, strict=True):
        predicted = jax.nn.log_softmax(x)
        conf, acc, mass = reliability(predicted, labels)
        error = 2 * np.sqrt(acc * (1 - acc) / mass)
        above.plot([0, 1], [0, 1], color="0.5", ls=":", lw=1)
        above.errorbar(conf, acc, yerr=error, ls="-", lw=1, marker=marker, ms=4.5, color=colour, capsize=2)
        values = record["before"] if name == "before" else record["after"][name]
        above.text(0.04, 0.95, f"ECE {values['ECE_ew']:.4f}\ndebiased {values['dECE']:.4f}", va="top", fontsize=8,
                   transform=above.transAxes)  # fmt: skip
        above.set(title=name, ylim=(0, 1.02))
        below.hist(np.exp(np.asarray(jnp.max(predicted, axis=1))), bins=np.linspace(0, 1, 31), color=colour, alpha=0.7)
        below.set(xlabel="largest probability", xlim=(0, 1))
    axes[0, 0].set_ylabel("share that is right")
    axes[1, 0].set_ylabel("rows")
    return drawn


def reliability(log_probs: Array, labels: Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, accuracy and rows of each bin that has any."""
    top = calibration.top_label(log_probs, labels, jnp.ones(labels.size, log_probs.dtype))
    edges = calibration.equal_mass_edges(top.conf, top.weights, DIAGRAM)
    columns = jnp.stack([top.conf, top.acc, top.weights], axis=1)
    conf, acc, mass = np.asarray(calibration.bin_sums(calibration.bin_index(top.conf, edges), columns, DIAGRAM)).T
    full = mass > 0
    return conf[full] / mass[full], acc[full] / mass[full], mass[full]

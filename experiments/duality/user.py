"""Your own utilities: which law of the data lies behind them?

``--utilities FILE.npz`` reads the arrays ``u0`` and ``uT`` (rows, outputs), utilities (logits, nats) of each context
before and after training; ``eta``, the step size, and ``steps``, the number of steps, one number each or one a row;
and, optional, ``weights`` (rows,), the share that each context has in a step (1 if it is not given). Each row is read
as a table that followed full-batch maximum likelihood, u + eta weight (q - softmax(u)), and q is found from the end
points (residual inversion, ours). ``--utilities example`` makes arrays of which two rows are misreported.

Rows are flagged whose q leaves the simplex, that no q explains, or whose utilities were shifted. Nothing is clipped.
All inverted probabilities are in inverted.npz beside the figure (``inverted``: rows, outputs; ``flagged``: rows), and
to six digits in numbers.json. With shared parameters, single draws in place of full batches, momentum or Adam the
assumption is wrong, and q is a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax import Array
from matplotlib.figure import Figure

from experiments import _terminal
from experiments._npz import read_npz
from experiments.harness import Report, knob
from sandbox import utility
from sandbox.validate import finite, positive, require

NEEDED, OPTIONAL = ("u0", "uT", "eta", "steps"), "weights"
SHOWN = 20  # rows of the table
LONGEST = 100_000  # steps that are simulated
OUTSIDE = 1e-4  # a probability this far from [0, 1] leaves the simplex: beyond rounding in float32
FOUND = 1e-3  # nats: a run that misses the end by more was not found
BLUE, RED = "#0072B2", "#D55E00"


@dataclass(frozen=True)
class User:
    """Your own data."""

    utilities: Path | None = knob(
        None, ".npz with the arrays u0, uT, eta, steps and perhaps weights, utilities before and after training, one "
        "row a context; or: example"
    )  # fmt: skip


def report(setup: Any, given: User, key: Array) -> Report:
    """The inverted laws, the rows that are flagged, and the figure; what they mean is printed before them.

    Raises ValueError for data that cannot be used.
    """
    del setup, key  # nothing is drawn, no number is needed
    record = diagnosis(given)
    out = _terminal.console()
    for line in notes(record):
        out.print(line, markup=False, highlight=False)
    return Report(
        record, table(record), [("user", figure(record), caption(record))], [("inverted.npz", _saver(record))]
    )


def _saver(record: Mapping[str, Any]) -> Callable[[Path], None]:
    laws = np.array([row["inverted"] for row in record["rows"]])
    flagged = np.array([bool(row["flags"]) for row in record["rows"]])
    return lambda path: np.savez(path, inverted=laws, flagged=flagged)


def example() -> dict[str, np.ndarray]:
    """Twelve rows of five outputs after 6 steps; the steps of row 11 and the utilities of row 12 are misreported."""
    law = 0.55 ** (np.arange(5)[None, :] + 0.15 * np.arange(12)[:, None] * (np.arange(5)[None, :] % 2))
    law = law / law.sum(axis=1, keepdims=True)
    start = 0.3 * np.cos(np.arange(60.0)).reshape(12, 5)
    steps = np.full(12, 6)
    end = start.copy()
    for _ in range(6):
        p = np.exp(end)
        end = end + law - p / p.sum(axis=1, keepdims=True)
    steps[10], end[11] = 2, end[11] + 0.7
    return {"u0": start, "uT": end, "eta": np.array(1.0), "steps": steps}


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file, one number a row: u0 and uT (rows, outputs), eta, steps and weights (rows,).

    Raises ValueError for an array that is missing, unknown, of another shape, not finite, or out of range.
    """
    arrays = example() if str(path) == "example" and not path.exists() else read_npz(path)
    unknown = sorted(set(arrays) - {*NEEDED, OPTIONAL})
    missing = [name for name in NEEDED if name not in arrays]
    if unknown or missing:
        wrong = [f"no array {', '.join(missing)}"] * bool(missing) + [f"unknown: {', '.join(unknown)}"] * bool(unknown)
        raise ValueError(f"{path}: {'; '.join(wrong)}; it must hold {', '.join(NEEDED)}, and may hold {OPTIONAL}")
    start, end = (np.atleast_2d(arrays[name]) for name in ("u0", "uT"))
    if start.ndim != 2 or start.shape != end.shape or not start.size or start.shape[1] < 2:
        shapes = f"u0 {arrays['u0'].shape}, uT {arrays['uT'].shape}"
        raise ValueError(f"{path}: {shapes}: must both be (rows, outputs), of at least one row and two outputs")
    rows = {"weights": np.ones(()), **{name: arrays[name] for name in ("eta", "steps", OPTIONAL) if name in arrays}}
    for name, array in rows.items():
        if array.shape not in ((), (1,), start.shape[:1]):
            raise ValueError(
                f"{path}: {name} has shape {array.shape}: must be one number, or {start.shape[:1]}, one a row"
            )
    for name in ("u0", "uT"):
        finite(name, arrays[name])
    positive("eta", rows["eta"])
    positive("weights", rows["weights"])
    require("steps", rows["steps"], lambda n: (n >= 1) & (n == np.floor(n)) & (n <= LONGEST),
            f"a whole number from 1 to {LONGEST}")  # fmt: skip
    spread = {name: np.broadcast_to(array, start.shape[:1]) for name, array in rows.items()}
    return {"u0": start, "uT": end, **spread}


@jax.jit
def _inverted(start: Array, end: Array, eta: Array, steps: Array) -> utility.EndPoint:
    return jax.vmap(partial(utility.from_end_points, rounds=60))(start, end, eta, steps)


def diagnosis(given: User) -> dict[str, Any]:
    """The record of the user's rows; errors as ``report``."""
    if given.utilities is None:
        raise ValueError("utilities: missing; give a file, or: example")
    arrays = read(given.utilities)
    dtype = jnp.result_type(float)
    start, end, eta = (jnp.asarray(x, dtype) for x in (arrays["u0"], arrays["uT"], arrays["eta"] * arrays["weights"]))
    found = _inverted(start, end, eta, jnp.asarray(arrays["steps"].astype(int)))
    law, miss = np.asarray(found.q), np.asarray(found.miss)
    last = np.asarray(jax.nn.softmax(end))
    shift = np.mean(arrays["uT"] - arrays["u0"], axis=1)
    scale = 1 + np.abs(arrays["uT"] - arrays["u0"]).max(axis=1)
    rows = []
    for k in range(len(law)):
        flags = ["leaves the simplex"] * bool(np.any((law[k] < -OUTSIDE) | (law[k] > 1 + OUTSIDE)))
        flags += ["no law found"] * bool(not miss[k] <= FOUND)
        flags += ["shifted"] * bool(abs(shift[k]) > 1e-3 * scale[k])
        rows.append({
            "row": k + 1, "inverted": law[k].tolist(), "softmax": last[k].tolist(), "miss": float(miss[k]),
            "shift": float(shift[k]), "apart": float(np.abs(law[k] - last[k]).sum() / 2), "flags": flags,
        })  # fmt: skip
    return {"file": given.utilities.name, "rows": rows, "outputs": law.shape[1],
            "flagged": [row["row"] for row in rows if row["flags"]]}  # fmt: skip


# -- what is shown -----------------------------------------------------------------------------------------------------


def table(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The flagged rows first, then those in which the two readings differ most."""
    ranked = sorted(record["rows"], key=lambda row: (not row["flags"], -row["apart"]))
    shown = []
    for row in ranked[:SHOWN]:
        top = int(np.argmax(row["inverted"]))
        shown.append({
            "row": row["row"], "top output": top, "softmax": float(f"{row['softmax'][top]:.3g}"),
            "inverted": float(f"{row['inverted'][top]:.3g}"), "smallest": float(f"{min(row['inverted']):.2g}"),
            "apart": float(f"{row['apart']:.3g}"), "flag": ", ".join(row["flags"]),
        })  # fmt: skip
    return shown


def notes(record: Mapping[str, Any]) -> list[str]:
    """What the numbers mean, and how far to trust them."""
    rows = record["rows"]
    good = [row["apart"] for row in rows if not row["flags"]]
    apart = (
        f" In the others softmax and inverted law are {np.mean(good):.3g} apart in the mean (total variation, 0 to 1)."
    )
    lines = [
        f"{record['file']}: {len(rows)} rows of {record['outputs']} outputs; {len(record['flagged'])} flagged."
        + (apart if good else "")
    ]
    said = {flag for row in rows for flag in row["flags"]}
    if "leaves the simplex" in said:
        lines.append("Leaves the simplex: eta, steps, u0 or weights are not those of the run, or it was no table under "
                     "full batches.")  # fmt: skip
    if "no law found" in said:
        lines.append("No law found: no run of that many steps of that size leads from u0 to uT.")
    if "shifted" in said:
        lines.append(
            "Shifted: a constant was added to the utilities, or weight decay acted; the constant was taken out."
        )
    if len(rows) > SHOWN:
        lines.append(f"{SHOWN} of {len(rows)} rows; all are in numbers.json.")
    return lines


def caption(record: Mapping[str, Any]) -> str:
    """The claim, and what the figure shows."""
    return (
        f"{record['file']}: {len(record['rows'])} rows. Left: every probability, read as softmax(u_T) and by residual "
        "inversion (ours) from the end points (C7, C8); on the line they agree. Right: how far apart the two laws are, "
        "row by row. Triangles: flagged rows."
    )


def figure(record: Mapping[str, Any]) -> Figure:
    """Softmax against inverted probabilities, and their distance row by row."""
    drawn, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.4))
    flagged = np.array([bool(row["flags"]) for row in record["rows"]])
    law, last = (np.array([row[name] for row in record["rows"]]) for name in ("inverted", "softmax"))
    apart, number = (np.array([row[name] for row in record["rows"]]) for name in ("apart", "row"))
    for here, colour, marker, words in ((~flagged, BLUE, "o", "read"), (flagged, RED, "^", "flagged")):
        if here.any():
            left.plot(last[here].ravel(), law[here].ravel(), ls="", marker=marker, color=colour, ms=5, mew=0, alpha=0.8)
            right.plot(number[here], apart[here], ls="", marker=marker, color=colour, ms=5, mew=0, label=words)
    left.plot([0, 1], [0, 1], color="black", ls="-", lw=1)
    left.axhline(0, color="0.5", ls=":", lw=1)
    left.axhline(1, color="0.5", ls=":", lw=1)
    left.set(xlabel="softmax(u_T)", ylabel="inverted probability", xlim=(0, 1), title="every output")
    right.legend(loc="best")
    right.set(xlabel="row", ylabel="total variation (0 to 1)", ylim=(0, None), title="how far apart")
    return drawn

"""Your own model: what would pushing these rejected tokens down feed, and who would pay?

``--logits FILE.npz`` reads the arrays ``logits`` (tokens, vocabulary), the model's logits where each rejected token was
to be predicted, and ``rejected`` (tokens,), the ids of those tokens. For each token: the threshold above which others
rise in a step of ``--impulse`` nats (learning rate x weight of the loss x squared norm of the features), who they are,
whether the majority rule says that one alone rises, which token receives most, and how much of that the rejected token
gives up and how much innocent ones pay. Fine-tuning on the rejected tokens first ("extend") is advised where theta =
|p|^2 - p_rejected > 0: there pushing down lowers innocent tokens however small the step. ``sft_time``, in learning rate
x squared norm x steps, is how long until theta is 0. ``--logits example`` reads logits that are made up.

Read a position at a time: what a step on one position does to another is not in the logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from experiments._npz import read_npz
from experiments.harness import Report, knob
from experiments.squeezing.setup import Setup
from sandbox import squeezing
from sandbox.validate import finite

NEEDED = ("logits", "rejected")
SHOWN = 20  # rows of the table
NAMED = 10  # winners that are named
CHUNK = 1 << 21  # numbers that are looked at at once
BLUE, RED = "#0072B2", "#D55E00"


@dataclass(frozen=True)
class User:
    """Your own data."""

    logits: Path | None = knob(
        None, ".npz with logits (tokens x vocabulary) and rejected (the ids of the rejected tokens); or: example"
    )


def report(setup: Any, given: User, key: Array) -> Report:
    """What a step would do at each token, and the figure. Raises ValueError for data that cannot be used."""
    del key  # nothing is drawn
    record = diagnosis(setup, given)
    out = _terminal.console()
    for line in notes(record):
        out.print(line, markup=False, highlight=False)
    return Report(record, table(record), _drawings(record))


def _drawings(record: Mapping[str, Any]) -> Iterator[tuple[str, Figure, str]]:
    yield "user", figure(record), caption(record)  # drawn when it is asked for, in the style that is then in force


def example() -> dict[str, np.ndarray]:
    """Twelve tokens of a vocabulary of fifty: the sharper the row, the rarer the token that was rejected there."""
    wave = np.cos(1.7 * np.arange(50)[None, :] + np.arange(12)[:, None])
    logits = np.linspace(0.2, 7, 12)[:, None] * wave
    order = np.argsort(-logits, axis=1)
    rank = np.array([10, 0, 3, 0, 5, 12, 1, 8, 20, 15, 30, 45])
    return {"logits": logits, "rejected": order[np.arange(12), rank]}


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Logits (tokens, vocabulary) and rejected ids (tokens,). Raises ValueError for what cannot be used, by name."""
    arrays = example() if str(path) == "example" and not path.exists() else read_npz(path)
    unknown = sorted(set(arrays) - {*NEEDED})
    missing = [name for name in NEEDED if name not in arrays]
    if unknown or missing:
        wrong = [f"no array {', '.join(missing)}"] * bool(missing) + [f"unknown: {', '.join(unknown)}"] * bool(unknown)
        raise ValueError(f"{path}: {'; '.join(wrong)}; it must hold {' and '.join(NEEDED)}")
    logits, rejected = arrays["logits"], arrays["rejected"]
    if logits.ndim != 2 or not logits.shape[0] or logits.shape[1] < 3:
        raise ValueError(
            f"{path}: logits {logits.shape}: must be (tokens, vocabulary), of at least one token and a vocabulary of 3"
        )
    if rejected.shape != logits.shape[:1]:
        raise ValueError(f"{path}: rejected {rejected.shape}: must be {logits.shape[:1]}, one id a row of logits")
    finite("logits", logits)
    bad = np.flatnonzero(~((rejected >= 0) & (rejected < logits.shape[1]) & (rejected == np.floor(rejected))))
    if bad.size:
        raise ValueError(
            f"{path}: rejected[{bad[0]}] = {rejected[bad[0]]:g}: must be a whole number from 0 to "
            f"{logits.shape[1] - 1}, an id of the vocabulary ({bad.size} of {rejected.size} are not)"
        )
    return logits, rejected.astype(int)


@jax.jit
def _look(logits: Array, rejected: Array, impulse: Any) -> tuple[squeezing.Squeeze, Array, Array, Array]:
    """A chunk of rows: the step, the ids of the likeliest others, how many rise, and the time of fine-tuning."""
    found = squeezing.squeeze(logits, rejected, impulse)
    named = min(NAMED, logits.shape[1])
    p = jax.nn.softmax(logits)
    _, ids = jax.lax.top_k(jnp.where(found.rises, p, -1), named)
    times = jax.lax.map(lambda row: squeezing.time_to_flat(*row), (p, rejected))
    return found._replace(rises=jnp.zeros(())), ids, jnp.sum(found.rises, axis=1), times


def diagnosis(setup: Setup, given: User) -> dict[str, Any]:
    """The record of the user's tokens; errors as ``report``."""
    if given.logits is None:
        raise ValueError("logits: missing; give a file, or: example")
    logits, rejected = read(given.logits)
    count, size = logits.shape
    chunk = min(count, max(1, CHUNK // size))
    rows: list[dict[str, Any]] = []
    for begin in range(0, count, chunk):
        at = np.minimum(np.arange(begin, begin + chunk), count - 1)  # the last chunk is filled up with its last row
        values = jnp.asarray(logits[at], jnp.result_type(float))
        found, ids, risers, times = _look(values, jnp.asarray(rejected[at]), setup.impulse)
        for k in range(min(chunk, count - begin)):
            one = {name: np.asarray(x)[k] for name, x in found._asdict().items() if name != "rises"}
            rows.append({
                "token": begin + k,
                "rejected": int(rejected[begin + k]),
                "probability": float(one["rejected"]),
                "threshold": float(one["threshold"]),
                "small_threshold": float(one["small_threshold"]),
                "winners": int(risers[k]),
                "winner_ids": [int(i) for i in np.asarray(ids[k])[: int(risers[k])]],
                "majority": bool(one["majority"]),
                "receiver": int(one["receiver"]),
                "gain": float(one["gain"]),
                "paid_by_rejected": float(one["paid_by_rejected"]),
                "paid_by_innocents": float(one["paid_by_innocents"]),
                "sft_advised": bool(one["small_threshold"] > 0),
                "sft_time": float(times[k]) if np.isfinite(times[k]) else None,
            })  # fmt: skip
    return {
        "file": given.logits.name,
        "tokens": count,
        "vocabulary": size,
        "impulse": float(setup.impulse),
        "sft_advised": [row["token"] for row in rows if row["sft_advised"]],
        "paid_by_rejected": float(sum(row["paid_by_rejected"] for row in rows)),
        "paid_by_innocents": float(sum(row["paid_by_innocents"] for row in rows)),
        "rows": rows,
    }


# -- what is shown -----------------------------------------------------------------------------------------------------


def table(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tokens at which innocent ones would pay most."""
    ranked = sorted(record["rows"], key=lambda row: -row["paid_by_innocents"])
    return [
        {
            "token": row["token"], "rejected id": row["rejected"], "p": float(f"{row['probability']:.3g}"),
            "threshold": float(f"{row['threshold']:.3g}"), "winners": row["winners"],
            "majority rule": "yes" if row["majority"] else "", "receiver": row["receiver"],
            "gains": float(f"{row['gain']:.3g}"), "innocents pay": float(f"{row['paid_by_innocents']:.3g}"),
            "SFT first": "yes" if row["sft_advised"] else "",
        }
        for row in ranked[:SHOWN]
    ]  # fmt: skip


def notes(record: Mapping[str, Any]) -> list[str]:
    """What the numbers mean."""
    advised, count = len(record["sft_advised"]), record["tokens"]
    culprit, innocent = record["paid_by_rejected"], record["paid_by_innocents"]
    ruled = sum(row["majority"] for row in record["rows"])
    lines = [
        f"{record['file']}: {count} tokens of a vocabulary of {record['vocabulary']}; a step of "
        f"{record['impulse']:g} nats at each.",
        f"The rejected tokens would give up {culprit:.3g} of probability in all, innocent tokens {innocent:.3g}"
        f" ({innocent / (innocent + culprit):.0%} of what the winners gain).",
        f"At {ruled} the majority rule holds: one token alone gains, whatever the impulse.",
    ]
    if advised:
        lines.append(f"SFT on the rejected tokens first is advised at {advised}: there theta > 0, innocents pay.")
    else:
        lines.append("SFT on the rejected tokens first is advised at none: small steps feed all other tokens.")
    if count > SHOWN:
        lines.append(f"{SHOWN} of {count} tokens; all are in numbers.json.")
    return lines


def caption(record: Mapping[str, Any]) -> str:
    """The claim, and what the figure shows."""
    return (
        f"{record['file']}: {record['tokens']} tokens. Left: on and above the line no other token loses in a small "
        "step (C3); triangles: SFT on the rejected first is advised. Right: who pays in a step of "
        f"{record['impulse']:g} nats."
    )


def figure(record: Mapping[str, Any]) -> Figure:
    """Probability of the rejected against the peakiness; mass paid by innocents against that paid by the rejected."""
    drawn, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.5))
    rows = record["rows"]
    p, theta, culprit, innocent = (
        np.maximum(np.array([row[name] for row in rows]), least)
        for name, least in (("probability", 1e-12), ("small_threshold", -1), ("paid_by_rejected", 1e-6),
                            ("paid_by_innocents", 1e-6))
    )  # fmt: skip
    square = theta + p
    advised = np.array([row["sft_advised"] for row in rows])
    for here, colour, marker, words in ((~advised, BLUE, "o", "no"), (advised, RED, "^", "SFT first")):
        if here.any():
            left.plot(square[here], p[here], ls="", marker=marker, color=colour, ms=5, alpha=0.8, mew=0, label=words)
            right.plot(culprit[here], innocent[here], ls="", marker=marker, color=colour, ms=5, alpha=0.8, mew=0)
    ends = np.array([square.min() / 2, 1])
    left.plot(ends, ends, color="black", ls="-", lw=1)
    left.set(xscale="log", yscale="log", xlabel=r"peakiness $|p|^2$", ylabel="probability of the rejected token",
             title="who would lose")  # fmt: skip
    left.legend(loc="lower left")
    right.plot([1e-6, 1], [1e-6, 1], color="0.5", ls=":", lw=1)
    right.set(xscale="log", yscale="log", xlabel="paid by the rejected token", ylabel="paid by innocent tokens",
              title="who pays", xlim=(culprit.min() / 3, 1.5), ylim=(innocent.min() / 3, 1.5))  # fmt: skip
    return drawn

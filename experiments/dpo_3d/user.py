"""Your own training log: does the rejected drop, is learning mere suppression, and does probability disperse?

``--log FILE.csv`` reads the columns ``step``, ``chosen`` and ``rejected``: log-probabilities of the two whole responses
in nats, of one pair or as means over pairs, by steps counted from the reference policy (any optimiser; closed forms are
those of plain gradient descent). Columns of any other name are log-probabilities of responses that nobody ranked.
``norm_chosen``, ``norm_rejected`` and ``inner`` are lengths and inner product of the gradients of the two in your own
model. ``--log example`` reads the file beside this one: gradient descent with DPO, beta = 0.1, learning rate 1, of a
log-linear policy with four responses, of which an unseen one resembles the chosen more than the chosen itself does
(score 3/2); tests/test_dpo_3d_user.py makes it again and compares.

D1 is the exponent of time with which the rejected falls, over the last decade of steps; D2 the
share of the margin gained by lowering the rejected; D3 the logarithm of the largest unseen mass over its start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array

from experiments import _terminal
from experiments.dpo_3d._fit import Fit, fit_margin
from experiments.dpo_3d._log import ROUNDING, Log, margin, read_log, safe_ratios, unseen_log_mass
from experiments.dpo_3d._log_figure import figure
from experiments.harness import Report, knob
from sandbox.measures import decay_exponent, fall_from_peak, rise_to_peak, suppression_share
from sandbox.validate import positive

EXAMPLE = Path(__file__).with_name("log.csv")


@dataclass(frozen=True)
class User:
    """Your own training log."""

    log: Path | None = knob(
        None, "CSV of a run: step, chosen, rejected; also unseen responses, norm_chosen, norm_rejected, inner; "
        "or: example"
    )  # fmt: skip
    logged_learning_rate: float | None = knob(
        None, "learning rate of that run: time is learning rate times steps; left out, the fitted rate is per step"
    )


def report(setup: Any, given: User, key: Array) -> Report:
    """The three D's with their thresholds, the fit of the margin, the figure; what they mean is printed before them.

    Raises ValueError for a log or a learning rate that cannot be used.
    """
    del setup, key  # nothing is drawn at random, and no number of the experiment enters
    record, log, fit = analysis(given)
    out = _terminal.console()
    for line in notes(record):
        out.print(line)
    return Report(record, table(record), [("user", figure(record, log, fit), caption(record))])


def analysis(given: User) -> tuple[dict[str, Any], Log, Fit]:
    """The record of the user's log, the log, and the fit; in float64 whatever the precision of the run.

    Raises ValueError as ``report``.
    """
    if given.log is None:
        raise ValueError("log: missing; it is the file to report on")
    if given.logged_learning_rate is not None:
        positive("logged_learning_rate", given.logged_learning_rate)
    path = EXAMPLE if str(given.log) == "example" and not Path("example").exists() else Path(given.log)
    log = read_log(path)
    fit = fit_margin(log.step * (given.logged_learning_rate or 1.0), margin(log))
    with jax.enable_x64(True):
        record = {
            "file": path.name,
            "rows": len(log.step),
            "steps": [float(log.step[0]), float(log.step[-1])],
            **(drop := _drop(log)),
            **_suppression(log, drop["D1"]),
            **_dispersion(log),
            "fit": {"beta": fit.beta, "rate": fit.rate, "r2": fit.r2},
            "fit_errors": None if fit.errors is None else list(fit.errors),
            "square": _square(fit) if given.logged_learning_rate is not None else None,
            "clock": fit.clock,
            **_safety(log),
        }
    unknown = {"fit": fit.word} | record.pop("no_D1") | record.pop("no_D2") | record.pop("no_D3")
    record["unknown"] = {name: word for name, word in unknown.items() if word}
    record["thresholds"] = {"D1": 1.0, "D2": [0.5, 1.0], "D2c": 0.0, "D3": record.pop("bound")}
    record["words"] = verdicts(record)
    return record, log, fit


# -- the numbers -------------------------------------------------------------------------------------------------------


def _drop(log: Log) -> dict[str, Any]:
    """D1, and whether there are rows enough for it."""
    try:
        return {"D1": float(decay_exponent(log.step, log.rejected)), "no_D1": {}}
    except ValueError:
        word = "fewer than 3 rows from a tenth of the last step on"
        return {"D1": None, "no_D1": {"D1": word, "D2_last": word}}


def _suppression(log: Log, drop: float | None) -> dict[str, Any]:
    """D2 over the whole log, D2_last over the steps of D1, D2c the chosen's fall from its peak."""
    unmoved = "the margin has not grown"
    found: dict[str, Any] = {"D2": None, "D2_last": None, "no_D2": {}}
    if margin(log)[-1] > 0:
        moved = [x[-1] - x[0] for x in (log.chosen, log.rejected)]
        found["D2"] = float(suppression_share(*moved))
    else:
        found["no_D2"]["D2"] = unmoved
    if drop is not None:
        rise = -float(decay_exponent(log.step, log.chosen))
        if rise + drop > 0:
            found["D2_last"] = float(suppression_share(rise, -drop))
        else:
            found["no_D2"]["D2_last"] = unmoved
    return {
        **found,
        "D2c": float(fall_from_peak(log.chosen)),
        "peak": float(log.step[log.chosen == log.chosen.max()][-1]),
    }


def table_bound(log_chosen: float, log_rejected: float) -> float:
    """The most that log U / U_0 reaches in a table, from the pair's log-probabilities at the start (C9); nats, >= 0."""
    if log_rejected <= log_chosen:
        return 0.0
    return float(-np.log1p(-((np.exp(log_rejected / 2) - np.exp(log_chosen / 2)) ** 2)))


def _dispersion(log: Log) -> dict[str, Any]:
    """D3, where the unseen mass ended, and the bound of a table."""
    mass, why = unseen_log_mass(log)
    if mass is None:
        return {"D3": None, "D3_end": None, "no_D3": {"D3": why}, "bound": None}
    bound = table_bound(log.chosen[0], log.rejected[0])
    return {"D3": float(rise_to_peak(mass)), "D3_end": float(mass[-1] - mass[0]), "no_D3": {}, "bound": bound}


def _safety(log: Log) -> dict[str, Any]:
    """The interval of the last row, and the steps at which one beta for both lies outside of the row's own."""
    found = safe_ratios(log)
    if found is None:
        return {"safe_ratio": None, "unsafe": None, "ratio_of_norms": None}
    low, high = found
    outside = log.step[(low >= 1) | (high <= 1)]
    assert log.products is not None
    norm_w, norm_l, _ = log.products
    return {
        "safe_ratio": [float(low[-1]), float(high[-1])],
        "unsafe": {
            "rows": len(outside),
            "chosen_falls": int(np.sum(high <= 1)),
            "steps": [float(outside[0]), float(outside[-1])] if len(outside) else None,
        },
        "ratio_of_norms": float(norm_w[-1] / norm_l[-1]),
    }


def _square(fit: Fit) -> float | None:
    """|v|^2 of a log-linear policy, from rate = beta^2 |v|^2 (C6)."""
    return None if fit.beta is None or fit.rate is None else fit.rate / fit.beta**2


# -- the words ---------------------------------------------------------------------------------------------------------


def verdicts(record: Mapping[str, Any]) -> dict[str, str]:
    """What each number says against its threshold."""
    return {
        "D1": _said(record, "D1", _drop_words),
        "D2": _said(record, "D2", lambda r: _share_words(r["D2"], "has risen", "has fallen")),
        "D2_last": _said(record, "D2_last", lambda r: _share_words(r["D2_last"], "rises", "falls")),
        "D2c": "the chosen is at its peak"
        if record["D2c"] < ROUNDING
        else f"the chosen falls from step {record['peak']:g} on, which one pair in a table never does",
        "D3": _said(record, "D3", _dispersion_words),
        "fit": record["unknown"].get("fit") or _fit_words(record),
    }


def _said(record: Mapping[str, Any], name: str, words: Any) -> str:
    return record["unknown"][name] if record[name] is None else words(record)


def _drop_words(record: Mapping[str, Any]) -> str:
    drop, clock = record["D1"], record["clock"]
    if drop < 0:
        return "the rejected rises"
    word = "drastic: faster than cross-entropy" if drop > 1 else "no faster than cross-entropy"
    if clock is not None and clock < 10:
        word += f"; too early for a power of time (rate times time is {clock:.2g}, not 10)"
    if record["steps"][0] > record["steps"][1] / 10:
        word += "; the log covers less than a decade of steps"
    return word


def _share_words(share: float, rises: str, falls: str) -> str:
    if share > 1 + ROUNDING:
        return f"suppression alone: the chosen {falls} too"
    if share < 0:
        return f"the rejected {rises} too"
    return f"the chosen {rises}, the rejected moves {'more' if share > 0.5 else 'no more'}"


def _dispersion_words(record: Mapping[str, Any]) -> str:
    most, end, bound = record["D3"], record["D3_end"], record["thresholds"]["D3"]
    if most < ROUNDING:
        return "the unseen have gained nothing"
    word = "more than a table allows: shared parameters" if most > bound + ROUNDING else "no more than a table allows"
    how = f"{end:+.3g}" if np.isfinite(end) else "nearly none is left"
    return f"{word}; {'still there' if end > ROUNDING else 'given back'} at the end ({how})"


def _fit_words(record: Mapping[str, Any]) -> str:
    r2 = record["fit"]["r2"]
    how = "follows" if r2 > 0.99 else "roughly follows" if r2 > 0.9 else "does NOT follow"
    return f"{how} the closed form"


HEADINGS = {
    "D1": "exponent of the rejected's fall",
    "D2": "share of suppression, whole log",
    "D2_last": "share of suppression, last decade",
    "D2c": "fall of the chosen (nats)",
    "D3": "rise of the unseen mass (nats)",
}


def table(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row each for the D's: number, threshold, verdict."""
    limits = record["thresholds"] | {"D2_last": record["thresholds"]["D2"]}
    return [
        {
            "": name,
            "what": what,
            "value": "unknown" if record[name] is None else _terminal.number(record[name]),
            "threshold": ", ".join(_terminal.number(x) for x in np.atleast_1d(limits[name]).tolist()),
            "verdict": record["words"][name],
        }
        for name, what in HEADINGS.items()
    ]


def notes(record: Mapping[str, Any]) -> list[str]:
    """How the margin fits, which ratio of two betas would be safe, and how far to trust the numbers."""
    first, last = record["steps"]
    lines = [f"{record['file']}: {record['rows']} rows, steps {first:g} to {last:g}."]
    if first > 0:
        lines[0] += " Steps are taken to count from the reference, but what came before the first row is not seen."
    lines.append(f"Margin: {_fit_line(record)}.")
    if record["safe_ratio"] is not None:
        low, high = record["safe_ratio"]
        unsafe, rows = record["unsafe"], record["rows"]
        where = f", first at step {unsafe['steps'][0]:g}, last at {unsafe['steps'][1]:g}" if unsafe["rows"] else ""
        lines.append(
            f"At the last row a step of gradient descent raises the chosen and lowers the rejected for beta_rejected / "
            f"beta_chosen between {low:.4g} and {high:.4g}, around the ratio of the norms, "
            f"{record['ratio_of_norms']:.4g}. One beta for both (ratio 1) lies outside in {unsafe['rows']} of {rows} "
            f"rows{where}; in {unsafe['chosen_falls']} of them the chosen falls."
        )
    return lines


def _fit_line(record: Mapping[str, Any]) -> str:
    fit, word = record["fit"], record["words"]["fit"]
    if fit["r2"] is None or fit["beta"] is None:
        return f"no beta can be told: {word}"
    beta, rate = (
        "unknown" if value is None else f"{value:.4g} ± {value * error:.1g}"
        for value, error in zip((fit["beta"], fit["rate"]), record["fit_errors"], strict=True)
    )
    line = f"{word} y(1 + rate * time) / beta with beta = {beta} per nat, rate = {rate}, r2 = {fit['r2']:.5f}"
    if record["square"] is None:
        return f"{line}; time in steps"
    return f"{line}; rate / beta^2 = {record['square']:.4g}, the squared distance of the features, 2 in a table"


def _value(record: Mapping[str, Any], name: str) -> str:
    return "" if record[name] is None else f" = {record[name]:.3g}"


def caption(record: Mapping[str, Any]) -> str:
    """The claims, and what the figure shows."""
    said = record["words"]
    words = (
        f"{record['file']}, {record['rows']} rows. Margin (C6): {_fit_line(record)}.\n"
        f"D1{_value(record, 'D1')} · {said['D1']}.\n"
        f"D2{_value(record, 'D2')} · whole log: {said['D2']}; last decade: {said['D2_last']}; {said['D2c']}.\n"
        f"D3{_value(record, 'D3')} · {said['D3']}. Dashed: thresholds."
    )
    if record["safe_ratio"] is not None:
        words += (f"\nSafe ratios (C15): shaded, where a step raises the chosen and lowers the rejected; the ratio 1 "
                  f"of plain DPO lies outside in {record['unsafe']['rows']} of {record['rows']} rows.")  # fmt: skip
    return words

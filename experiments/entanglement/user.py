"""Your own preference pairs: which of them does a loss hurt, and through which tokens?

``--pairs FILE.jsonl`` reads objects with prompt, chosen and rejected, strings or lists of messages, and trains a small
network on them; ``--pairs example`` reads the file beside this one. ``--gradients FILE.npz`` needs no network in
between: its arrays ``chosen`` and ``rejected`` (N, P) are the gradients of the two log-probabilities in your own model,
one row a pair (or sums of last hidden features, which leave out how wrong each token was). It may hold ``chosen_logp``,
``rejected_logp``, ``ref_chosen_logp`` and ``ref_rejected_logp`` (N,), token sums in nats, and ``chosen_length`` and
``rejected_length`` (N,) in tokens; a loss that cannot do without one says so. Without the first four the policy is
taken to be the reference.

What is reported is the next step of plain gradient descent, on each pair alone and on the mean over all. Its *hurt* is
the larger of the predicted fall of the chosen and the predicted rise of the rejected, on the pair alone, in nats; pairs
are sorted by it. It is negative where the chosen rises and the rejected falls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jax import Array
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import _terminal
from experiments._language import CHANGE
from experiments.entanglement import _model
from experiments.entanglement._data import lines_with_pairs, loss_named, read_gradients
from experiments.entanglement._diagnosis import Found, diagnose, from_gradients, from_text
from experiments.entanglement._model import from_model
from experiments.harness import Report, knob
from sandbox.measures import Case
from sandbox.preferences import END, TextPair, read_pairs, tokenize

EXAMPLE = Path(__file__).with_name("pairs.jsonl")
CASES = {Case.UNDEFINED: "undefined", Case.IDEAL: "ideal", Case.BOTH_FALL: "both fall", Case.BOTH_RISE: "both rise"}
SIDES = ("chosen", "rejected")
SHOWN, BARS, DETAILS, TOKENS = (
    20,
    10,
    5,
    3,
)  # rows of the table, of the figure, pairs with their tokens, tokens a response

# Colour-blind safe (Okabe and Ito), of different lightness in grey; each with a marker and a hatch of its own.
LOOKS = {"ideal": ("#0072B2", "o", ""), "both fall": ("#D55E00", "v", "////"), "both rise": ("#E69F00", "^", "....")}


@dataclass(frozen=True)
class User:
    """Your own data, and the loss to look at it with."""

    pairs: Path | None = knob(None, "preference pairs, a JSON object a line with prompt, chosen, rejected; or: example")
    gradients: Path | None = knob(
        None, ".npz with the arrays chosen and rejected, gradients of your own model, one row a pair"
    )
    model: str | None = knob(
        None, "a language model for the pairs in place of the toy: smollm2, tiny (random), or a GGUF file of your own"
    )
    template: str | None = knob(None, "the text around a prompt, with {prompt} in it, in place of the file's template")
    loss: str = knob("dpo", "the loss, by its name in sandbox.losses")
    constants: tuple[str, ...] = knob(
        (), "constants of the loss, as in: beta=0.1 gamma=0.5; those left out are those of its paper"
    )
    loss_steps: int = knob(30, "steps of the loss on all pairs before the step looked at; 0: right after fine-tuning")


def report(setup: Any, given: User, key: Array) -> Report:
    """The numbers, the table of the worst pairs and the figure; what they mean is printed before them.

    Raises ValueError for data, a loss or a constant that cannot be used.
    """
    record = diagnosis(given, key)
    out = _terminal.console()
    for line in (*details(record), *notes(record)):
        out.print(line)
    return Report(record, table(record), [("user", figure(record), caption(record))])


def diagnosis(given: User, key: Array) -> dict[str, Any]:
    """The record of the user's data, pairs sorted by how much they hurt; errors as ``report``."""
    if (given.pairs is None) == (given.gradients is None):
        raise ValueError("pairs, gradients: give one of them")
    if (given.pairs is None and (given.model or given.template)) or (given.template and not given.model):
        raise ValueError("model needs pairs, and template a model")
    if given.loss_steps < 0:
        raise ValueError(f"loss_steps = {given.loss_steps}: must be at least 0")
    loss = loss_named(given.loss, given.constants)
    if given.gradients is not None:
        chosen, rejected, pairs = read_gradients(given.gradients, loss)
        found = from_gradients(chosen, rejected, loss, pairs)
        rows: list[dict[str, Any]] = [{"id": i} for i in range(len(chosen))]
        source = {"file": given.gradients.name, "id": "row", "policy": "your own model"}
    else:
        path = EXAMPLE if str(given.pairs) == "example" and not Path("example").exists() else Path(str(given.pairs))
        if given.model is not None:
            return _in_a_model(given, path, loss, key)
        texts = read_pairs(path)
        found = from_text(texts, loss, given.loss_steps, key)
        rows = [
            {"id": line, "chosen": pair.chosen, "rejected": pair.rejected, "tokens": _tokens(pair, shares)}
            for line, pair, shares in zip(lines_with_pairs(path), texts, np.asarray(found.shares), strict=True)
        ]
        policy = f"a small network, fine-tuned on the chosen, then {given.loss_steps} steps of {given.loss}"
        source = {"file": path.name, "id": "line", "policy": policy}
    return {**source, "loss": given.loss, "constants": loss.keywords, **_numbers(rows, found)}


def _in_a_model(given: User, path: Path, loss: Any, key: Array) -> dict[str, Any]:
    made_of = f"{given.loss} {loss.keywords}"
    found, more, stand_ins = from_model(path, str(given.model), given.template, loss, made_of, given.loss_steps, key)
    rows = [
        {"id": line, "chosen": pair.chosen, "rejected": pair.rejected, **row}
        for line, pair, row in zip(lines_with_pairs(path), read_pairs(path), more, strict=True)
    ]
    policy = f"the language model {Path(str(given.model)).name}, its own reference"
    source = {"file": path.name, "id": "line", "policy": policy, "model": Path(str(given.model)).name}
    numbers = _numbers(rows, found)
    return {**source, "loss": given.loss, "constants": loss.keywords, "stand_ins": stand_ins, **numbers}


# -- the record --------------------------------------------------------------------------------------------------------


def _numbers(rows: list[dict[str, Any]], found: Found) -> dict[str, Any]:
    """Everything that was found, pairs sorted; what is unknown is None."""
    products, (d_w, d_l), alone = found.products, found.weights, found.alone
    columns = {**products._asdict(), **diagnose(products, d_w, d_l)}
    for name, both in (
        ("predicted", alone.predicted),
        ("measured", alone.measured),
        ("batch_predicted", found.batch and found.batch.predicted),
        ("batch_measured", found.batch and found.batch.measured),
        ("moved", found.moved),
        ("logp", found.log_probs),
    ):
        for k, side in enumerate(SIDES):
            columns[f"{name}_{side}"] = [None] * len(rows) if both is None else both[:, k]
    predicted = np.asarray(alone.predicted)
    rates = np.broadcast_to(np.asarray(alone.learning_rate, float), len(rows))
    common = float(rates.min())  # pairs are compared at one learning rate, whatever each was tried at
    columns["hurt"] = np.maximum(-predicted[:, 0], predicted[:, 1]) * (common / np.where(rates > 0, rates, 1))
    cases = [CASES[Case(c)] for c in columns.pop("case").tolist()]
    numbers = {name: [x if x is None else float(x) for x in column] for name, column in columns.items()}
    pairs = [
        {**row, "case": case, **{name: column[i] for name, column in numbers.items()}}
        for i, (row, case) in enumerate(zip(rows, cases, strict=True))
    ]
    for pair in pairs:
        pair["safe_ratio"] = [pair.pop("safe_low"), pair.pop("safe_high")]
    gap = None
    if alone.measured is not None:
        gaps = np.abs(np.asarray(alone.measured) - predicted)
        squared = alone.learning_rate * (np.asarray(d_w) * predicted[:, 0] - np.asarray(d_l) * predicted[:, 1])  # C4
        step = np.sqrt(np.maximum(squared, 0))
        most = step[:, None] * np.stack([products.norm_chosen, products.norm_rejected], axis=1)
        gap = {"nats": float(gaps.max()), "share": float(np.max(gaps / np.where(most > 0, most, 1)))}
    return {
        "learning_rate": common,
        "batch_learning_rate": None if found.batch is None else float(found.batch.learning_rate),
        "cases": {name: cases.count(name) for name in CASES.values()},
        "gap": gap,
        "pairs": sorted(pairs, key=lambda pair: -pair["hurt"]),
    }


def _tokens(pair: TextPair, shares: np.ndarray) -> dict[str, list[dict[str, Any]]]:
    """The tokens of either response with the largest shares (2, T) of the inner product, positive or negative."""
    found = {}
    for side, share in zip(SIDES, shares, strict=True):
        tokens = [*tokenize(getattr(pair, side)), END]
        worst = np.argsort(-np.abs(share[: len(tokens)]), kind="stable")[:TOKENS]
        found[side] = [{"token": tokens[k], "place": int(k), "inner": float(share[k])} for k in worst]
    return found


# -- what is shown -----------------------------------------------------------------------------------------------------


def table(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The worst pairs, a row each, at most 100 columns wide; changes by text in thousandths of a nat."""
    scale, places = (1, 12) if record["gap"] is None else (1e3, 3)
    rows = []
    for pair in record["pairs"][:SHOWN]:
        row = {record["id"]: pair["id"], "case": pair["case"]}
        row |= {name: _short(pair[name]) for name in ("cosine", "kappa")}
        for heading, name in HEADINGS.items():
            if pair[name] is not None:
                row[heading] = round(_short(scale * pair[name]), places)
        rows.append(row)
    return rows


HEADINGS = {
    "chosen\npredict.": "predicted_chosen",
    "chosen\nmeasured": "measured_chosen",
    "rejected\npredict.": "predicted_rejected",
    "rejected\nmeasured": "measured_rejected",
    "batch\nchosen": "batch_predicted_chosen",
    "so far\nchosen": "moved_chosen",
}


def _short(x: float) -> float:
    return float(f"{x:.3g}")


def details(record: Mapping[str, Any]) -> list[str]:
    """The worst pairs in words: which ratio of the weights would be safe, and through which tokens gradients meet."""
    lines = []
    for pair in record["pairs"][:DETAILS]:
        low, high = pair["safe_ratio"]
        safe = f"safe from {low:.3g} to {high:.3g}" if np.isfinite(high) else "any is safe"
        if pair["case"] == "undefined":
            safe = f"d_l = {pair['d_rejected']:.3g}"
        text = f": {_clip(pair['chosen'])} over {_clip(pair['rejected'])}" if "tokens" in pair else ""
        lines.append(f"{record['id']} {pair['id']}, {pair['case']}{text}")
        lines.append(f"    d_w/d_l = {pair['ratio']:.3g}, {safe}; <g_w, g_l> = {pair['inner']:.3g}")
        for side in SIDES if text else ():
            shares = ", ".join(f"{t['token'].strip() or t['token']!r} {t['inner']:+.3g}" for t in pair["tokens"][side])
            lines[-1] += f"; of it by {side} {shares}"
    return lines


def notes(record: Mapping[str, Any]) -> list[str]:
    """What the numbers mean, and how far to trust them."""
    pairs, counts, text = record["pairs"], record["cases"], record["gap"] is not None
    unit = "thousandths of a nat" if text else "nats for a learning rate of one"
    lines = [
        f"{record['file']}, next step of {record['loss']}: of {len(pairs)} pairs "
        + ", ".join(f"{n} {case}" for case, n in counts.items() if n)
        + f". Changes in {unit} by a step on the pair alone"
        + _batch_note(record)
        + ". Sorted by the larger of fall of the chosen and rise of the rejected"
        + (", at one learning rate." if "model" in record else ".")
    ]
    if "model" in record:
        nats, share = record["gap"]["nats"], record["gap"]["share"]
        lines.append(
            f"Predicted and measured differ by {nats:.2g} nats at most, {share:.1%} of what a step of that length can "
            f"do; a step changes the response that moves most by {CHANGE:g} nats. The policy is {record['policy']}."
        )
        lines += _model.notes(record)
    elif text:
        nats, share = record["gap"]["nats"], record["gap"]["share"]
        lines.append(
            f"Predicted and measured differ by {nats:.2g} nats at most, {share:.1%} of what a step of that length can "
            f"do; learning rate {record['learning_rate']:.3g}. So far: since fine-tuning. The policy is "
            f"{record['policy']}. It knows nothing but this file, and a case near its border changes with the random "
            "start: compare a few --seed, or look at your own model with --gradients."
        )
    if counts["undefined"]:
        lines.append(
            "undefined: a margin weight is not positive, so that the loss does not push the pair the usual way."
        )
    if len(pairs) > SHOWN:
        lines.append(f"The worst {SHOWN} of {len(pairs)} pairs; all are in numbers.json.")
    return lines


def _batch_note(record: Mapping[str, Any]) -> str:
    if record["batch_learning_rate"] is None:
        return ""
    elsewhere = sum(p["case"] == "ideal" and p["batch_predicted_chosen"] < 0 for p in record["pairs"])
    return f"; batch: by a step on the mean of all, in which the chosen of {elsewhere} ideal pairs falls"


def _clip(text: str, length: int = 40) -> str:
    return repr(text if len(text) <= length else text[: length - 1] + "…")


def caption(record: Mapping[str, Any]) -> str:
    """The claim, and what the figure shows."""
    outside = record["cases"]["undefined"]
    return (
        f"{record['file']}, {record['loss']}, {record['policy']}. Left: a pair is entangled exactly if the cosine of "
        "its two gradients is at least min(kappa, 1/kappa) (C3): both of its responses then move the same way. "
        "Arrowheads lie outside. Right: the pairs that a step on themselves hurts most."
        + f" {outside} undefined."
        * bool(outside)
    )


def figure(record: Mapping[str, Any]) -> Figure:
    """kappa against cosine with the boundaries of the cases, and the changes of the worst pairs."""
    drawn, (plane, bars) = plt.subplots(1, 2, figsize=(8.0, 3.8), width_ratios=(1.3, 1))
    _plane(plane, record)
    _bars(bars, record)
    return drawn


def _plane(ax: Axes, record: Mapping[str, Any]) -> None:
    pairs = [p for p in record["pairs"] if p["case"] != "undefined"]
    finite_ones = [abs(np.log10(p["kappa"])) for p in pairs if np.isfinite(p["kappa"])]
    reach = min(3.0, max([1.0, *finite_ones]) + 0.25)
    kappa = np.logspace(-reach, reach, 401)
    border = np.minimum(kappa, 1 / kappa)
    for region, case in ((kappa < 1, "both fall"), (kappa > 1, "both rise")):
        colour, _, hatch = LOOKS[case]
        ax.fill_between(
            kappa, border, 1, where=region, facecolor=colour, edgecolor=colour, hatch=hatch, alpha=0.16, lw=0
        )
    ax.plot(kappa, border, color="black", ls="-", lw=1.4)
    for case, (colour, marker, _) in LOOKS.items():
        here = [p for p in pairs if p["case"] == case]
        x = np.array([p["kappa"] for p in here])
        inside = np.abs(np.log10(np.maximum(x, 1e-300))) <= reach
        clipped = np.clip(x, 10**-reach, 10**reach)
        y = np.array([p["cosine"] for p in here])
        style: dict[str, Any] = {
            "ls": "",
            "color": colour,
            "mec": "white",
            "mew": 0.5,
            "ms": 6,
            "clip_on": False,
            "zorder": 3,
        }
        ax.plot(x[inside], y[inside], marker=marker, **style)
        for edge, arrow in ((x < 1, "<"), (x > 1, ">")):
            ax.plot(clipped[~inside & edge], y[~inside & edge], marker=arrow, **style)
    for k, p in enumerate(pairs[:DETAILS]):
        at = np.clip(p["kappa"], 10**-reach, 10**reach), p["cosine"]
        side, shift = ("left", 5) if k % 2 else ("right", -5)  # neighbours in rank are often neighbours here
        box = {"fc": "white", "ec": "none", "alpha": 0.7, "pad": 0.6}
        ax.annotate(
            str(p["id"]), at, (shift, 0), textcoords="offset points", ha=side, va="center", fontsize=7.5, bbox=box
        )
    for across, up, side, case in (
        (0.07, 0.93, "left", "both fall"),
        (0.93, 0.93, "right", "both rise"),
        (0.5, 0.06, "center", "ideal"),
    ):
        colour = LOOKS[case][0]
        ax.text(across, up, case, transform=ax.transAxes, ha=side, va="center", color=colour, fontweight="bold")
    ax.set(xscale="log", xlim=(10**-reach, 10**reach), ylim=(-1, 1), xlabel=r"$\kappa = d_w|g_w|\,/\,d_l|g_l|$",
           ylabel=r"cosine of $g_w$ and $g_l$", title=f"every pair, numbered by {record['id']}")  # fmt: skip


def _bars(ax: Axes, record: Mapping[str, Any]) -> None:
    worst = record["pairs"][:BARS]
    unit = "nats" if record["gap"] else "nats / learning rate"
    for k, side in enumerate(SIDES):
        at = np.arange(len(worst)) + (k - 0.5) * 0.4
        colour, hatch = (LOOKS["ideal"][0], "") if side == "chosen" else (LOOKS["both fall"][0], "////")
        predicted = [p[f"predicted_{side}"] for p in worst]
        shown = [p[f"measured_{side}"] for p in worst] if record["gap"] else predicted
        ax.barh(at, shown, height=0.36, color=colour, alpha=0.75, hatch=hatch, edgecolor="white", lw=0, label=side)
        if record["gap"]:
            ax.plot(predicted, at, ls="", marker="|", ms=8, mew=1.4, color="black", label="predicted" if k else None)
    ax.axvline(0, color="0.3", lw=0.8, ls="-")
    ax.set_yticks(range(len(worst)), [str(p["id"]) for p in worst])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.legend(loc="best")
    ax.set(xlabel=f"change of log-probability ({unit})", ylabel=record["id"], title="the worst: a step on each alone")

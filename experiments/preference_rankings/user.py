"""Your own preference pairs: which of them does a policy rank right, and what would it take to turn the others round?

``--pairs FILE.csv`` reads one pair a line; the first line names the columns. ``chosen``, ``rejected``, ``ref_chosen``
and ``ref_rejected`` are log-probabilities under your policy and its reference, sums over tokens in nats. It may have
``chosen_length`` and ``rejected_length`` in tokens, and ``votes``, the share of raters who prefer the chosen (1 counts
as 1 - unanimous). Without ``votes`` every pair has the share --votes. --beta is that of your DPO. ``--pairs example``
reads the file beside this.

What an optimum would rank is said of a table of logits and raters who follow a Bradley-Terry model; a flip time is that
of gradient flow on the pair alone, from its reference, in a table (|grad m|^2 = 2).
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
from experiments.harness import Report, knob
from experiments.preference_rankings._data import Table, read
from sandbox import losses, rankings
from sandbox.measures import margin
from sandbox.validate import in_range, positive

EXAMPLE = Path(__file__).with_name("pairs.csv")
SHOWN = 20  # rows of the table
BETAS = np.geomspace(0.01, 10, 61)
HARD = 3.0  # beta c from which the loss that a pair needs is below 0.05 nats
RIGHT, WRONG = "#0072B2", "#D55E00"


@dataclass(frozen=True)
class User:
    """Your own data, and the constants to look at it with."""

    pairs: Path | None = knob(
        None, "your pairs, a CSV file with the columns chosen, rejected, ref_chosen, ref_rejected; or: example"
    )
    tau: float = knob(0.1, "tau of IPO, for what its optimum would rank, per nat")
    votes: float = knob(0.75, "share of raters for the chosen where the file has no column votes, from 0.5 to 1")


def report(setup: Any, given: User, key: Array) -> Report:
    """The numbers, the table of the hardest pairs and the figure; what they mean is printed before them.

    Raises ValueError for data or a constant that cannot be used.
    """
    del key  # nothing is drawn
    record = diagnosis(given, setup.beta, setup.unanimous)
    out = _terminal.console()
    for line in notes(record):
        out.print(line, markup=False, highlight=False)
    return Report(record, table(record), [("user", figure(record), caption(record))])


def diagnosis(given: User, beta: float = 0.1, unanimous: float = 0.001) -> dict[str, Any]:
    """The record of the user's pairs, the hardest first; errors as ``report``."""
    if given.pairs is None:
        raise ValueError("pairs: missing; give a file, or: example")
    beta, tau = positive("beta", beta), positive("tau", given.tau)
    in_range("votes", given.votes, 0.5, 1)
    in_range("unanimous", unanimous, 0, 0.5, "()")
    path = EXAMPLE if str(given.pairs) == "example" and not given.pairs.exists() else given.pairs
    found = read(path)
    votes = np.full(len(found.line), given.votes) if found.votes is None else found.votes
    alpha = np.minimum(votes, 1 - unanimous)
    return {"file": path.name, "beta": beta, "tau": tau, **_of_all(found, alpha, beta, tau),
            "pairs": _of_each(found, alpha, beta)}  # fmt: skip


# -- the record --------------------------------------------------------------------------------------------------------


def _of_all(found: Table, alpha: np.ndarray, beta: float, tau: float) -> dict[str, Any]:
    """Accuracies of the policy, of its reference and of optima; the bound for the set."""
    pairs, error = found.pairs, rankings.reference_error(found.pairs)
    reference = pairs._replace(chosen=pairs.ref_chosen, rejected=pairs.ref_rejected)
    before, now = error <= 0, rankings.log_odds(pairs) >= 0
    loss = float(np.mean(losses.dpo(pairs, beta=beta)))
    errors = rankings.errors_at_most(rankings.loss_to_rank(error, beta=beta), loss)
    accuracy = {"ranking": rankings.ranking_accuracy(pairs), "reward": rankings.reward_accuracy(pairs),
                "reference": rankings.ranking_accuracy(reference)}  # fmt: skip
    if pairs.chosen_length is not None:
        accuracy["ranking_per_token"] = rankings.ranking_accuracy(pairs, "mean")
        accuracy["reference_per_token"] = rankings.ranking_accuracy(reference, "mean")
    majority = alpha > 0.5  # where raters are split, no ranking is the right one
    ideal = {"dpo": [ideal_accuracy(error, alpha, b) for b in BETAS]}
    at_beta = {
        "dpo": ideal_accuracy(error, alpha, beta),
        "ipo": float(np.mean(rankings.ipo_optimum(alpha, tau=tau) > error)),
        "hinge": float(np.mean(majority & (rankings.hinge_optimum(beta=beta) > error))),
    }
    return {
        "count": len(error),
        "accuracy": {name: float(x) for name, x in accuracy.items()},
        "groups": {"right_right": int(np.sum(before & now)), "wrong_right": int(np.sum(~before & now)),
                   "right_wrong": int(np.sum(before & ~now)), "wrong_wrong": int(np.sum(~before & ~now))},
        "mean_loss": loss,
        "accuracy_at_least": 1 - errors / len(error),
        "split_votes": int(np.sum(~majority)),
        "ideal": at_beta,
        "ideal_curve": {"beta": BETAS.tolist(), **ideal},
        "median_beta_c": float(np.median(beta * error[~before])) if np.any(~before) else None,
    }  # fmt: skip


def ideal_accuracy(error: np.ndarray, alpha: np.ndarray, beta: float) -> float:
    """Idealised accuracy at a beta. Chen et al. 2024, arXiv:2405.19534, Cor 3.3."""
    return float(np.mean(np.asarray(rankings.ideal_log_odds(error, alpha, beta=beta)) > 0))


def _of_each(found: Table, alpha: np.ndarray, beta: float) -> list[dict[str, Any]]:
    """The pairs, the largest reference error first; what a right reference does not need is None."""
    pairs, error = found.pairs, rankings.reference_error(found.pairs)
    columns = {
        "error": error,
        "log_odds": rankings.log_odds(pairs),
        "margin": margin(pairs),
        "loss": losses.dpo(pairs, beta=beta),
        "loss_needed": rankings.loss_to_rank(error, beta=beta),
        "votes": alpha,
    }
    wrong = error > 0
    safe = np.where(wrong, error, 1.0)
    with np.errstate(over="ignore"):
        only_wrong = {
            "flip_time": rankings.flip_time(safe, beta=beta),
            "best_beta": 2 / safe,
            "critical_beta": rankings.critical_beta(safe, alpha),
        }
    rows = []
    for i, line in enumerate(found.line):
        row: dict[str, Any] = {"line": line, **{name: float(np.asarray(x)[i]) for name, x in columns.items()}}
        row |= {name: float(np.asarray(x)[i]) if wrong[i] else None for name, x in only_wrong.items()}
        row["ranking"] = _word(row["error"], row["log_odds"])
        rows.append(row)
    return sorted(rows, key=lambda row: -row["error"])


def _word(error: float, log_odds: float) -> str:
    """Ranked before and now."""
    before, now = ("right" if good else "wrong" for good in (error <= 0, log_odds >= 0))
    return f"stays {now}" if before == now else f"{before}, now {now}"


# -- what is shown -----------------------------------------------------------------------------------------------------


def table(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The hardest pairs, a row each."""
    return [
        {
            "line": row["line"],
            "ranking": row["ranking"],
            "error c": _short(row["error"]),
            "log-odds": _short(row["log_odds"]),
            "loss": _short(row["loss"]),
            "needed": _short(row["loss_needed"]),
            "flip time": _short(row["flip_time"]),
            "critical\nbeta": _short(row["critical_beta"]),
        }
        for row in record["pairs"][:SHOWN]
    ]


def _short(x: float | None) -> float | str:
    return "" if x is None else float(f"{x:.3g}")


def notes(record: Mapping[str, Any]) -> list[str]:
    """What the numbers mean, and how far to trust them."""
    a, groups, ideal, beta = record["accuracy"], record["groups"], record["ideal"], record["beta"]
    per_token = "".join(
        f" Per token: {a['reference_per_token']:.0%} and {a['ranking_per_token']:.0%}; DPO does not determine those."
        for _ in [0]
        if "ranking_per_token" in a
    )
    lines = [
        f"{record['file']}: of {record['count']} pairs the policy ranks {a['ranking']:.0%} right, its reference "
        f"{a['reference']:.0%}; it rewards {a['reward']:.0%} right. {groups['wrong_right']} were turned right, "
        f"{groups['right_wrong']} were unlearned.{per_token}",
        f"A perfect optimum would rank {ideal['dpo']:.0%} right for DPO at beta = {beta:g}, {ideal['ipo']:.0%} for IPO "
        f"at tau = {record['tau']:g}, {ideal['hinge']:.0%} for a hinge at that beta. From the mean loss of "
        f"{record['mean_loss']:.3g} nats alone at least {record['accuracy_at_least']:.0%} are right.",
    ]
    if (scaled := record["median_beta_c"]) is not None and scaled > HARD:
        lines.append(
            f"The errors of the reference dwarf 1/beta: their median is {scaled:.2g} times as large. Half of the wrong "
            f"pairs need a loss below {np.log1p(np.exp(-scaled)):.2g}; a smaller beta turns them sooner (column flip "
            "time, fastest at beta = 2/c)."
        )
    if record["split_votes"]:
        lines.append(
            f"{record['split_votes']} pairs have raters split in halves: an optimum ranks them as the reference."
        )
    if record["count"] > SHOWN:
        lines.append(f"The hardest {SHOWN} of {record['count']} pairs; all are in numbers.json.")
    return lines


def caption(record: Mapping[str, Any]) -> str:
    """The claim, and what the figure shows."""
    return (
        f"{record['file']}, beta = {record['beta']:g}. Left: a pair is ranked right exactly if its loss is at most "
        "-log sigmoid(beta c) (C1). Right: share that a perfect optimum ranks right; a pair with c > 0 drops out at "
        "beta = logit(votes) / c (C4)."
    )


def figure(record: Mapping[str, Any]) -> Figure:
    """Reference errors against losses, and the idealised accuracy over beta."""
    drawn, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.6))
    _plane(left, record)
    curve = record["ideal_curve"]
    right.plot(curve["beta"], curve["dpo"], color="black", ls="-", drawstyle="steps-mid")
    for name, colour, style in (("ranking", RIGHT, "--"), ("reference", WRONG, ":")):
        y = record["accuracy"][name]
        right.axhline(y, color=colour, ls=style, lw=1.2)
        words = "your policy" if name == "ranking" else "its reference"
        right.text(10, y + 0.012, words, color=colour, fontsize=8, ha="right", va="bottom")
    right.axvline(record["beta"], color="0.5", lw=0.8, ls="-")
    right.set(xscale="log", xlabel=r"$\beta$ (per nat)", ylabel="share ranked right", ylim=(0, 1.04),
              title="idealised accuracy")  # fmt: skip
    return drawn


def _plane(ax: Axes, record: Mapping[str, Any]) -> None:
    pairs = record["pairs"]
    error, loss = (np.array([row[name] for row in pairs]) for name in ("error", "loss"))
    good = np.array([row["log_odds"] >= 0 for row in pairs])
    for here, colour, marker, words in ((good, RIGHT, "o", "ranked right"), (~good, WRONG, "^", "ranked wrongly")):
        ax.plot(error[here], loss[here], ls="", marker=marker, color=colour, ms=5, mew=0, alpha=0.8, label=words)
    pad = 0.05 * (np.ptp(error) or 1)
    line = np.linspace(error.min() - pad, error.max() + pad, 300)
    ax.plot(line, rankings.loss_to_rank(line, beta=record["beta"]), color="black", ls="-")
    ax.set_ylim(0, 1.15 * loss.max())
    ax.legend(loc="best")
    ax.set(xlabel="reference error c (nats)", ylabel="DPO loss (nats)", xlim=(line[0], line[-1]),
           title="every pair, and what it needs")  # fmt: skip

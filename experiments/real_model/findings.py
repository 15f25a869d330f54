"""What no theorem promises of a real model: each with its number, the bar set for it, and whether it passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.real_model.measure import MEND, TRAININGS, runs_of
from experiments.real_model.setup import Setup
from sandbox.measures import Case
from sandbox.statistics import rank_correlation

Found = Mapping[str, Mapping[str, Any]]


class Finding(NamedTuple):
    """A statement, what was measured, what it had to be at least, and in how many cases it was looked at."""

    says: str
    measured: float
    bar: float
    over: str

    @property
    def row(self) -> dict[str, Any]:
        """As a row of the table; "NO" is a finding, too."""
        holds = "yes" if self.measured >= self.bar else "NO"
        return {
            "on the real model": self.says,
            "measured": self.measured,
            "bar": self.bar,
            "over": self.over,
            "holds": holds,
        }


def lasted(setup: Setup, run: Mapping[str, Any]) -> np.ndarray:
    """Steps (runs, trained) for which the chosen went on moving the way it first did; all, if it always did."""
    change = np.diff(run["history"][..., 0], axis=-1)
    same = np.sign(change) == np.sign(change[..., :1])
    first = np.where(same.all(axis=-1), same.shape[-1], np.argmin(same, axis=-1))
    return first * setup.every


def fell(run: Mapping[str, Any]) -> np.ndarray:
    """Whether the chosen (runs, trained) ended below its start."""
    return run["history"][..., -1, 0] < run["history"][..., 0, 0]


def findings(setup: Setup, found: Found) -> list[dict[str, Any]]:
    """The table: where the toys' account holds on this model, and where it does not."""
    return [finding.row for finding in (*_of_steps(found["pairs"]), *_of_trainings(setup, found))]


def _of_steps(runs: Mapping[str, Any]) -> list[Finding]:
    n = f"{len(runs['kappa'][0])} pairs"
    gaps = np.abs(runs["measured"] - runs["predicted"]).max(axis=2)  # (pairs, 2 steps)
    largest = np.abs(runs["predicted"]).max(axis=2)
    fall = runs["inner"] - runs["norm_chosen"] ** 2  # of the chosen, under equal weights
    falls = fall > 0
    last = runs["last_fall"] > 0
    one = runs["lengths"].max(axis=1) == 1
    layers = np.abs(runs["inner_attention"] + runs["inner_feed_forward"]).sum(axis=1)
    below = layers / (layers + np.abs(runs["inner_embedding"]) + np.abs(runs["inner_rest"]))
    found = [
        Finding("a step of 0.05 nats is foreseen to within 2 %", _share(gaps[:, 0] <= 0.02 * largest[:, 0]), 0.95, n),
        Finding(
            "half the step leaves less than half the gap (second order: a quarter)",
            _share(gaps[:, 1] <= gaps[:, 0] / 2), 0.8, n,
        ),
        Finding("CHES ranks the fall of the chosen (Spearman)", _rank(runs["ches"], fall), 0.5, n),
        Finding("normalised CHES ranks it", _rank(runs["ches_normalised"], fall), 0.5, n),
        Finding("the last layer alone, exactly, ranks it", _rank(runs["last_fall"], fall), 0.5, n),
        Finding("the last layer alone says who falls (balanced share)", _balanced(last, falls), 0.75, n),
        Finding("the last layer's cosine is the model's (rank)", _rank(runs["last_cosine"], runs["cosine"]), 0.5, n),
        Finding("the inner product lies in the layers below the last (mean share)", float(below.mean()), 0.5, n),
    ]  # fmt: skip
    if one.any():
        close = np.abs(runs["last_cosine"] - runs["cosine"])[one] < 0.2
        over = f"{one.sum()} pairs of single tokens"
        found.append(Finding("single tokens: the last layer's cosine is within 0.2", _share(close), 0.75, over))
    suffix = np.isin(runs["category"], ("single token", "short suffix", "long suffix"))
    if len(set(runs["category"][suffix])) == 3:
        shared = runs["lengths"].min(axis=1)[suffix]
        found.append(
            Finding(
                "the longer the shared suffix, the larger the cosine (rank)",
                _rank(shared, runs["cosine"][suffix]), 0.3, f"{suffix.sum()} pairs",
            )
        )  # fmt: skip
    return found


def _of_trainings(setup: Setup, found: Found) -> list[Finding]:
    run, runs = found["trainings"], runs_of(setup)
    ended = fell(run)
    cases = found["pairs"]["case"]
    made = []
    for optimizer in dict.fromkeys(o for o, _ in runs):
        rows = [i for i, (o, _) in enumerate(runs) if o == optimizer]
        names = [TRAININGS.index(runs[i][1]) for i in rows]
        predicted = cases[names][:, run["pair"]] == Case.BOTH_FALL
        over = f"{predicted.size} trainings"
        agree = _share(predicted == ended[rows])
        made.append(Finding(f"{optimizer}: after {setup.steps} steps the law still says who fell", agree, 0.8, over))
        steps = float(np.median(lasted(setup, run)[rows]))
        made.append(Finding(f"{optimizer}: steps the chosen keeps its first direction", steps, setup.steps / 2, over))
    mends = [i for i, (_, name) in enumerate(runs) if name == MEND]
    if mends:
        over = f"{ended[mends].size} trainings"
        made.append(Finding("with normalised gradients the chosen never falls", _share(~ended[mends]), 1.0, over))
    over = f"{ended.size} trainings"
    dpo = [i for i, (_, name) in enumerate(runs) if name == "DPO"]
    peak = run["peak_gain"][dpo] > 0
    made.append(
        Finding("DPO: the likeliest other token gains (squeezing)", _share(peak), 0.75, f"{peak.size} trainings")
    )
    aligned = float(np.median(run["aligned"][dpo]))
    made.append(
        Finding("DPO: tokens gain as aligned with W_w - W_l (median rank)", aligned, 0.5, f"{peak.size} trainings")
    )
    return made


def _share(which: np.ndarray) -> float:
    return float(np.mean(which))


def _balanced(said: np.ndarray, true: np.ndarray) -> float:
    """The mean of the shares that are right among those that fall and those that do not."""
    sides = [said[true].mean()] * bool(true.any()) + [(~said[~true]).mean()] * bool((~true).any())
    return float(np.mean(sides))


def _rank(score: np.ndarray, truth: np.ndarray) -> float:
    if np.ptp(score) == 0 or np.ptp(truth) == 0:
        return 0.0  # blind: it puts no pair before another
    return float(rank_correlation(score, truth))

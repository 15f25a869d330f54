"""The figures. Nothing is computed here: dots are measured, lines come from the theory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.multiplicity.measure import (
    CONFLICTS,
    DISTANCES,
    EPSILONS,
    LEVELS,
    MINORITIES,
    PLACES,
    REACH,
    deltas_of,
    shares_of,
)
from experiments.multiplicity.real import LEVELS as REAL_LEVELS
from experiments.multiplicity.setup import Setup
from sandbox import multiplicity as m
from sandbox.multiplicity.formulas import pinsker_cost, universal_bound
from sandbox.statistics import mean

Measured = Mapping[str, Mapping[str, np.ndarray]]
BLUE, RED = "#0072B2", "#D55E00"  # colour-blind safe, of different lightness in grey


def label(ax: Axes, x: float, y: float, words: str, colour: str, **kwargs: Any) -> None:
    """Words beside a line, in its colour, on white."""
    box = {"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1}
    ax.text(x, y, words, color=colour, fontsize=8, bbox=box, **{"va": "center", **kwargs})


def who_pays(setup: Setup, found: Measured) -> Figure:
    """Viable range of a group against its share; the map of share against epsilon."""
    run, p, shares = found["groups"], setup.group_rate, shares_of(setup)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.4))
    line = np.geomspace(shares[0], shares[-1], 200)
    low, high = m.kl_interval(p, setup.group_epsilon / line)
    left.fill_between(line, low, high, color=BLUE, alpha=0.15, lw=0)
    for end, solver in ((low, run["low"]), (high, run["high"])):
        left.plot(line, end, color=BLUE, ls="-")
        left.plot(shares, solver[:, -1], "o", color=BLUE, mfc="white")
    left.axhline(p, color="0.5", lw=0.8, ls=":")
    label(left, shares[-1], p + 0.025, "best model", "0.35", ha="right")
    left.set(xscale="log", ylim=(0, 1), xlabel="share of the group", ylabel="risk that a near-optimal model gives it",
             title="a small group has a wide range")  # fmt: skip
    line = np.geomspace(EPSILONS[0] / 1.3, EPSILONS[-1] * 1.3, 200)
    places = {0.05: 0.0012, 0.1: 0.0030, 0.2: 0.0075}
    for k, delta in enumerate(CONFLICTS):
        pays = float(min(pinsker_cost(p, p + delta), pinsker_cost(p, p - delta)))
        right.plot(line, line / pays, color=f"C{k}")
        label(right, places[delta], places[delta] / pays, rf"$\delta$ = {delta:g}", f"C{k}", ha="center")
    moved = np.maximum(run["high"][:, :-1] - p, p - run["low"][:, :-1])
    x, y = np.broadcast_arrays(EPSILONS[None], shares[:, None])
    for here, face in ((moved >= 0.1, "C1"), (moved < 0.1, "white")):
        right.plot(x[here], y[here], ls="", marker="s", ms=3.5, color="C1", mfc=face, mew=0.8)
    right.set(xscale="log", yscale="log", ylim=(shares[0] / 1.2, shares[-1] * 1.2), xlim=(line[0], line[-1]),
              xlabel=r"$\epsilon$ (nats)", ylabel="share of the group",
              title=r"who pays: filled, moved by 0.1")  # fmt: skip
    return figure


def level_set(setup: Setup, found: Measured) -> Figure:
    """Coefficients: the level set. Features: the width of ranges."""
    run = found["plane"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.5), width_ratios=(1, 1.15))
    order = np.argsort(np.arctan2(*(run["boundary"] - run["w"]).T[::-1]))
    edge = run["boundary"][np.append(order, order[0])]
    left.fill(*edge.T, color=BLUE, alpha=0.12, lw=0)
    left.plot(*edge.T, color=BLUE, ls="-")
    left.plot(*run["extremes"].T, ".", color="0.25", ms=3)
    left.plot(*run["w"], "o", color=BLUE)
    left.plot(*run["adversary"], "*", color=RED, ms=10)
    left.annotate("best", run["w"], (6, 3), textcoords="offset points", fontsize=8, color=BLUE)
    left.set(xlabel="coefficient of feature 1", ylabel="coefficient of feature 2", title="models within epsilon")
    drawn = right.contourf(run["axis"], run["axis"], run["map"], levels=12, cmap="cividis")
    figure.colorbar(drawn, ax=right, label="width of the range of risks")
    slope = -run["w"][0] / run["w"][1]
    right.plot([-REACH, REACH], [-slope * REACH, slope * REACH], color="white", ls="--", lw=1)
    for value, marker in ((0, "v"), (1, "^")):
        here = run["y"] == value
        right.scatter(
            *run["x"][here].T, marker=marker, s=18, c="white", edgecolors="black", lw=0.6, label=f"y = {value}"
        )
    right.plot(*run["x"][run["widest"]], "*", color=RED, ms=10)
    right.legend(loc="lower left", facecolor="white", frameon=True, framealpha=0.8)
    right.set(xlabel="feature 1 (standard deviations)", ylabel="feature 2", xlim=(-REACH, REACH), ylim=(-REACH, REACH),
              title="where ranges are wide")  # fmt: skip
    right.grid(False)
    return figure


def conflicts(setup: Setup, found: Measured) -> Figure:
    """Ambiguity and discrepancy against delta."""
    run, delta = found["example"], deltas_of(setup)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.3), sharey=True)
    top = 1.25 * run["ambiguity"].max()
    for k, level in enumerate(LEVELS):
        left.plot(
            delta, run["ambiguity"][k], color=f"C{k}", ls="-", marker="osD^"[k], ms=3, label=f"{level:.1%} of the loss"
        )
        right.plot(delta, run["lower"][k], color=f"C{k}", ls="-", marker="osD^"[k], ms=3)
        right.plot(delta, run["knapsack"][k], color=f"C{k}", ls=":")
        bound = universal_bound(level * run["loss"], delta)
        right.plot(delta, np.where(bound < top, bound, np.nan), color=f"C{k}", ls="--", lw=0.9)
    left.legend(loc="upper right", title=r"$\epsilon$")
    left.set(xlabel=r"threshold $\delta$ (of a risk)", ylabel="share of people", ylim=(0, top),
             title="ambiguity: some model moves it")  # fmt: skip
    right.set(xlabel=r"threshold $\delta$ (of a risk)", title="discrepancy: one model moves them all")
    return figure


def ranges(setup: Setup, found: Measured) -> Figure:
    """Bars of the ranges, sorted by risk; half-widths against leverage."""
    run = found["example"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.3), width_ratios=(1.3, 1))
    order = np.argsort(run["p"])
    low, high = (1 / (1 + np.exp(-run[end][order])) for end in ("low", "high"))
    rank = np.arange(order.size)
    flips = (low <= 0.5) & (high >= 0.5)
    for here, colour in ((~flips, BLUE), (flips, RED)):
        left.vlines(rank[here], low[here], high[here], color=colour, lw=1.5)
    left.plot(rank, run["p"][order], ".", color="black", ms=2)
    left.axhline(0.5, color="0.5", lw=0.8, ls=":")
    label(left, 3, 0.9, f"{np.sum(flips)} label{'' if np.sum(flips) == 1 else 's'} can flip", RED, ha="left")
    left.set(xlabel="people, sorted by risk", ylabel="risk", title="viable ranges")
    epsilon = setup.tolerated * run["loss"]
    variance = run["p"] * (1 - run["p"])
    s = np.sqrt(run["leverage"])
    half = (1 / (1 + np.exp(-run["high"])) - 1 / (1 + np.exp(-run["low"]))) / 2
    right.plot(s * variance, half, "o", color=BLUE, ms=3.5, mfc="white")
    line = np.array([0, 1.05 * np.max(s * variance)])
    right.plot(line, np.sqrt(2 * epsilon) * line, color="black", ls="-", lw=1)
    label(right, 0.55 * line[1], 0.36 * np.sqrt(2 * epsilon) * line[1], r"$\sqrt{2\epsilon s}\,p(1-p)$", "black")
    right.set(
        xlabel=r"$\sqrt{s}\,p(1-p)$", ylabel="half-width of the range (of a risk)", title="the law for small epsilon"
    )
    return figure


def band(ax: Axes, x: Sequence[float], samples: np.ndarray, colour: str, marker: str, words: str) -> None:
    """A line of means over seeds, with their intervals."""
    found = mean(samples)
    centre, low, high = (np.asarray(part) for part in (found.mean, found.low, found.high))
    ax.errorbar(x, centre, [centre - low, high - centre], color=colour, marker=marker, label=words)


def studies(setup: Setup, found: Measured) -> Figure:
    """Outlier, separation, minority."""
    run = found["studies"]
    figure, axes = plt.subplots(1, 4, figsize=(10.2, 3.1))
    stop = len(PLACES)
    band(axes[0], PLACES, run["logits"][:, :stop], BLUE, "o", "the point")
    band(axes[0], PLACES, run["rest"][:, :stop], RED, "s", "mean of others")
    axes[0].set(
        xlabel="place of one point (sd)", ylabel="width of the range of logits", title="outlier", ylim=(0, None)
    )
    apart = slice(stop, stop + len(DISTANCES))
    band(axes[1], DISTANCES, run["risks"][:, apart] * 10, BLUE, "o", "of risks, times 10")
    band(axes[1], DISTANCES, run["logits"][:, apart], RED, "s", "of logits")
    axes[1].set(xlabel="distance of two classes (sd)", ylabel="mean width", title="separation", ylim=(0, None))
    for k, delta in enumerate((0.05, 0.1)):
        band(
            axes[2], DISTANCES, run[f"ambiguity_{delta:g}"][:, apart], (BLUE, RED)[k], "os"[k], rf"$\delta$ = {delta:g}"
        )
    axes[2].set(xlabel="distance of two classes (sd)", ylabel="ambiguity", title="… and conflicts", ylim=(0, 1.05))
    few = run["logits"][:, -len(MINORITIES) :]
    band(axes[3], MINORITIES, few, BLUE, "o", "width")
    band(axes[3], MINORITIES, few * np.sqrt(MINORITIES), RED, "s", r"width $\cdot\sqrt{m}$")
    axes[3].set(xscale="log", xlabel="share m of the minority", ylabel="width of the range of logits", title="minority",
                ylim=(0, None))  # fmt: skip
    axes[3].set_xticks(MINORITIES, [f"{share:g}" for share in MINORITIES])
    axes[3].minorticks_off()
    for ax in axes:
        ax.legend(loc="best")
    return figure


def prevalence(names: Sequence[str], found: Measured) -> Figure:
    """Ambiguity at 0.1 of every data set against the likelihood-ratio statistic; mean widths."""
    run = found["real"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.4), sharey=False)
    for k, name in enumerate(names):
        n, d, loss = (float(run[f"{name}/{what}"]) for what in ("n", "d", "loss"))
        scale = 2 * n * loss * np.array(REAL_LEVELS) / d
        left.plot(
            scale, run[f"{name}/ambiguity"][:, 1], color=f"C{k}", marker="osD^vP"[k], label=name.replace("_", " ")
        )
        right.plot(run[f"{name}/width"], np.full(len(REAL_LEVELS), len(names) - k), color=f"C{k}", marker="osD^vP"[k])
        label(right, float(run[f"{name}/width"][-1]) + 0.015, len(names) - k, name.replace("_", " "), f"C{k}")
    left.legend(loc="best")
    left.set(xscale="log", ylim=(-0.03, 1.05), xlabel=r"$2n\epsilon/d$ (1: what sampling alone explains)",
             ylabel=r"ambiguity at $\delta$ = 0.1", title="who can be moved")  # fmt: skip
    right.set(xlim=(0, 0.75), ylim=(0.4, len(names) + 0.6), yticks=[], xlabel="mean width of the range of risks",
              title="1% and 5% of the loss")  # fmt: skip
    return figure

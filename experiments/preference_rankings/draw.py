"""The figures. Nothing is computed here: dots are measured, lines come from the theory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import ndtr

from experiments.preference_rankings.measure import BETAS, ERRORS, GAMMAS, MARKED, MIXES
from experiments.preference_rankings.setup import Setup
from sandbox import rankings

Measured = Mapping[str, Mapping[str, np.ndarray]]

RIGHT, WRONG = "#0072B2", "#D55E00"  # colour-blind safe, of different lightness in grey


def label(ax: Axes, x: float, y: float, words: str, colour: str, **kwargs: Any) -> None:
    """Words beside a line, in its colour, on white."""
    box = {"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1}
    ax.text(x, y, words, color=colour, fontsize=8, bbox=box, **{"va": "center", **kwargs})


def groups(setup: Setup, measured: Measured) -> Figure:
    """Shares of pairs by ranking before and now against the step; ranking accuracy for each gamma."""
    run = measured["shared parameters"]
    steps, before = run["step"], np.mean(run["error"] <= 0)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.2))
    flipped, unlearned = (1 - before) * run["flipped"][0], before * run["unlearned"][0]
    parts = [before - unlearned, flipped, unlearned, 1 - before - flipped]
    looks = [(RIGHT, "", "right, stays right"), ("#56B4E9", "////", "wrong, now right"),
             ("#E69F00", "....", "right, now wrong"), (WRONG, "", "wrong, stays wrong")]  # fmt: skip
    bottom = np.zeros(len(steps))
    for part, (colour, hatch, words) in zip(parts, looks, strict=True):
        left.fill_between(steps, bottom, bottom + part, facecolor=colour, hatch=hatch, edgecolor="white", lw=0.4)
        label(left, steps[-1] * 0.62, float((bottom + part / 2)[-1]), words, "black", ha="center")
        bottom = bottom + part
    left.set(xlabel="step of DPO", ylabel="share of the pairs", ylim=(0, 1), xlim=(0, steps[-1]),
             title="before training, and now")  # fmt: skip
    for k, (gamma, accuracy) in enumerate(zip(MIXES, run["accuracy"], strict=True)):
        right.plot(steps, accuracy, marker="osD"[k], markevery=max(1, len(steps) // 8))
        label(right, steps[-1] * 1.03, accuracy[-1] + 0.03 * (k - 1), rf"$\gamma$ = {gamma:g}", f"C{k}", ha="left")
    right.plot(steps, run["reward_accuracy"][0], color="0.5", ls=":")
    label(right, steps[-1] * 0.5, run["reward_accuracy"][0, -1] + 0.035, r"reward accuracy, $\gamma$ = 1", "0.35",
          ha="center")  # fmt: skip
    right.set(xlabel="step of descent", ylabel="ranking accuracy", xlim=(0, steps[-1] * 1.25), ylim=(0.35, 0.95),
              title="how much reference the loss sees")  # fmt: skip
    return figure


def loss_and_error(setup: Setup, measured: Measured) -> Figure:
    """Reference error against the loss at the end of DPO, with the loss that a pair needs."""
    run = measured["shared parameters"]
    error, loss, ranked = run["error"], run["loss"][0, -1], run["log_odds"][0, -1] >= 0
    figure, ax = plt.subplots(figsize=(5.6, 3.6))
    for here, colour, marker, words in ((ranked, RIGHT, "o", "ranked right"), (~ranked, WRONG, "^", "ranked wrongly")):
        ax.plot(error[here], loss[here], ls="", marker=marker, color=colour, ms=4, mew=0, alpha=0.75, label=words)
    line = np.linspace(error.min() - 1, error.max() + 1, 300)
    ax.plot(line, rankings.loss_to_rank(line, beta=setup.beta), color="black", ls="-", lw=1.8)
    ax.axhline(np.log(2), color="0.5", lw=0.9, ls=":")
    ax.axvline(0, color="0.5", lw=0.9, ls=":")
    label(ax, 9.5, 0.82, "log 2, the start", "0.35", ha="left")
    label(ax, -6, 1.4, r"$-\log\sigma(\beta c)$", "black", ha="left")
    ax.legend(loc="upper right")
    ax.set(xlabel="reference error c (nats; right of 0 the reference is wrong)", ylabel="DPO loss of the pair (nats)",
           xlim=(line[0], line[-1]), ylim=(0, 1.2 * loss.max()))  # fmt: skip
    return figure


def flip_map(setup: Setup, measured: Measured) -> Figure:
    """Flip times in units of c^2 against beta c; and with other gammas."""
    run = measured["single pairs"]
    scale, flip = run["error"] * run["beta"], run["flip"] / run["error"] ** 2
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.5), width_ratios=(1.25, 1), sharey=True)
    x = np.geomspace(0.2, 9, 300)
    curve = rankings.flip_time(1.0, beta=x)
    left.fill_between(x, curve, 1e2, color=RIGHT, alpha=0.12, lw=0)
    left.fill_between(x, 1e-1, curve, facecolor=WRONG, alpha=0.12, lw=0, hatch="....", edgecolor="white")
    left.plot(x, curve, color="black", ls="-")
    for k, error in enumerate(ERRORS):
        here = run["error"] == error
        left.plot(scale[here][k::3], flip[here][k::3], ls="", marker="osD"[k], ms=5, mfc="white", color=f"C{k}",
                  label=f"c = {error:g} nats")  # fmt: skip
    valley = rankings.flip_time(1.0, beta=2.0)
    left.plot([2, 2], [1e-1, valley], color="0.3", ls=":", lw=1.2)
    label(left, 2.15, 0.4, r"fastest: $\beta = 2/c$," + f"\n$t = {valley:.3f}\\,c^2$", "black", ha="left")
    label(left, 0.27, 20, "ranked right", RIGHT, fontweight="bold")
    label(left, 0.27, 0.2, "still wrong", WRONG, fontweight="bold")
    left.legend(loc="upper right")
    left.set(xscale="log", yscale="log", ylim=(0.1, 100), xlim=(0.2, 9), title="one pair under DPO",
             xlabel=r"$\beta c$", ylabel=r"time of the flip, in units of $c^2$")  # fmt: skip
    for k, gamma in enumerate(GAMMAS):
        here = run["gamma"] == gamma
        right.plot(x, rankings.flip_time(1.0, beta=x, gamma=gamma), color=f"C{k}")
        right.plot(run["gamma_scale"][here], run["gamma_flip"][here] / 16, ls="", marker="osD^"[k], color=f"C{k}")
    ends = {0.0: (2.0, 0.2), 0.5: (6.3, 0.24), 1.0: (5.6, 9.0), 2.0: (2.35, 17)}
    for k, gamma in enumerate(GAMMAS):
        label(right, *ends[gamma], rf"$\gamma$ = {gamma:g}", f"C{k}", ha="center")
    right.set(xscale="log", xlim=(0.4, 9), xlabel=r"$\beta c$", title="how much reference the loss sees")
    for ax in (left, right):
        ax.set_xticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
        ax.minorticks_off()
    return figure


def accuracy_against_loss(setup: Setup, measured: Measured) -> Figure:
    """Ranking accuracy against mean loss along DPO on pairs with prompts of their own."""
    run = measured["own prompts"]
    figure, ax = plt.subplots(figsize=(5.2, 3.3))
    loss = np.linspace(0.02, np.log(2), 300)
    for spread, style in ((setup.spread / 4, "--"), (setup.spread, "-"), (setup.spread * 2, "-.")):
        law = ndtr((rankings.margin_at_loss(loss, beta=setup.beta) - setup.offset) / spread)
        colour = "black" if style == "-" else "0.55"
        ax.plot(loss, law, color=colour, ls=style, lw=1.6 if style == "-" else 1.1)
        at, up, side = {0.25: (0.31, 0.02, "right"), 1: (0.2, 0.05, "right"), 2: (0.2, -0.045, "center")}[
            spread / setup.spread
        ]
        label(ax, at, float(np.interp(at, loss, law)) + up, f"spread {spread:g}", colour, ha=side)
    ax.plot(run["loss"], run["accuracy"], ls="", marker="o", ms=4, color=RIGHT, mfc="white", zorder=3)
    ax.invert_xaxis()
    ax.set(xlabel="mean DPO loss (nats), from log 2 at the start", ylabel="ranking accuracy", ylim=(0.25, 1),
           xlim=(np.log(2), 0))  # fmt: skip
    return figure


def idealised(setup: Setup, measured: Measured) -> Figure:
    """Accuracies of the reference and of optima, over beta; and how often four raters err."""
    run = measured["optima"]
    figure, (left, bars, right) = plt.subplots(1, 3, figsize=(9.2, 3.4), width_ratios=(1.5, 0.9, 1))
    curves = (("printed", WRONG, "--", "s", "as printed, per token"), ("script", "#E69F00", "-.", "D", "the script"),
              ("true", RIGHT, "-", "o", "the optimum"))  # fmt: skip
    for name, colour, style, marker, words in curves:
        left.plot(BETAS, run[name], color=colour, ls=style)
        left.plot(MARKED, run[f"marked_{name}"], ls="", marker=marker, color=colour, mfc="white", ms=5)
        at = {"printed": (12, 1.025), "script": (0.35, 0.86), "true": (0.12, 0.71)}[name]
        label(left, *at, words, colour, ha="left" if name == "true" else "right")
    left.axhline(run["reference"], color="0.4", ls=":", lw=1.1)
    label(left, 0.011, float(run["reference"]) - 0.03, "the reference", "0.35", ha="left")
    left.set(xscale="log", xlabel=r"$\beta$ (per nat)", ylabel="share ranked right", ylim=(0.38, 1.06),
             title="idealised accuracy")  # fmt: skip
    shown = [("reference", run["reference"], RIGHT, ""), ("per token", run["reference_per_token"], WRONG, ""),
             ("optimum", np.median(run["marked_true"]), RIGHT, "////"),
             ("script", np.median(run["marked_script"]), "#E69F00", "////"),
             ("printed", np.median(run["marked_printed"]), WRONG, "////")]  # fmt: skip
    for k, (_, height, colour, hatch) in enumerate(shown):
        bars.bar(k, height, color=colour, hatch=hatch, edgecolor="white", lw=0, width=0.7, alpha=0.85)
        bars.text(k, float(height) + 0.015, f"{float(height):.2f}", ha="center", fontsize=7.5)
    bars.set_xticks(range(len(shown)), [name for name, *_ in shown], rotation=40, ha="right")
    bars.set(ylim=(0, 1.1), title="reference, and medians")
    bars.grid(axis="x", visible=False)
    share = run["share"]
    right.plot(share, np.asarray(rankings.majority_agreement(share, 4)), color="black", ls="-")
    right.plot(share, run["agreement"], ls="", marker="o", color=RIGHT, mfc="white")
    right.axhline(1, color=WRONG, ls="--", lw=1.2)
    label(right, 0.495, 0.965, r"idealised, $\beta \to 0$", WRONG, ha="left")
    right.set(xlabel="share who prefer the chosen", ylabel="four raters' majority is right", ylim=(0.45, 1.04),
              title="what the label is worth")  # fmt: skip
    return figure


def win_rate(setup: Setup, measured: Measured) -> Figure:
    """Ranking accuracy and win rate along the tilt; a pair whose ranking and win rate part from the first step."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.3))
    run = measured["tilted"]
    left.plot(run["time"], run["accuracy"], color=RIGHT, ls="-", drawstyle="steps-post")
    left.plot(run["time"], run["win_rate"], color=WRONG, ls="--")
    left.plot(run["time"], run["accuracy_gold"], color="0.55", ls=":", drawstyle="steps-post")
    peak = int(np.argmax(run["win_rate"]))
    left.plot(run["time"][peak], run["win_rate"][peak], marker="v", color=WRONG, ms=6)
    label(left, 1.75, 0.985, "pairs in the proxy's order", RIGHT, ha="right")
    label(left, 3.1, 0.42, "win rate", WRONG, ha="right")
    label(left, 3.4, 0.72, "pairs in the true order", "0.4", ha="right")
    left.set(xlabel=r"tilt t (1 / $\beta$)", ylabel="ranking accuracy, win rate", ylim=(0.1, 1.05),
             title="together, then apart")  # fmt: skip
    run = measured["off policy"]
    inside = run["shift"] < 2.6
    right.plot(run["shift"][inside], run["win_rate"][inside], color=WRONG, ls="--")
    right.axhline(0.5, color="0.5", lw=0.9, ls=":")
    flip = np.interp(0, run["log_odds"], run["shift"])
    right.axvline(flip, color=RIGHT, lw=1.2, ls="-")
    lowest = int(np.argmin(run["win_rate"]))
    right.plot(run["shift"][lowest], run["win_rate"][lowest], marker="v", color=WRONG, ms=6)
    label(right, flip + 0.05, 0.512, "the ranking flips", RIGHT, ha="left")
    label(right, 0.55, 0.478, "win rate", WRONG, ha="left")
    right.set(xlabel="shift of the logits, +h and -h (nats)", ylabel="win rate against the reference",
              title="off-policy pair")  # fmt: skip
    return figure

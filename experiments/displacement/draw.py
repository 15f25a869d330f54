"""The figures. Nothing is computed here: dots are measured, lines come from the theory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.displacement.measure import NEVER, NO, TRAINED, YES
from experiments.displacement.network import NAMES, PERCENTILES, SHOWN
from experiments.displacement.refusal import KINDS, VARIANTS, every
from experiments.displacement.sequences import SCORES, SOURCES, grid
from experiments.displacement.setup import Setup

Measured = Mapping[str, Mapping[str, np.ndarray]]

BLUE, RED, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"  # of different lightness in grey
LOOKS = ((BLUE, "-", "o"), (RED, "--", "s"), (GREEN, "-.", "^"), (PURPLE, ":", "D"))


def label(ax: Axes, x: float, y: float, words: str, colour: str, **kwargs: Any) -> None:
    """Words beside a line, in its colour, on white."""
    box = {"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1}
    ax.text(x, y, words, color=colour, fontsize=8, bbox=box, **{"va": "center", **kwargs})


def curves(setup: Setup, measured: Measured) -> Figure:
    """Probabilities of No, Never and Yes along the clock; lines: closed form, dots: Runge-Kutta."""
    run = measured["pair"]
    figure, axes = plt.subplots(1, 3, figsize=(8.4, 3.0), sharey=True)
    tokens = ((NO, "No (chosen)", BLUE, "-", "o"), (NEVER, "Never (rejected)", RED, "--", "s"),
              (YES, "Yes", GREEN, "-.", "^"))  # fmt: skip
    for ax, name in zip(axes, TRAINED, strict=True):
        for token, words, colour, style, marker in tokens:
            ax.plot(run["clock"], np.exp(run[f"{name}, closed"][:, token]), color=colour, ls=style, label=words)
            ax.plot(run["clock"][::8], np.exp(run[f"{name}, run"][::8, token]), color=colour, ls="", marker=marker,
                    mfc="white", ms=4.5)  # fmt: skip
        ax.set(
            title=f"{name} trained" if name != "both" else "W and h trained", xlabel=r"clock $\tau$", ylim=(-0.03, 1.05)
        )
    axes[0].set_ylabel("probability")
    axes[1].legend(loc="center right")
    return figure


def phases(setup: Setup, measured: Measured) -> Figure:
    """How deep No dips: by angle and norm of h; by kappa and the margin at which training stops."""
    run = measured["phase"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.8, 3.6))
    lowest, stopped = np.exp(run["lowest"]), np.exp(run["stopped"])
    left.pcolormesh(run["angles"], run["shares"], lowest.T, cmap="cividis", vmin=0, vmax=1, shading="nearest",
                    rasterized=True)  # fmt: skip
    inside = run["third line"] > 0
    left.plot(run["angles"][inside], run["third line"][inside], color="black", ls="-", lw=1.8)
    falls = run["start line"] > 0
    left.plot(run["angles"][falls], run["start line"][falls], color="white", ls="--", lw=1.8)
    left.set(xlabel="angle between No and Never (degrees)", ylabel="norm of h at the start / L",
             title="lowest probability of No", xlim=(2, 122), ylim=(run["shares"][0], run["shares"][-1]))  # fmt: skip
    label(left, 51, 0.4, "Yes gains on No at the start", "black", ha="center")
    label(left, 121, 0.4, "never a dip", "black", ha="right")
    label(left, 8, 0.035, "falls at once", "black", ha="left")
    label(left, 34, 0.14, "rises, then falls", "black", ha="left")
    drawn = right.pcolormesh(run["stops"], run["kappas"], stopped, cmap="cividis", vmin=0, vmax=1, shading="nearest",
                             rasterized=True)  # fmt: skip
    right.axhline(run["critical"], color="white", ls="--", lw=1.8)
    label(right, 50, float(run["critical"]) * 0.6, r"$\kappa^*$", "black", ha="right")
    right.contour(run["stops"], run["kappas"], stopped, levels=[0.85], colors="black", linewidths=1.8)
    right.set(xscale="log", yscale="log", xlabel="margin gained when training stops (nats)",
              title="probability of No then", ylabel=r"$\kappa$: rate of h / rate of W")  # fmt: skip
    right.minorticks_off()
    for ax in (left, right):
        ax.grid(visible=False)
    bar = figure.colorbar(drawn, ax=[left, right], pad=0.02)
    bar.set_label("probability of No")
    return figure


def ranks(setup: Setup, measured: Measured) -> Figure:
    """Rank correlation of CHES with G by confidence and mean; of all scores at varied lengths."""
    run = measured["scores"]
    confidences, means = grid(setup)
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.1), width_ratios=(1, 1, 1.5))
    for k, ax in enumerate(axes[:2]):
        mean = run["with G"][:, :, k, :, 0].mean(axis=-1)
        drawn = ax.pcolormesh(means, confidences, mean, cmap="RdBu_r", vmin=-0.6, vmax=0.6, shading="nearest",
                              rasterized=True)  # fmt: skip
        for i, s in enumerate(confidences):
            for j, m in enumerate(means):
                ax.text(m, s, f"{mean[i, j]:.2f}".replace("-0.00", "0.00"), ha="center", va="center", fontsize=7)
        ax.set(xlabel="shared mean m of h", title=f"CHES with G, {SOURCES[k]}", yticks=confidences, xticks=means)
        ax.grid(visible=False)
    axes[0].set_ylabel("confidence s (scale of W)")
    figure.colorbar(drawn, ax=axes[1]).set_label("rank correlation")
    looks = (("s = 1, m = 2", BLUE, "o", -0.12), ("s = 0, m = 0", RED, "s", 0.12))
    for k, (words, colour, marker, shift) in enumerate(looks):
        values = run["with G, varied"][k]  # (seeds, scores)
        y = np.arange(len(SCORES))[::-1] + shift
        middle = values.mean(axis=0)
        axes[2].errorbar(middle, y, xerr=[middle - values.min(axis=0), values.max(axis=0) - middle], ls="",
                         marker=marker, color=colour, ms=5, capsize=2, label=words)  # fmt: skip
    axes[2].axvline(0, color="0.5", lw=0.8, ls="-")
    axes[2].set_yticks(np.arange(len(SCORES))[::-1], SCORES)
    axes[2].legend(loc="lower right")
    axes[2].set(xlabel="rank correlation with G", title="lengths 2 to 6, off-policy", xlim=(-0.35, 1.08))
    return figure


def percentiles(setup: Setup, measured: Measured) -> Figure:
    """The mean change of ln pi(y+) after training on subsets centred on a percentile of a score."""
    values = measured["network"]["subsets"]  # (networks, scores, percentiles)
    figure, ax = plt.subplots(figsize=(5.6, 3.3))
    x = 100 * np.asarray(PERCENTILES)
    for k, ((colour, style, marker), words) in enumerate(zip(LOOKS, SHOWN, strict=True)):
        middle = values[:, k].mean(axis=0)
        error = values[:, k].std(axis=0, ddof=1) / np.sqrt(len(values))
        ax.errorbar(x + 1.2 * (k - 1.5), middle, error, color=colour, ls=style, marker=marker, ms=5, capsize=2,
                    label=words)  # fmt: skip
    ax.axhline(0, color="0.5", lw=0.8, ls="-")
    ax.legend(loc="lower left", title="subsets by")
    ax.set(xlabel="percentile of the score", ylabel=r"mean change of ln $\pi(y^+)$ (nats)", xticks=x)
    return figure


def refusals(setup: Setup, measured: Measured) -> Figure:
    """The chosen's log-probability along DPO, the refusal mass after it, and which kinds of pairs score high."""
    run = measured["refusal"]
    figure, axes = plt.subplots(1, 3, figsize=(9.8, 3.2), width_ratios=(1, 1.25, 1))
    steps = every(setup) * np.arange(run["change"].shape[-1])
    for row in run["change"][:, 0]:
        axes[0].plot(steps, row, color=BLUE, lw=0.6, alpha=0.5, ls="-")
    axes[0].plot(steps, run["change"][:, 0].mean(axis=0), color=BLUE, lw=2.2, ls="-")
    axes[0].axhline(0, color="0.5", lw=0.8, ls="-")
    axes[0].set(xlabel="step of DPO", ylabel=r"mean change of ln $\pi(y^+)$ (nats)", title="pairs of two refusals")
    start, end = run["mass"][:, 0, 0], run["mass"][:, :, -1]
    y = np.arange(len(VARIANTS) + 1)[::-1]
    for at, values, colour in zip(y, [start, *end.T], ["0.35", RED, BLUE, GREEN, PURPLE, BLUE], strict=True):
        axes[1].plot(values, np.full(len(values), at), ls="", marker="o", color=colour, ms=3.5, alpha=0.55)
        axes[1].plot(values.mean(), at, ls="", marker="|", color="black", ms=16, mew=2)
    axes[1].axvline(start.mean(), color="0.5", ls=":", lw=1.2)
    axes[1].set_yticks(y, ["before DPO", *VARIANTS])
    axes[1].set(
        xlabel="probability of a refusal", title="after DPO on", xlim=(0.3, 1.02), ylim=(-0.5, len(VARIANTS) + 0.5)
    )
    for k, (words, colour, marker) in enumerate(zip(KINDS, (RED, BLUE, GREEN), "osD", strict=True)):
        values = np.sort(run["score"][run["kind"] == k])
        axes[2].plot(values, np.linspace(0, 1, len(values)), color=colour, ls=("-", "--", "-.")[k], label=words)
        axes[2].plot(np.median(values), 0.5, color=colour, marker=marker, ls="", ms=5)
    axes[2].legend(loc="upper left", title="refusals in the pair", fontsize=7)
    axes[2].set(xlabel="CHES, length-normalised", ylabel="share of pairs below", title="who scores high")
    return figure


def kernels(setup: Setup, measured: Measured) -> Figure:
    """Speeds predicted with kappa of the tangent kernel; rank correlation of the scores with what training did."""
    run = measured["network"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.3), width_ratios=(1, 1.15))
    left.plot(run["predicted"].ravel(), run["speed"].ravel(), ls="", marker="o", color=BLUE, ms=3, alpha=0.5)
    ends = [min(run["predicted"].min(), run["speed"].min()), max(run["predicted"].max(), run["speed"].max())]
    left.plot(ends, ends, color="black", ls="-", lw=1)
    left.axhline(0, color="0.5", ls=":", lw=1)
    left.axvline(0, color="0.5", ls=":", lw=1)
    left.set(
        xlabel=r"speed of ln $\pi_+$ with $\kappa$ of the kernel", ylabel="speed by autodiff", title="single tokens"
    )
    values = run["ranks"]  # (networks, scores)
    y = np.arange(len(NAMES))[::-1]
    middle = values.mean(axis=0)
    right.errorbar(middle, y, xerr=[middle - values.min(axis=0), values.max(axis=0) - middle], ls="", marker="s",
                   color=RED, ms=5, capsize=2)  # fmt: skip
    right.axvline(0, color="0.5", lw=0.8, ls="-")
    right.set_yticks(y, NAMES)
    right.set(
        xlabel=r"rank correlation with the fall of ln $\pi(y^+)$", title="each pair trained alone", xlim=(-0.6, 1)
    )
    return figure

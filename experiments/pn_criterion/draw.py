"""The figures. Nothing is computed here beyond units of an axis: dots are measured, lines come from the theory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from experiments.pn_criterion.setup import Setup
from experiments.pn_criterion.softmax import ALPHA, FEW, MOST, SCORES
from experiments.pn_criterion.toys import TOYS

Measured = Mapping[str, Mapping[str, np.ndarray]]
BLUE, RED, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "0.45"
MARKERS = "osD^vP"


def label(ax: Axes, x: float, y: float, words: str, colour: str, **kwargs: Any) -> None:
    """Words beside a line, in its colour, on white."""
    box = {"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1}
    ax.text(x, y, words, color=colour, fontsize=8, bbox=box, **{"va": "center", **kwargs})


def risk(setup: Setup, measured: Measured) -> Figure:
    """n R(n) against n: exact dots, the flat first order, and both orders; normal models beside the toys."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.3))
    for k, toy in enumerate(TOYS):
        n, exact, (a, b) = (measured["enumerated"][f"{toy.name}: {x}"] for x in ("n", "forward", "expansion"))
        line = np.geomspace(n.min() / 1.25, 1000, 100)
        left.axhline(a, color=f"C{k}", ls=":", lw=1)
        left.plot(line, a + b / line, color=f"C{k}", ls="-")
        left.plot(n, n * exact, ls="", marker=MARKERS[k], color=f"C{k}", mfc="white", label=toy.name)
    left.legend(loc="upper right", title="exact; line: a + b/n; dotted: a", title_fontsize=8)
    left.set(
        xscale="log", xlabel="draws n", ylabel="n R(n) (nats)", title="finite alphabets, counted", ylim=(0.6, 1.35)
    )
    run = measured["continuous"]
    for k, d in enumerate((1, 2, 5, 10, 20)):
        (a, b), n = run["expansion"][k], run["n"][k]
        line = np.geomspace(n[0], n[-1], 60)
        right.plot(line / (2 * a), 1 + b / (a * line), color=f"C{k}", ls="-")
        right.plot(n / (2 * a), n * run["risk"][k] / a, ls="", marker=MARKERS[k], color=f"C{k}", mfc="white",
                   label=f"d = {d}, p = {d * (d + 3) // 2}")  # fmt: skip
    right.axhline(1, color=GREY, ls=":", lw=1)
    right.legend(loc="upper right")
    right.set(xscale="log", xlabel="draws a parameter, n / p", ylabel="n R(n) / a", title="normal models, exact")
    right.set_xticks([10, 20, 50, 100, 200], ["10", "20", "50", "100", "200"])
    right.minorticks_off()
    return figure


def second_order(setup: Setup, measured: Measured) -> Figure:
    """c(n) = n^2 (R - a/n) against 1/n, forward and reverse, with the intercepts b; both coefficients as bars."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.3), width_ratios=(1.5, 1))
    for k, toy in enumerate(TOYS):
        for name, way, style, face in (("forward", "", "-", f"C{k}"), ("reverse", "reverse_", "--", "white")):
            n, exact, (a, b) = (measured["enumerated"][f"{toy.name}: {x}"] for x in ("n", name, f"{way}expansion"))
            c = n**2 * (exact - a / n)
            left.plot([0, *(1 / n[::-1])], [b, *c[::-1]], color=f"C{k}", ls=style, lw=1)
            left.plot(1 / n, c, ls="", marker=MARKERS[k], color=f"C{k}", mfc=face)
            left.plot(0, b, marker="*", ms=10, color=f"C{k}", clip_on=False, zorder=5)
            right.barh(k + (0.2 if name == "forward" else -0.2), b, height=0.36, color=f"C{k}",
                       alpha=1 if name == "forward" else 0.55, hatch="" if name == "forward" else "////",
                       edgecolor="white", lw=0)  # fmt: skip
            right.text(
                b + 0.06, k + (0.2 if name == "forward" else -0.2), f"{name}, {b:.2f}", fontsize=7.5, va="center"
            )
    left.set(xlabel="1 / n", ylabel=r"$n^2\,(R(n) - a/n)$ (nats)", title="filled: forward; hollow: reverse; stars: b",
             xlim=(0, None), ylim=(0, 4))  # fmt: skip
    right.set_yticks(range(len(TOYS)), [toy.name.replace(" ", "\n") for toy in TOYS])
    right.set(xlabel="coefficient b of $n^{-2}$ (nats)", title="direction matters", xlim=(0, 4.6))
    right.grid(axis="y", visible=False)
    return figure


def phase_diagram(setup: Setup, measured: Measured) -> Figure:
    """Mean risk over p and n in units of 8 alpha^2, with both orders of n*; what the scores choose."""
    run = measured["grid"]
    n, p = run["n"], np.arange(1, MOST + 1)
    allowed = 8 * setup.alpha**2
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.7), width_ratios=(1.15, 1))
    ratio = np.ma.masked_where(run["lost"] > 0.1, run["risk"] / allowed)
    drawn = left.pcolormesh(n, p, ratio, cmap="cividis_r", norm=LogNorm(0.1, 10), shading="nearest")
    left.set_facecolor("0.8")
    left.plot(run["first"], p, color="white", ls="--", lw=2)
    left.plot(run["second"], p, color="black", ls="-", marker="o", ms=3)
    figure.colorbar(drawn, ax=left, label=r"mean risk / $8\alpha^2$")
    left.text(30, 10.6, "no fit in over\n1 of 10 samples", fontsize=7, color="0.2", va="center", ha="left")
    box = {"fc": "white", "ec": "none", "alpha": 0.85, "pad": 1.5}
    left.text(390, 1.15, "white, dashed: a / c\nblack: n*", fontsize=7.5, ha="right", va="bottom", bbox=box)
    for k, name in enumerate(SCORES):
        right.plot(n, run["chosen"][:, k], color=f"C{k}", marker=MARKERS[k], ms=4, label=name)
    right.plot(run["second"], p, color="black", ls="-", lw=2.2, label="p-n criterion: n*")
    right.fill_betweenx(p, n[0], run["second"], facecolor="0.5", alpha=0.12, lw=0)
    label(right, 30, 9.3, "rejected", "0.25", ha="left", fontweight="bold")
    label(right, 260, 6.6, "accepted", "0.25", ha="left", fontweight="bold")
    right.legend(loc="lower right", fontsize=7.5)
    right.set(ylabel="mean number of statistics chosen", title="what the scores choose")
    left.set(ylabel="statistics p", title=rf"softmax toy, $\gamma$ = {setup.gamma:g}, $\alpha$ = {setup.alpha:g}")
    for ax in (left, right):
        ax.set(xscale="log", xlabel="draws n", xlim=(n[0] * 0.93, n[-1] * 1.08), ylim=(0.5, MOST + 0.5))
        ax.set_xticks([25, 50, 100, 200, 400], ["25", "50", "100", "200", "400"])
        ax.minorticks_off()
    return figure


def misspecification(setup: Setup, measured: Measured) -> Figure:
    """t0/p and b against gamma for some p, and the distance of the model from the truth."""
    run = measured["misspecified"]
    gamma = run["gamma"]
    figure, axes = plt.subplots(1, 3, figsize=(8.4, 3.1))
    panels = (("a", r"$t_0/p$", "first order"), ("b", "b (nats)", "second order"),
              ("distance", r"KL(g || g*) (nats)", "the model's own error"))  # fmt: skip
    for ax, (name, words, title) in zip(axes, panels, strict=True):
        for k, p in enumerate((1, 2, 4, 6, 11)):
            y = run[name][p - 1] * (2 / p if name == "a" else 1)
            ax.plot(gamma, y, color=f"C{k}", marker=MARKERS[k], markevery=3, ms=4, label=f"p = {p}")
        ax.set(xlabel=r"misspecification $\gamma$ (nats)", ylabel=words, title=title)
    axes[1].set_yscale("log")
    axes[2].legend(loc="upper left")
    return figure


def bayes_error(setup: Setup, measured: Measured) -> Figure:
    """1/2 - Er against sqrt(D/8) of single fits with the bound and the slope of normal shifts; means at n*."""
    run = measured["sampled"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.4))
    top = 0.16
    left.plot([0, top], [0, top], color="black", ls="-")
    left.plot([0, top], [0, top * np.sqrt(2 / np.pi)], color=GREY, ls="--")
    for k, p in enumerate((1, 3, 6)):
        at = 3 + p - 1
        x, y = np.sqrt(run["some_forward"][at] / 8), 0.5 - run["some_bayes"][at]
        left.plot(x, y, ls="", marker=MARKERS[k], ms=3.5, color=f"C{k}", mew=0, alpha=0.7, label=f"p = {p}")
    left.axvline(ALPHA, color=RED, ls=":", lw=1.2)
    label(left, ALPHA + 0.003, 0.008, r"$\alpha$", RED, ha="left")
    label(left, 0.1, 0.118, "bound", "black", ha="right")
    label(left, 0.125, 0.083, r"$\sqrt{2/\pi}$", GREY, ha="left")
    left.legend(loc="upper left")
    left.set(xlabel=r"$\sqrt{D/8}$ of one fit", ylabel="1/2 - Er", xlim=(0, top), ylim=(0, top),
             title="single fits at n = n*")  # fmt: skip
    few = np.arange(1, FEW + 1)
    right.plot(few, run["bayes"][3:], marker="o", color=BLUE, ls="-")
    right.axhline(0.5 - ALPHA, color=BLUE, ls="--", lw=1)
    label(right, 6.1, 0.4665, "mean Er", BLUE, ha="right")
    label(right, 6.1, 0.4515, "bound at alpha = 0.05", BLUE, ha="right")
    right.set(xlabel="statistics p, at n = n*(p)", ylabel="mean Bayes error", ylim=(0.448, 0.47), title="what n* buys")
    other = right.twinx()
    other.plot(few, run["share"][3:], marker="s", color=RED, ls="-.")
    other.set(ylabel="share of fits with Er at least 0.45", ylim=(0.5, 1.0))
    other.spines["right"].set_visible(True)
    other.grid(visible=False)
    label(other, 2.1, 0.735, "share of fits", RED, ha="left")
    return figure


def plug_in(setup: Setup, measured: Measured) -> Figure:
    """Histograms of the estimated risk of both orders at n = 50, 100, 200, with the threshold."""
    run = measured["plug in"]
    allowed = 8 * setup.alpha**2
    a, b = run["true"]
    figure, axes = plt.subplots(1, 3, figsize=(8.4, 2.9))
    for k, ax in enumerate(axes):
        n = run["n"][k]
        there = run["exists"][k]
        both = np.concatenate([run["first"][k][there], run["second"][k][there]])
        low, high = np.quantile(both, [0.002, 0.985])
        bins = np.linspace(low, high, 45)
        for name, colour, hatch in (("first", BLUE, ""), ("second", RED, "////")):
            ax.hist(run[name][k][there], bins, color=colour, alpha=0.6, hatch=hatch,
                    edgecolor="white", lw=0, density=True, label=f"{name} order")  # fmt: skip
        ax.axvline(allowed, color="black", ls="--", lw=1.3)
        ax.axvline(a / n + b / n**2, color=GREEN, ls="-", lw=1.5)
        ax.set(xlabel="estimated risk (nats)", title=f"n = {n}", yticks=[])
        ax.set_xlabel(
            f"estimated risk (nats)\npass: {run['pass_first'][k]:.0%} first, {run['pass_second'][k]:.0%} second"
        )
        ax.grid(axis="y", visible=False)
    axes[0].set_ylabel("density")
    axes[2].legend(loc="center", fontsize=7.5)
    return figure

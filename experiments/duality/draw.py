"""The figures. Nothing is computed here: dots are measured, lines come from the theory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from experiments.duality import measure
from experiments.duality.measure import DECIDED, ETAS, MARKED, OTHERS, SPREAD, STEPS, WIDTHS, sample_sizes
from experiments.duality.network import LEVELS, recorded_steps
from experiments.duality.setup import Setup
from sandbox import utility

Measured = Mapping[str, Mapping[str, np.ndarray]]

BLUE, RED, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"  # of different lightness in grey


def label(ax: Axes, x: float, y: float, words: str, colour: str, **kwargs: Any) -> None:
    """Words beside a line, in its colour, on white."""
    box = {"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1}
    ax.text(x, y, words, color=colour, fontsize=8, bbox=box, **{"va": "center", **kwargs})


def order_first(setup: Setup, measured: Measured) -> Figure:
    """KL and pair order against the step, for a table and for a network."""
    run, steps = measured["networks"], recorded_steps(setup.network_steps)
    figure, axes = plt.subplots(1, 2, figsize=(7.4, 3.2), sharey=True)
    for ax, prefix, title in ((axes[0], "table_", "a table"), (axes[1], "", "a network, 12-64-8")):
        for name, colour, style, marker, words in (
            ("pairs", BLUE, "-", "o", "pairs in order"), ("kl", RED, "--", "s", "KL, share of its start"),
        ):  # fmt: skip
            y = run[prefix + name]
            y = y / run["start"][:, None] if name == "kl" else y
            ax.fill_between(steps, y.min(axis=0), y.max(axis=0), color=colour, alpha=0.2, lw=0)
            ax.plot(steps, y.mean(axis=0), color=colour, ls=style, marker=marker, markevery=2, ms=4, label=words)
        ax.set(xscale="log", xlabel="step of descent", title=title, ylim=(0, 1.05))
    axes[0].set_ylabel("share of pairs; share of KL")
    axes[1].legend(loc="lower left")
    return figure


def sampling(setup: Setup, measured: Measured) -> Figure:
    """Sampling quality against the step; regret of decisions against the step."""
    run, tasks = measured["sentences"], measured["payoffs"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.3))
    steps = np.arange(1, 129)
    shown = STEPS - 1
    curves = (("sampling", slice(1, 129), RED, "--", "s", "softmax"),
              ("sampling_tempered", slice(1, 129), PURPLE, "-.", "D", "softmax, best-fitting temperature"),
              ("sampling_inverse", slice(0, 128), BLUE, "-", "o", "inverted law"))  # fmt: skip
    for name, part, colour, style, marker, words in curves:
        y = run[name][part].mean(axis=1)
        left.plot(steps[shown], y[shown], color=colour, ls=style, marker=marker, ms=3.5, label=words)
    left.axhline(1, color="0.4", ls=":", lw=1.2)
    label(left, 1.1, 0.965, "greedy", "0.35", ha="left")
    left.legend(loc="lower right")
    left.set(xscale="log", xlabel="step of descent", ylabel="share of gold tokens", ylim=(0, 1.05), title="sampling")
    for k, (colour, style, marker, words) in enumerate(((RED, "--", "s", "softmax"),
                                                        (PURPLE, "-.", "D", "best temperature"))):  # fmt: skip
        right.errorbar(DECIDED, tasks["regret"][:, k], 2 * tasks["error"][:, k], color=colour, ls=style,
                       marker=marker, ms=4, label=words)  # fmt: skip
    uniform = tasks["others"][1]
    right.axhline(uniform, color="0.4", ls=":", lw=1.2)
    label(right, 32, uniform * 0.72, "a uniform guess", "0.35", ha="right")
    right.plot(DECIDED, np.full(len(DECIDED), 1.3e-4), ls="", marker="v", color=BLUE, ms=6, clip_on=False,
               label="inverted law: 0")  # fmt: skip
    right.legend(loc="center left", bbox_to_anchor=(0.0, 0.33))
    right.set(xscale="log", yscale="log", ylim=(1.2e-4, 0.4), xlabel="step of descent",
              ylabel="regret (payoff), bars: 2 s.e.", title="expected payoff")  # fmt: skip
    return figure


def curse(setup: Setup, measured: Measured) -> Figure:
    """Quality against beam width; the exact mode by training time and length."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.7))
    _beam(left, measured["sentences"])
    _phase(right, setup, measured["sentences"])
    return figure


def _beam(ax: Axes, run: Mapping[str, np.ndarray]) -> None:
    """Quality at three times, with the steps that the ranks of the end token predict."""
    line = np.linspace(0.6, 12.4, 1000)
    ranks = run["rank"][0]
    ax.plot(line, np.mean(ranks[None, :] > np.round(line)[:, None], axis=1), color="black", ls="-", lw=1.2,
            label="rank of the end token > B")  # fmt: skip
    shift = (0, -0.18, 0.18)
    for k, (words, colour, marker) in enumerate((("4 steps", RED, "o"), ("8 steps", PURPLE, "D"),
                                                 ("the data law", BLUE, "s"))):  # fmt: skip
        ax.plot(WIDTHS + shift[k], run["beam"][k].mean(axis=0), ls="", marker=marker, color=colour, mfc="white", ms=6,
                label=words)  # fmt: skip
    ax.legend(loc="upper right", bbox_to_anchor=(1.0, 0.93))
    ax.set(xlabel="beam width B", ylabel="mean quality (share of gold tokens)", ylim=(-0.04, 1.08), xlim=(0.5, 12.6))
    ax.set_xticks(WIDTHS)


def _phase(ax: Axes, setup: Setup, run: Mapping[str, np.ndarray]) -> None:
    """Exact mode: right, empty through flattening, empty even for the data law."""
    empty = run["phase"] == 0  # (steps + 1, lengths), the last row of the data law
    kind = np.where(~empty[:-1], 0, np.where(empty[-1][None, :], 2, 1))
    lengths = np.arange(1, setup.longest + 1)
    edges = np.concatenate([[STEPS[0] / 1.1], np.sqrt(STEPS[1:] * STEPS[:-1]), [STEPS[-1] * 1.1]])
    for value, colour in ((0, "#56B4E9"), (1, "#E69F00"), (2, "#999999")):
        shown = np.ma.masked_where(kind.T != value, np.ones_like(kind.T, float))
        ax.pcolormesh(edges, np.arange(len(lengths) + 1) + 0.5, shown, cmap=ListedColormap([colour]), alpha=0.55, lw=0,
                      rasterized=True)  # fmt: skip
    fine = np.arange(1, 129)
    ax.plot(fine, run["critical"][fine, -1], color="black", ls="-", lw=1.6)
    ax.axhline(run["critical"][-1, -1], color="black", ls="--", lw=1.2)
    label(ax, 40, 10, "the gold sentence", "black", ha="center")
    label(ax, 2.3, 14, "the empty sentence,\nthrough flattening", "black", ha="center")
    label(ax, 12, run["critical"][-1, -1] + 3, "empty, even for the data law", "black", ha="center")
    label(ax, 9.5, 12.4, r"$L^*(T)$", "black", ha="left")
    ax.set(xscale="log", xlabel="step of descent T", ylabel="length L (tokens)", xlim=(edges[0], edges[-1]),
           ylim=(0.5, setup.longest + 0.5))  # fmt: skip
    ax.grid(visible=False)


def links(setup: Setup, measured: Measured) -> Figure:
    """Probability against utility at three times, with three links."""
    run = measured["links"]
    figure, axes = plt.subplots(1, 3, figsize=(8.4, 3.1), sharey=True)
    for ax, h in zip(axes, (MARKED[0], MARKED[2], MARKED[3]), strict=True):
        at = int(np.argmin(np.abs(run["h"] - h)))
        u = run["twelve_u"][at]
        x = u - u.mean()
        for k, (colour, style, words) in enumerate(((RED, "--", "linear"), (GREEN, "-.", "corrected"),
                                                    (PURPLE, ":", "softmax"))):  # fmt: skip
            ax.plot(x, run["twelve_read"][k, at], color=colour, ls=style, label=words, lw=1.8)
        ax.plot(x, SPREAD, ls="", marker="o", color="black", mfc="white", ms=5, label="the law")
        ax.set(xlabel="utility less its mean (nats)", title=f"h = {h:g}", ylim=(-0.08, 0.36))
    axes[0].set_ylabel("probability")
    axes[0].legend(loc="upper left")
    return figure


def small_samples(setup: Setup, measured: Measured) -> Figure:
    """Where early-stopped softmax beats inversion: by sample size and stopping time."""
    run = measured["small samples"]
    sizes = np.array(sample_sizes(setup))
    better = np.log10(run["trained"] / run["raw"][:, None])  # (sizes, steps)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.4), width_ratios=(1.35, 1))
    steps = np.arange(1, 33)
    top = np.ceil(10 * np.abs(better).max()) / 10
    drawn = left.pcolormesh(
        steps, sizes, better, cmap="RdBu_r", vmin=-top, vmax=top, shading="nearest", rasterized=True
    )
    left.contour(steps, sizes, better, levels=[0], colors="black", linewidths=1.6)
    bar = figure.colorbar(drawn, ax=left)
    bar.set_label("log10 of error, softmax / inverted")
    left.set(xscale="log", yscale="log", xlabel="step of descent T", ylabel="sample size n", title="who is closer?",
             xlim=(1, 32), ylim=(sizes[0], sizes[-1]))  # fmt: skip
    label(left, 7, sizes[0] * 2.2, "inversion hurts", BLUE, ha="center")
    if sizes[-1] >= 40:
        label(left, 1.9, 38, "it helps", RED, ha="center")
    for k, (n, colour) in enumerate(((10, BLUE), (16 if sizes[-1] < 20 else 50, RED))):
        at = int(np.argmin(np.abs(sizes - n)))
        right.plot(steps, run["trained"][at], color=colour, ls=("-", "--")[k], marker="os"[k], markevery=4, ms=4)
        right.axhline(float(utility.frequency_error(measure.SMALL_LAW, sizes[at])), color=colour, ls=":", lw=1.3)
        y = float(run["trained"][at, -1])
        label(right, 33, y * (0.93, 1.3)[k], f"n = {sizes[at]}", colour, ha="right", va=("top", "bottom")[k])
    right.set(xscale="log", xlabel="step of descent T", ylabel="mean squared error", ylim=(0, None),
              title="softmax; dotted: inverted")  # fmt: skip
    return figure


def order_lost(setup: Setup, measured: Measured) -> Figure:
    """Share of runs that lose an order against the step size; two leaders among many others."""
    run = measured["order"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.3))
    for k, (colour, style, marker, words) in enumerate(((BLUE, "-", "o", "from a start in order"),
                                                        (RED, "--", "s", "from a uniform start"))):  # fmt: skip
        left.plot(ETAS, run["lost"][:, k], color=colour, ls=style, marker=marker, ms=4, label=words)
    for x in (2, 4):
        left.axvline(x, color="0.4", ls=":", lw=1.2)
    left.legend(loc="upper left")
    left.set(
        xlabel=r"step size $\eta$", ylabel="share of runs that lose an order", ylim=(-0.03, 1), title="few outputs"
    )
    right.plot(OTHERS, run["leaders"], color=PURPLE, ls="-", lw=1.4)
    right.axhline(0, color="black", ls="-", lw=0.9)
    near = int(np.argmin(np.abs(OTHERS - 3.5e7)))
    right.plot(OTHERS[near], run["leaders"][near], marker="v", color=RED, ms=6)
    label(right, 8e6, -0.16, "35 million: order lost", RED, ha="right")
    right.set(xscale="log", xlabel="other outputs", ylabel=r"smallest gap / ($\eta$ x lead)", ylim=(-0.3, 0.8),
              title=r"two leaders, $\eta$ = 4")  # fmt: skip
    right.minorticks_off()
    return figure


def sharing(setup: Setup, measured: Measured) -> Figure:
    """Order accuracy at fixed KL from table to shared kernel; the errors of inversions of a network."""
    run, network = measured["sharing"], measured["networks"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.8, 3.4), width_ratios=(1.2, 1))
    at = np.ma.masked_invalid(run["at_level"].mean(axis=0))  # (rho, levels)
    left.set_facecolor("0.85")
    left.patch.set(hatch="////", edgecolor="0.6")
    drawn = left.pcolormesh(
        run["rho"], LEVELS, at.T, cmap="cividis", vmin=0.7, vmax=1, shading="nearest", rasterized=True
    )
    bar = figure.colorbar(drawn, ax=left)
    bar.set_label("share of pairs in order")
    left.set(
        yscale="log", xlabel=r"sharing $\rho$", ylabel="KL left, share of its start", title="from table to network"
    )
    left.set_yticks([0.5, 0.2, 0.1, 0.05], ["0.5", "0.2", "0.1", "0.05"])
    left.minorticks_off()
    left.grid(visible=False)
    steps = recorded_steps(setup.network_steps)
    looks = ((PURPLE, ":", "D", "softmax"), (RED, "--", "s", "inverted as a table"),
             (GREEN, "-.", "^", "with its first kernel"), (BLUE, "-", "o", "with all its kernels"))  # fmt: skip
    for k, (colour, style, marker, words) in enumerate(looks):
        y = np.exp(np.log(np.maximum(network["off"][:, :, k], 1e-12)).mean(axis=0))
        right.plot(steps, y, color=colour, ls=style, marker=marker, ms=3.5, markevery=2, label=words)
    right.legend(loc="best", fontsize=7)
    right.set(xscale="log", yscale="log", xlabel="step of descent", ylabel="mean squared error", title="a network read")
    right.minorticks_off()
    return figure

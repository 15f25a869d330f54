"""The figures. Nothing is computed here: dots and paths are measured, lines come from the theory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.entanglement.measure import PATHS
from experiments.entanglement.sentiment import MENDS, SUFFIXES
from experiments.entanglement.setup import Setup
from sandbox.measures import Case

Measured = Mapping[str, Mapping[str, np.ndarray]]

# Colour-blind safe (Okabe and Ito), of different lightness in grey; each with a marker of its own.
OUTCOMES = {
    Case.IDEAL: ("chosen up, rejected down", "#0072B2", "o"),
    Case.BOTH_FALL: ("both fall", "#D55E00", "v"),
    Case.BOTH_RISE: ("both rise", "#E69F00", "^"),
}
CHOSEN, REJECTED = {"color": "#0072B2", "linestyle": "-"}, {"color": "#D55E00", "linestyle": "--"}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def trajectories(setup: Setup, measured: Measured) -> Figure:
    """Log-probabilities along DPO for three suffix lengths."""
    run = measured["sentiment task"]
    steps = setup.every * np.arange(run["chosen"].shape[-1])
    figure, axes = plt.subplots(1, len(SUFFIXES), figsize=(7.4, 2.9), sharex=True)
    for ax, suffix, chosen, rejected in zip(axes, SUFFIXES, run["chosen"], run["rejected"], strict=False):
        for values, style in ((chosen, CHOSEN), (rejected, REJECTED)):
            ax.plot(steps, values.T, lw=0.6, alpha=0.5, **style)
            ax.plot(steps, values.mean(axis=0), lw=2, **style)
        ax.axhline(0, color="0.5", lw=0.8, ls="-")
        ax.set(title=_shared(suffix), xlabel="step of DPO")
    axes[0].text(0.97, 0.86, "chosen", transform=axes[0].transAxes, color=CHOSEN["color"], ha="right")
    axes[0].text(0.45, 0.3, "rejected", transform=axes[0].transAxes, color=REJECTED["color"], ha="right")
    axes[0].set_ylabel("change of log-probability (nats)")
    return figure


def cosines(setup: Setup, measured: Measured) -> Figure:
    """The cosine of a pair's gradients along DPO for three suffix lengths."""
    run = measured["sentiment task"]["cosine"]
    steps = setup.every * np.arange(run.shape[-1])
    figure, ax = plt.subplots(figsize=(5.5, 3.2))
    for k, (suffix, values) in enumerate(zip(SUFFIXES, run, strict=False)):
        (line,) = ax.plot(steps, values.mean(axis=0), lw=2, marker="osD"[k], markevery=max(1, len(steps) // 7))
        ax.fill_between(steps, values.min(axis=0), values.max(axis=0), color=line.get_color(), alpha=0.15, lw=0)
        _label(ax, steps[-1], values.mean(axis=0)[-1], _shared(suffix), line.get_color())
    ax.axhline(0, color="0.5", lw=0.8, ls="-")
    ax.set(xlabel="step of DPO", ylabel="cosine of the gradients", ylim=(-1, 1), xlim=(0, steps[-1] * 1.28),
           xticks=np.linspace(0, steps[-1], 6))  # fmt: skip
    return figure


def token_map(setup: Setup, measured: Measured) -> Figure:
    """Cosine of the gradients of every chosen with every rejected token: log-linear policy, and network."""
    toy = measured["token cosines"]["cosine"]
    network = measured["sentiment task"]["tokens"][len(SUFFIXES) - 1].mean(axis=0)
    figure, axes = plt.subplots(1, 2, figsize=(7.4, 3.4), width_ratios=(len(toy), len(network)))
    for ax, cosine, title in zip(axes, (toy, network), ("log-linear policy", "network after DPO"), strict=True):
        image = ax.imshow(cosine, cmap="RdBu_r", vmin=-1, vmax=1)
        for (i, j), value in np.ndenumerate(cosine):
            ax.text(j, i, f"{value:+.1f}" if abs(value) >= 0.05 else "0", ha="center", va="center", fontsize=7,
                    color="white" if abs(value) > 0.6 else "black")  # fmt: skip
        names = ["label", *map(str, range(1, len(cosine)))]
        ax.set_xticks(range(len(names)), names)
        ax.set_yticks(range(len(names)), names)
        ax.set(xlabel="token of the rejected", ylabel="token of the chosen", title=title)
        ax.grid(False)
    figure.colorbar(image, ax=axes, label="cosine of the gradients", shrink=0.9)
    return figure


PLANE = 10**-1.65, 10**1.65  # of kappa


def _plane(ax: Axes, runs: Mapping[str, Any], outcome: Any) -> None:
    """Dots of the runs, coloured by the outcome, the boundaries, and the axes."""
    for case, (_, colour, marker) in OUTCOMES.items():
        here = outcome == case
        ax.plot(runs["kappa"][here], runs["cosine"][here], ls="", marker=marker, ms=1.6, mew=0, color=colour,
                alpha=0.35, rasterized=True, zorder=1)  # fmt: skip
    kappa = np.geomspace(*PLANE, 401)
    ax.plot(kappa, np.minimum(kappa, 1 / kappa), color="black", lw=2, ls="-", zorder=3)
    ax.set_xscale("log")
    ax.set(xlim=PLANE, ylim=(-1, 1), xlabel=r"$\kappa = d_w|g_w|\,/\,d_l|g_l|$")
    ticks = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()


def followed(setup: Setup, measured: Measured) -> Figure:
    """Where runs that begin in one case end after many steps."""
    runs = measured["followed runs"]
    figure, ax = plt.subplots(figsize=(6.4, 4.2))
    _plane(ax, runs, runs["end"])
    ax.set(ylabel="cosine at the start", title=f"after {setup.run_steps} steps of Flex-DPO")
    box = {"fc": "white", "ec": "none", "alpha": 0.85, "pad": 2}
    for x, y, case in ((1, -0.6, Case.IDEAL), (0.11, 0.85, Case.BOTH_FALL), (7.5, 0.85, Case.BOTH_RISE)):
        begun = runs["start"] == case
        ends = [(OUTCOMES[c], np.mean(runs["end"][begun] == c)) for c in OUTCOMES]
        said = [f"begun: {OUTCOMES[case][0]}", *(f"{share:.0%} {look[0]}" for look, share in ends if share > 0.001)]
        ax.text(x, y, "\n".join(said), fontsize=7.5, ha="center", va="center", bbox=box, zorder=8)
    handles = [plt.Line2D([], [], ls="", marker=m, color=c, ms=5, label=name) for name, c, m in OUTCOMES.values()]
    figure.legend(handles=handles, loc="outside right upper", title="at the end", frameon=False)
    return figure


def phase_diagram(setup: Setup, measured: Measured) -> Figure:
    """What really happened to random pairs, the theory's boundaries, and each loss's path from one starting point."""
    runs, along = measured["phase diagram"], measured["paths of the losses"]
    figure, ax = plt.subplots(figsize=(7.6, 4.8))
    _plane(ax, runs, runs["outcome"])
    low, high = PLANE
    kappa = np.geomspace(low, high, 401)
    ax.fill_between(kappa, -1, np.minimum(kappa, 1 / kappa) / 2, facecolor="none", edgecolor="0.35", hatch="....",
                    lw=0, alpha=0.5, zorder=2)  # fmt: skip
    taken: list[tuple[float, float]] = []
    for letter, k, c in zip(LETTERS, along["kappa"], along["cosine"], strict=False):
        inside = np.isfinite(k) & (k > low) & (k < high)
        ax.plot(k[inside], c[inside], color="white", lw=2.6, ls="-", zorder=4)
        ax.plot(k[inside], c[inside], color="black", lw=1.1, ls="-", zorder=5)
        last = np.flatnonzero(inside)[-1] if inside.any() else len(k) - 1
        end = np.clip(np.where(np.isfinite(k[last]), k[last], high), low, high * 0.94), c[last]
        x, y = np.log10(end[0]), end[1]
        while any(abs(x - u) < 0.055 and abs(y - v) < 0.055 for u, v in taken):
            y += 0.06  # letters of paths that end together stand above each other, each on a thread to its end
        taken.append((x, y))
        if y > end[1]:
            ax.plot([end[0]] * 2, [end[1], y], color="0.45", lw=0.8, ls=":", zorder=6)
            ax.plot(*end, color="black", marker=".", ms=4, ls="", zorder=5)
        ax.plot(end[0], y, color="black", marker="o", ms=9, mfc="white", mew=0.8, ls="", zorder=6)
        ax.annotate(letter, (end[0], y), ha="center", va="center", fontsize=7, fontweight="bold", zorder=7)
    for place, (letter, name) in enumerate(zip(LETTERS, PATHS, strict=False)):  # one by one: on a line, in a column
        for x, text, weight in ((0.878, letter, "bold"), (0.891, name, "normal")):
            figure.text(x, 0.78 - 0.032 * place, text, fontsize=8, fontweight=weight, va="baseline",
                        ha="center" if text == letter else "left")  # fmt: skip
    figure.set_layout_engine("constrained", rect=(0, 0, 0.87, 1))
    box = {"fc": "white", "ec": "none", "alpha": 0.85, "pad": 2}
    for x, y, case in ((1, -0.6, Case.IDEAL), (0.08, 0.9, Case.BOTH_FALL), (12, 0.9, Case.BOTH_RISE)):
        name, colour, _ = OUTCOMES[case]
        ax.text(x, y, name, color=colour, fontsize=11, fontweight="bold", ha="center", va="center", bbox=box, zorder=8)
    ax.text(1.0, 1.03, r"$\cos = \min(\kappa,\,1/\kappa)$", ha="center", va="bottom", fontsize=9)
    ax.text(0.026, -0.93, "dotted: within reach of one tabular token, equal weights", fontsize=7.5, bbox=box, zorder=8)
    ax.set_ylabel(r"cosine of $g_w$ and $g_l$")
    return figure


def n_star(setup: Setup, measured: Measured) -> Figure:
    """How long a shared suffix must be before the chosen falls, and random lengths tried on either side."""
    m = measured["n* map"]
    figure, (ax, right) = plt.subplots(1, 2, figsize=(8.0, 3.5), width_ratios=(1.35, 1))
    shown = np.where(np.isfinite(m["n_star"]), np.clip(m["n_star"], 1, 100), np.nan)
    mesh = ax.pcolormesh(m["overlap"], m["error"], np.log10(shown), cmap="cividis", vmin=0, vmax=2, rasterized=True)
    lines = ax.contour(m["overlap"], m["error"], np.where(np.isfinite(shown), shown, 1e3), levels=[5, 10, 20],
                       colors="white", linewidths=1, linestyles="-")  # fmt: skip
    ax.clabel(lines, fmt="%d", fontsize=7)
    ax.plot(m["overlap"], m["overlap"] * setup.rejected_error / 2, color="white", lw=1.6, ls="--")
    ax.annotate("worst", (0.9, 0.45 * setup.rejected_error), xytext=(-4, 5), textcoords="offset points", fontsize=8,
                color="white", fontweight="bold", ha="right")  # fmt: skip
    ax.text(0.06, 0.66, "never falls", fontsize=9)
    bar = figure.colorbar(mesh)
    bar.set_ticks([0, 1, 2], labels=["1", "10", "≥100"])
    bar.ax.set_title("n* (tokens)", fontsize=8, loc="left")
    ax.set(xlabel="overlap R of the two responses' features", ylabel="chosen's residual at a suffix token",
           xlim=(0.02, 0.98), ylim=(0.01, 0.79))  # fmt: skip
    ax.grid(False)
    falls = m["tried_change"] < 0
    threshold = np.minimum(m["tried_n_star"], 25)
    for here, (_, colour, marker), name in (
        (falls, OUTCOMES[Case.BOTH_FALL], "chosen fell"),
        (~falls, OUTCOMES[Case.IDEAL], "chosen rose"),
    ):
        right.plot(threshold[here], m["tried_length"][here], ls="", marker=marker, ms=3.5, color=colour, label=name)
    right.plot([0, 21], [0, 21], color="black", lw=1.4, ls="-")
    right.set(xlabel="n* of the theory (tokens)", ylabel="suffix tried (tokens)", ylim=(-0.7, 24), xlim=(0, 26))
    right.set_xticks([0, 10, 20, 25], ["0", "10", "20", "≥25"])
    right.legend(loc="upper left", ncols=2, columnspacing=1, handletextpad=0.2)
    return figure


def gap(setup: Setup, measured: Measured) -> Figure:
    """What a finite step loses against first order."""
    m = measured["gap to first order"]
    figure, ax = plt.subplots(figsize=(5.6, 3.6))
    ax.plot(m["eta"], m["hoeffding"][:, 0], color="black", ls="-", lw=1.4)
    for values, marker, name in ((m["linear"], "o", "log-linear policy"), (m["network"], "s", "network")):
        (line,) = ax.plot(m["eta"], values[:, 0], ls="", marker=marker)
        _label(ax, m["eta"][-1], values[-1, 0], name, line.get_color(), dy=-4)
    _label(ax, m["eta"][-1], m["hoeffding"][-1, 0], "bound", "black", dy=6)
    guide = m["linear"][0, 0] * (m["eta"] / m["eta"][0]) ** 2
    ax.plot(m["eta"], guide, color="0.5", ls=":", lw=1.2)
    ax.annotate("slope 2", (m["eta"][4], guide[4]), xytext=(4, -12), textcoords="offset points", color="0.35")
    ax.set(xscale="log", yscale="log", xlabel=r"step size $\eta$", ylabel="|exact - first order| (nats)",
           xlim=(m["eta"][0] * 0.8, m["eta"][-1] * 8))  # fmt: skip
    return figure


def mends(setup: Setup, measured: Measured) -> Figure:
    """The longest suffix again, with each mend."""
    run = measured["sentiment task"]
    names = ["DPO", *MENDS]
    rows = [len(SUFFIXES) - 1, *range(len(SUFFIXES), len(SUFFIXES) + len(MENDS))]
    figure, axes = plt.subplots(1, 2, figsize=(7.0, 2.7), sharey=True)
    for ax, side, style in zip(axes, ("chosen", "rejected"), (CHOSEN, REJECTED), strict=True):
        final = run[side][rows, :, -1]
        place = np.arange(len(names))[::-1]
        ax.barh(place, final.mean(axis=1), color=style["color"], alpha=0.55, height=0.6)
        ax.plot(final, np.broadcast_to(place[:, None], final.shape), ls="", marker="o", ms=3, color="black", alpha=0.7)
        ax.axvline(0, color="0.3", lw=0.8, ls="-")
        ax.set_yticks(place, names)
        ax.set(title=side, xlabel="change of log-probability (nats)")
        ax.grid(axis="y", visible=False)
    return figure


def _shared(suffix: int) -> str:
    return "label only" if suffix == 0 else "1 shared token" if suffix == 1 else f"{suffix} shared tokens"


def _label(
    ax: Axes, x: float, y: float, text: str, colour: Any, dx: float = 5, dy: float = 0, ha: str = "left"
) -> None:
    ax.annotate(text, (x, y), xytext=(dx, dy), textcoords="offset points", color=colour, fontsize=8, ha=ha, va="center")
